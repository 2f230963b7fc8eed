"""The command line: `python -m pixeldit_core --help`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
