"""Checkpoint files: reading safely, recognising, loading strictly, saving."""
