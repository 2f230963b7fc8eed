"""The command line: sample, inspect, convert, train, ema, encode, evaluate."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

import torch

from . import convert, ema, encode, evaluate, inspect, sample, train

_DESCRIPTION = "PixelDiT: image generation in pixel space, without a VAE."
_EXAMPLES = """\
examples:
  python -m pixeldit_core sample
      images of twelve classes of the bundled model, into output/
  python -m pixeldit_core sample imagenet256_pixeldit_xl_epoch320.ckpt --classes "207, tabby cat" --seeds 0-3
      four golden retrievers and four tabby cats, with the published settings
  python -m pixeldit_core inspect some-file.ckpt
      what a checkpoint contains, or why it cannot be loaded
  python -m pixeldit_core convert trained.ckpt small.safetensors --dtype bf16
      the averaged weights of a training checkpoint, as a small file
  python -m pixeldit_core train recipes/toy-digits.yaml
      train a network; docs/training.md has the recipes, and an example with your own images
  python -m pixeldit_core evaluate trained.safetensors --count 5000 --out samples --reference data/held-back
      generate many images, on any number of processes, and score them

"python -m pixeldit_core COMMAND --help" shows all options.
"""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.HelpFormatter):
    """Keeps the line breaks of examples and has a wide column for the options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 2 = a user-fixable error, 130 = Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m pixeldit_core", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=HelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (sample, inspect, convert, train, ema, encode, evaluate):
        module.add_command(commands, formatter_class=HelpFormatter)
    options, rest = parser.parse_known_args(argv)
    if rest and not (hasattr(options, "overrides") and all(re.fullmatch(r"\w[\w.]*=.*", text) for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:  # argparse ends a list of positional arguments at the first option
        options.overrides += rest
    try:
        return options.run(options)
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "stopped.", 130)
    except (ValueError, OSError, ImportError) as error:  # the last: packages of the extras
        return _fail(f"error: {error}", 2)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        return _fail("error: not enough memory. Try --batch-size 1, --dtype bf16 or a smaller --size.", 2)


def _is_out_of_memory(error: RuntimeError) -> bool:
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "allocate memory" in str(error)
        or "not enough memory" in str(error)
    )


def _fail(message: str, status: int) -> int:
    sys.stderr.write(" ".join(message.split()) + "\n")
    return status
