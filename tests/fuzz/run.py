"""Damaged and hostile checkpoint files by the thousand: `PYTHONPATH=tests python -m fuzz.run --cases 100000 --seed 1`.

A case is made from its seed and number alone, so that one that fails is made again by `--first NUMBER --cases 1`.
`--hostile` runs the named ones instead, of which every one asks for code, memory or time, under a limit of memory;
`--families` well-formed ones of the x-prediction networks and of PixelHDM with something else inside than should be.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fuzz.families import KINDS as RELATIVES
from fuzz.families import POOL, family_case, lora_case, sound
from fuzz.hostile import hostile_files
from fuzz.mutations import mutate

import pixeldit_core as pc

SLOW = 20.0  # seconds for a case: far more than any takes, far less than a hang
MEMORY = 3 * 2**30  # for all hostile cases, above what the process has at their start


def sound_files(folder: Path) -> dict[str, bytes]:
    """Small files that load, of each container and of several layouts."""
    params = pc.PixelDiTParams(
        hidden_size=8,
        num_groups=1,
        patch_depth=1,
        pixel_depth=1,
        patch_size=2,
        pixel_hidden_size=4,
        num_classes=3,
        mlp_hidden_size=8,
        pixel_attn_hidden_size=8,
        pixel_num_groups=1,
    )
    text = pc.PixelDiTT2IParams(
        hidden_size=8,
        num_groups=1,
        patch_depth=1,
        pixel_depth=1,
        pixel_attn_hidden_size=8,
        pixel_num_groups=1,
        patch_size=2,
        pixel_hidden_size=4,
        txt_embed_dim=4,
        txt_max_length=2,
        mlp_hidden_size=8,
    )
    models = {
        "class": pc.build_model("pixeldit", params, device="cpu"),
        "text": pc.build_model("pixeldit_t2i", text, device="cpu"),
    }
    files = {}
    for name, model in models.items():
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.fill_(0.5)
        model.spec = replace(model.spec, settings=pc.SamplingSettings(steps=4, cfg=2.0))
        path = pc.save_checkpoint(model, folder / f"{name}.safetensors")
        files[f"{name}.safetensors"] = path.read_bytes()
        layout = pc.save_checkpoint(model, folder / "comfyui.safetensors", layout="comfyui")
        files[f"{name}-comfyui.safetensors"] = layout.read_bytes()
        state = dict(model.network.state_dict())
        trainer = {
            "epoch": 3,
            "state_dict": {
                f"{start}{key}": value for start in ("denoiser.", "ema_denoiser.") for key, value in state.items()
            },
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}],
            "lr_schedulers": [{"milestones": collections.Counter([1, 2])}],
            "numpy": np.random.RandomState(0).get_state(),
            "dtype": torch.bfloat16,
        }
        for zipped in (True, False):
            for kind, stored in {"plain": {"state_dict": state}, "trainer": trainer}.items():
                path = folder / "torch.ckpt"
                torch.save(stored, path, _use_new_zipfile_serialization=zipped)
                files[f"{name}-{kind}-{'zip' if zipped else 'legacy'}.ckpt"] = path.read_bytes()
    return files | sound_families(folder)


def sound_families(folder: Path) -> dict[str, bytes]:
    """The same of each relative, as its trainer and as we write it."""
    files = {}
    for kind in RELATIVES:
        number = next(number for number in range(POOL) if sound(number)[0] == kind)
        for form, zipped in (("zip", True), ("legacy", False)):
            path = folder / "trainer.ckpt"
            torch.save(sound(number)[2], path, _use_new_zipfile_serialization=zipped)
            files[f"{kind}-{form}.ckpt"] = path.read_bytes()
        again = pc.save_checkpoint(path, folder / "relative.safetensors")
        files[f"{kind}.safetensors"] = again.read_bytes()
    return files


class Wrong(Exception):
    """A case that did what no file may make it do."""


def attempt(path: Path, content: bytes, marker: Path) -> str:
    """Reads a file in both ways; "loaded" or "refused".

    Raises:
        Wrong: any other error, an error that does not name the file, code that ran, or much time.
    """
    path.unlink(missing_ok=True)  # never written over in place: tensors of the case before may be mapped
    path.write_bytes(content)
    outcome, began = "loaded", time.monotonic()
    for read in (pc.inspect_checkpoint, pc.load_checkpoint):
        try:
            found = read(path)
            if read is pc.inspect_checkpoint and found.refused and path.name not in found.refused:
                raise Wrong(f"{read.__name__} refuses without the file's name: {found.refused[:300]}")
        except ValueError as error:
            outcome = "refused"
            if path.name not in str(error) or len(str(error)) > 5000:
                raise Wrong(f"{read.__name__} raises without the file's name, or a book: {str(error)[:300]}") from error
        except Wrong:
            raise
        except BaseException as error:
            raise Wrong(f"{read.__name__} raises {type(error).__name__}: {str(error)[:300]}") from error
    if marker.exists():
        marker.unlink()
        raise Wrong("code ran")
    if time.monotonic() - began > SLOW:
        raise Wrong(f"it took {time.monotonic() - began:.0f} seconds")
    return outcome


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
        except Wrong as error:
            wrong.append(f"case {number} ({name}): {error}")
    return outcomes, wrong


def run_families(folder: Path, first: int, count: int, seed: int) -> tuple[dict[str, int], list[str]]:
    """Outcomes of well-formed files of the other families: what loads samples and is saved again, else says why."""
    outcomes: dict[str, int] = collections.Counter()
    wrong, place = [], folder / "families"
    place.mkdir(exist_ok=True)
    bases = [pc.load_checkpoint(write_case(place, family_case(random.Random(number), False))) for number in range(8)]
    for number in range(first, first + count):
        dice = random.Random(f"{seed}/{number}")
        (folder / "case").write_text(str(number))
        base = dice.choice(bases) if dice.random() < 0.15 else None
        try:
            if base:
                shapes = {key: tuple(value.shape) for key, value in base.network.state_dict().items()}
                path = write_case(place, lora_case(dice, shapes))
                outcomes["lora " + attempt_lora(path, base)] += 1
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


def guarded(path: Path, what: str, action: Callable[[], Any]) -> Any:
    """A result, or None for a ValueError with the file's name.

    Raises:
        Wrong: anything else.
    """
    try:
        return action()
    except ValueError as error:
        if path.name not in str(error) or len(str(error)) > 5000:
            raise Wrong(f"{what} raises without the file's name, or a book: {str(error)[:300]}") from error
    except BaseException as error:
        raise Wrong(f"{what} raises {type(error).__name__}: {str(error)[:300]}") from error
    return None


def attempt_whole(path: Path, marker: Path) -> str:
    """Reads a file in all ways, and draws with it; "drawn", "loaded" or "refused"."""
    began = time.monotonic()
    if attempt(path, path.read_bytes(), marker) == "refused":
        target = path.with_name("again.safetensors")
        if guarded(path, "save", lambda: pc.save_checkpoint(path, target)):
            raise Wrong("what does not load is saved")
        return "refused"
    model = pc.load_checkpoint(path)
    saved = guarded(path, "save", lambda: pc.save_checkpoint(path, path.with_name("again.safetensors")))
    again = guarded(saved or path, "load again", lambda: pc.load_checkpoint(saved))
    if not again or (again.params, again.settings, again.class_names) != (
        model.params,
        model.settings,
        model.class_names,
    ):
        raise Wrong("what was saved is not what was loaded")
    try:
        drawn = draw(model)
    except ValueError:  # such as a size that is no whole number of patches
        drawn = False
    except BaseException as error:
        raise Wrong(f"drawing raises {type(error).__name__}: {str(error)[:300]}") from error
    if time.monotonic() - began > SLOW:
        raise Wrong(f"it took {time.monotonic() - began:.0f} seconds")
    return "drawn" if drawn else "loaded"


def draw(model: pc.Model) -> bool:
    """A picture of the model's own size, where that is no large one; else of the smallest."""
    multiple = model.family.size_multiple(model.params)
    own = model.spec.default_size
    size = own if max(own) <= 16 else (multiple * 4,) * 2
    if max(own) > 2**14 or model.spec.settings_for(None).steps > 10_000 or max(size) > 64:
        raise Wrong(f"the size {own}, multiple {multiple} or {model.spec.settings_for(None).steps} steps are absurd")
    if model.family.condition == "class":
        condition = pc.class_condition(model, [0, model.params.num_classes])
        [names[0] for names in model.class_names or ()]
    else:
        text = torch.zeros(1, 2, model.params.txt_embed_dim)
        condition = pc.text_condition(model, text[:, : model.params.txt_max_length], None, text[:, 0])
    for convention in ("standard", "reference"):
        x = pc.sample(model, condition, size=size, steps=2, convention=convention)
        pixels = pc.to_uint8(model, x, convention)
    return bool(pc.from_image(model, pixels).isfinite().all()) and bool(model.family.summary(model.params))


def attempt_lora(path: Path, base: pc.Model) -> str:
    """Adds a LoRA to a model's weights, which then are as before again."""
    before = {key: value.clone() for key, value in base.network.state_dict().items()}
    changed = guarded(path, "apply_lora", lambda: pc.apply_lora(base, path))
    now = base.network.state_dict()
    if changed is None and not all(torch.equal(value, now[key]) for key, value in before.items()):
        raise Wrong("a LoRA that is refused has changed the model")
    base.network.load_state_dict(before)
    return "refused" if changed is None else "applied"


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
    for name, content in hostile_files(folder, marker):
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
    parser.add_argument("--families", action="store_true", help="files of the other families instead")
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
