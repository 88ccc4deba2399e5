"""The experiment log for other programs: tables in files, and runs in experiment trackers.

A target is a file in `targets/`; its name is the format's. It gets runs one by one, so that a hundred thousand of them
take no more memory than one.
"""
