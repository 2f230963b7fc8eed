"""Tiny evaluation runs for tests."""

import os
import subprocess
import sys

import numpy as np
from helpers import ROOT
from PIL import Image

from pixeldit_core.cli import main


def evaluate(*arguments):
    """The exit status of the command."""
    return main(["evaluate", *map(str, arguments)])


def start(*arguments, processes=1):
    """The command as a program of its own, under torchrun if it has several processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*launcher, "-m", "pixeldit_core", "evaluate", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(folder):
    """The images of a run by their path below it, and the text of each file."""
    found = {}
    for path in sorted((folder / "images").rglob("*.png")):
        with Image.open(path) as image:
            found[str(path.relative_to(folder))] = np.array(image)
    return found


def contents(folder):
    """The bytes of every file of the images."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "images").rglob("*"))
            if path.is_file()}  # fmt: skip
