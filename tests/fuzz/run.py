"""Damaged and hostile checkpoint files by the thousand: `PYTHONPATH=tests python -m fuzz.run --cases 100000 --seed 1`.

A case is made from its seed and number alone, so that one that fails is made again by `--first NUMBER --cases 1`.
`--hostile` runs the named ones instead, of which every one asks for code, memory or time, under a limit of memory;
`--families` well-formed ones of the x-prediction networks, of PixelHDM and of PixelDiT2 with something else inside than
should be, LoRAs for them, and encoders.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import itertools
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from fuzz.attempts import Wrong, attempt, attempt_encoder, attempt_lora, attempt_whole
from fuzz.family_cases import encoder_case, family_case, lora_case
from fuzz.hostile import hostile_files
from fuzz.hostile_values import hostile_value_files
from fuzz.mutations import mutate
from fuzz.originals import sound_encoders, sound_files

import pixeldit_core as pc

MEMORY = 3 * 2**30  # for all hostile cases, above what the process has at their start


def random_case(files: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Name and content of a case."""
    dice = random.Random(f"{seed}/{number}")
    origin = dice.choice(sorted(files))
    suffix = dice.choice((".ckpt", ".ckpt", ".safetensors"))
    return f"fuzz-{origin.split('.')[0]}{suffix}", mutate(dice, origin, files[origin])


def run_cases(folder: Path, first: int, count: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Outcomes of random cases, and what went wrong, one line a case."""
    files, marker = sound_files(folder), folder / "it-ran"
    outcomes: dict[str, int] = collections.Counter()
    wrong = []
    for number in range(first, first + count):
        name, content = random_case(files, seed, number)
        (folder / "case").write_text(str(number))  # for the one after which there is no process to ask
        try:
            outcomes[attempt(folder / name, content, marker)] += 1
            if name.startswith("fuzz-encoder"):
                outcomes["encoder " + attempt_encoder(folder / name, folder / "network.safetensors")] += 1
        except Wrong as error:
            wrong.append(f"case {number} ({name}): {error}")
    return outcomes, wrong


def run_families(folder: Path, first: int, count: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Outcomes of well-formed files of the other families: saved again and sampled with, or refused by name."""
    outcomes: dict[str, int] = collections.Counter()
    wrong, place = [], folder / "families"
    place.mkdir(exist_ok=True)
    bases = [pc.load_checkpoint(write_case(place, family_case(random.Random(number), False))) for number in range(8)]
    sound_encoders(folder)
    for number in range(first, first + count):
        dice = random.Random(f"{seed}/{number}")
        (folder / "case").write_text(str(number))
        base = dice.choice(bases) if dice.random() < 0.15 else None
        try:
            if base:
                shapes = {key: tuple(value.shape) for key, value in base.network.state_dict().items()}
                path = write_case(place, lora_case(dice, shapes))
                outcomes["lora " + attempt_lora(path, base)] += 1
            elif dice.random() < 0.15:
                path = write_case(place, encoder_case(dice))
                outcomes["encoder " + attempt_encoder(path, folder / "network.safetensors")] += 1
            else:
                path = write_case(place, family_case(dice))
                outcomes[attempt_whole(path, folder / "it-ran")] += 1
        except Wrong as error:
            wrong.append(f"case {number} ({path.name}): {error}")
    return outcomes, wrong


def write_case(folder: Path, files: dict[str, bytes]) -> Path:
    """Files of a case, the checkpoint first, and nothing of the case before."""
    for file in folder.iterdir():
        file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / min(files, key=lambda name: name.endswith(".json"))


def run_hostile(folder: Path) -> tuple[dict[str, int], list[str]]:
    """The same for the named ones, under a limit of memory where the system knows one."""
    sound_files(folder)
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):
        pass
    outcomes: dict[str, int] = collections.Counter()
    wrong, marker = [], folder / "it-ran"
    for name, content in itertools.chain(hostile_files(folder, marker), hostile_value_files()):
        (folder / "case").write_text(name)
        for suffix in (".ckpt", ".safetensors") if name.startswith("zip") else (".ckpt",):  # torch minds it for these
            try:
                outcomes[attempt(folder / f"hostile{suffix}", content, marker)] += 1
            except Wrong as error:
                wrong.append(f"{name} ({suffix}): {error}")
    return outcomes, wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--hostile", action="store_true", help="the named cases instead")
    parser.add_argument("--families", action="store_true", help="cases of the other families instead")
    parser.add_argument("--folder", type=Path, help="where files are written, and stay; else somewhere that goes away")
    chosen = parser.parse_args(arguments)
    faulthandler.enable()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = chosen.folder or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        if chosen.hostile:
            outcomes, wrong = run_hostile(folder)
        elif chosen.families:
            outcomes, wrong = run_families(folder, chosen.first, chosen.cases, chosen.seed)
        else:
            outcomes, wrong = run_cases(folder, chosen.first, chosen.cases, chosen.seed)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    lines = [*wrong[:50], f"{summary}, {len(wrong)} wrong, in {time.monotonic() - began:.0f} seconds"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
