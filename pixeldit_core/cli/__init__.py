"""The command line: sample, inspect, convert."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

from . import convert, inspect, sample

_DESCRIPTION = "PixelDiT: pictures straight from pixels, without a VAE."
_EXAMPLES = """\
examples:
  python -m pixeldit_core sample
      one picture of every class of the small model that comes along, into output/
  python -m pixeldit_core sample imagenet256_pixeldit_xl_epoch320.ckpt --classes "207, tabby cat" --seeds 0-3
      four golden retrievers and four tabby cats, with the published settings
  python -m pixeldit_core inspect some-file.ckpt
      what a file is, and why it does not load if it does not
  python -m pixeldit_core convert trained.ckpt small.safetensors --dtype bf16
      the averaged weights of a training checkpoint, as a small file of their own

"python -m pixeldit_core COMMAND --help" tells more.
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.HelpFormatter):
    """Keeps examples as they are written and leaves room for the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status: 0, 2 after an error that a person can mend, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m pixeldit_core", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=HelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (sample, inspect, convert):
        module.add_command(commands, formatter_class=HelpFormatter)
    options = parser.parse_args(argv)
    try:
        return options.run(options)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "stopped.", 130)
    except (ValueError, OSError) as error:
        return _fail(f"error: {error}", 2)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_about_memory(error):
            raise
        return _fail("error: not enough memory. Try --batch-size 1, --dtype bf16 or a smaller --size.", 2)


def _is_about_memory(error: RuntimeError) -> bool:
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def _fail(message: str, status: int) -> int:
    sys.stderr.write(" ".join(message.split()) + "\n")
    return status
