"""A network volume that keeps models, so that each is downloaded once."""
