"""The networks, one family per file; shared pieces in `layers`, `pixel_path` and `positions`."""
