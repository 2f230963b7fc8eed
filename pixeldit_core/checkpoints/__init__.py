"""Checkpoint files: locate, read safely, detect, validate strictly, load and save."""
