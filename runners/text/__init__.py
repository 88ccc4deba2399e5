"""Counting tokens and cutting texts, exactly as the engine and the reference splitter would."""
