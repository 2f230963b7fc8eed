"""Data sets: images from disk with what each is conditioned on, and the order that a run sees them in."""
