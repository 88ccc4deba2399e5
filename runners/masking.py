"""Keeps secrets out of what is written and shown: `provisioners.masking`, for what runs on it."""

from provisioners.masking import MASK, Mask

__all__ = ["MASK", "Mask"]
