"""Scripts that run on the machine. Each stands alone: the standard library and at most the one library that it drives."""
