"""What a run should be: the recipe file, its fields, units and errors, and the catalogue. Starts nothing."""
