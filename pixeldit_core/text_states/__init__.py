"""Encoded captions in files: shards of states, and the index that finds them. Written by the command `encode`."""
