"""What `recipe stack` does with each program of stacks/: from recipes to inputs, from outputs to words."""
