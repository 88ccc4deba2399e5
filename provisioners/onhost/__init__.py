"""Scripts that run on the machine and stand alone: they import the standard library and nothing else."""
