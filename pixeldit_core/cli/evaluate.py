"""`evaluate`: many images of a checkpoint, and scores of them."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from ..evaluation.processes import Processes, join_processes
from .evaluate_options import EXAMPLES, add_arguments
from .evaluate_run import make_images
from .evaluate_score import Judge, score_images
from .options import choose_device


def add_command(commands: Any, **options: Any) -> None:
    """Add `evaluate` to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="generate many images, and score them: FID and others",
        description="Generates images whose classes and seeds depend on nothing but their number, and scores images.",
        epilog=EXAMPLES,
        **options,
    )
    parser.set_defaults(run=run)
    add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Generate or score; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    processes = join_processes(choose_device(options.device), automatic=options.device == "auto")
    _check_options(options)
    if options.checkpoint is None:
        if processes.is_main:
            sys.stdout.write(_score(options, processes))
    elif options.sweep:
        from .evaluate_sweep import sweep

        sys.stdout.write(sweep(options, processes))
    else:
        sys.stdout.write(_generate(options, processes))
    return 0


def _check_options(options: argparse.Namespace) -> None:
    """Raises ValueError unless the options say one thing to do."""
    if options.checkpoint is not None and options.score is not None:
        raise ValueError("give a checkpoint to generate images with, or --score DIR to score images, not both.")
    if options.checkpoint is None and options.score is None and options.save_statistics is None:
        raise ValueError(
            "name a checkpoint to generate images with, or images to score: --score DIR --reference X. "
            '"evaluate --help" has examples.'
        )
    if options.checkpoint is not None and options.out is None:
        raise ValueError("--out DIR is missing: the folder for the images and their score.")
    needs = "--score" if options.score else "--save-statistics" if options.save_statistics else ""
    needs = "--sweep" if options.sweep else needs
    if needs and options.reference is None:
        raise ValueError(f"{needs} needs --reference X: a folder of images, an ADM reference .npz, or statistics.")


def _generate(options: argparse.Namespace, processes: Processes) -> str:
    judge = Judge(options, processes.device) if options.reference is not None and processes.is_main else None
    if judge is not None:
        judge.check()
    folder, text, complete = make_images(options, processes, options.out)
    return text if judge is None or not complete else text + score_images(judge, folder)


def _score(options: argparse.Namespace, processes: Processes) -> str:
    judge = Judge(options, processes.device)
    text = ""
    if options.save_statistics is not None:
        judge.save(options.save_statistics, options.score)
        text = f"{options.save_statistics}\n"
    return text if options.score is None else text + score_images(judge, Path(options.score))
