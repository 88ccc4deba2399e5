"""Checks of a recipe against its model, its machine and its engine: pure functions to findings, and what would work."""
