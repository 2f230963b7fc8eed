"""Print the table of docs/training.md: memory and work of training, by network and size."""

from __future__ import annotations

import sys

from pixeldit_core.training import memory_table

ROWS = (
    ("PixelDiT-B", 256),
    ("PixelDiT-L", 256),
    ("PixelDiT-XL", 256),
    ("PixelDiT-XL", 512),
    ("PixelDiT-T2I", 512),
    ("PixelDiT-T2I", 1024),
    ("PixelHDM", 512),
    ("PixelDiT2-H/16", 256),
    ("PixelDiT2-H/16-512", 512),
    ("dit-tiny/4-cifar10", 32),
)

if __name__ == "__main__":
    sys.stdout.write(memory_table(ROWS))
