"""What may become of a case: it loads, or it is refused with the file's name."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pixeldit_core as pc

SLOW = 20.0  # seconds for a case: far more than any takes, far less than a hang


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
    """Reads a file in all ways, and generates with it; "generated", "loaded" or "refused"."""
    began = time.monotonic()
    if attempt(path, path.read_bytes(), marker) == "refused":
        target = path.with_name("again.safetensors")
        saved = guarded(path, "save", lambda: pc.save_checkpoint(path, target))
        if saved and pc.inspect_checkpoint(path).encoder is False:  # it is whole, and only lacks what it looks through
            guarded(target, "load again", lambda: pc.load_checkpoint(target, encoder="none"))
        elif saved:
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
        generated = generate(model)
    except ValueError:  # such as a size that is no whole number of patches
        generated = False
    except BaseException as error:
        raise Wrong(f"generating raises {type(error).__name__}: {str(error)[:300]}") from error
    if time.monotonic() - began > SLOW:
        raise Wrong(f"it took {time.monotonic() - began:.0f} seconds")
    return "generated" if generated else "loaded"


def attempt_encoder(path: Path, network: Path) -> str:
    """Reads a file as the encoder of a network that has none inside; "applied" or "refused"."""
    model = guarded(path, "encoder", lambda: pc.load_checkpoint(network, encoder=path))
    if model is None:
        return "refused"
    if model.params.encoder_depth < 1:
        raise Wrong("an encoder without blocks")
    pc.save_checkpoint(model, network.with_name("again.safetensors"))
    return "applied"


def generate(model: pc.Model) -> bool:
    """Whether an image of the model's default size (of a small one where that is large) is finite."""
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
