"""Where runs may be exported to; one module for each format. A module's PLUGIN is a `FileTarget` or a `Tracker`."""
