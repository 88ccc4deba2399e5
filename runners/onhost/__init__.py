"""Scripts that run on the machine and stand alone: the standard library, and at most the library that each drives."""
