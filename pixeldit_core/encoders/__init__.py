"""Frozen image encoders that networks look at their input through."""
