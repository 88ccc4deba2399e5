"""The provisioners, one file or folder each; a file's name is the plug-in's name."""
