"""LoRAs in folders as trainers leave them: which file is the network's half, and what lies beside it.

PEFT writes `adapter_model`, diffusers `pytorch_lora_weights`; a training of several models puts each into a folder of
its name (`transformer`, `text_encoder`), and checkpoints of it into folders of their own (`best`, `checkpoint-500`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..text import shorten_list
from .downloads import explain_unfinished, is_unfinished_name
from .folder import candidates, explain_distributed

_STEMS = ("adapter_model", "pytorch_lora_weights")
_ENDS = (".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt")
_FILES = [f"{stem}{end}" for end in _ENDS for stem in _STEMS]
_HALVES = re.compile(r"(transformer|unet|dit|denoiser|diffusion_model|pixeldit)([._ -]?lora)?", re.IGNORECASE)
_TEXT = {"textencoder", "textencoders", "te", "clip", "gemma", "t5", "umt", "qwen", "llm", "llama", "language"}
_FILLER = {"lora", "adapter", "model", "pytorch", "weights", "b", "it", "l", "g", "h", "xxl", "vl", "base", "instruct"}
_EMBEDDINGS = re.compile(
    r"(.*[._ -])?(learn(ed|able)_)?emb(s|eds|eddings?)?([._ -](step|epoch)?s?[._ -]?\d+)?", re.IGNORECASE | re.DOTALL
)
# Files of a training's state, which are never a LoRA
_STATE = re.compile(
    r"(optimizer|optim|scheduler|sampler|scaler|random_states?|rng_state|training_args|dataloader|ema$).*"
)
_DEEPEST, _MOST = 3, 300  # folders within a folder; entries of each, and folders of all that are looked into
_SHOWN = 5
_CHOOSE = "Choose the LoRA's own file."
_CONFIG = "adapter_config.json"


def find_lora_file(path: Path) -> tuple[Path, str]:
    """The file of a LoRA, and its name for messages.

    Args:
        path: a file, which is returned as it is, or a folder: with PEFT's or diffusers' file, with the halves of a
            training ("transformer"), or with one such folder or one file of weights in it.

    Raises:
        ValueError: a folder without one, with several, or with a text encoder's half alone.
    """
    try:
        if not path.is_dir():
            return path, path.name
    except (OSError, ValueError):  # a name that is too long: reading it says so
        return path, path.name
    found = _candidates(path)
    names = [file.relative_to(path).as_posix() for file in found]
    if len(found) > 1:
        shown = shorten_list(names, _SHOWN)
        raise ValueError(f"{path.name} is a folder with {len(found)} LoRAs: {shown}. Choose one of these files.")
    if found:
        return found[0], f"{path.name}/{names[0]}"
    if halves := [half.relative_to(path).as_posix() for half in _text_halves(path)]:
        raise ValueError(
            f"{path.name} has only the LoRA of a text encoder (a language model): {halves[0]}. It does not fit "
            "PixelDiT itself: choose the transformer's half of that training, usually in a folder called transformer."
        )
    if learned := [file.name for file in _files(path) if _is_learned(file)]:
        raise ValueError(
            f"{path.name} has only learned embeddings ({learned[0]}), no LoRA: new words for a text encoder, which "
            f"cannot be added to PixelDiT itself. {_CHOOSE}"
        )
    raise ValueError(_explain_none(path))


def _explain_none(path: Path) -> str:
    """Why no LoRA is read from a folder without one, as whole sentences with its name."""
    files = [file.name for file in _files(path)]
    unfinished = next(filter(is_unfinished_name, files), None)
    if unfinished or explain_unfinished(path / _FILES[0]):
        which = f" ({unfinished} is in it)" if unfinished else ""
        return f"{path.name} is a folder whose download has not finished{which}. Let it finish, or run it again."
    if distributed := explain_distributed(path):
        return distributed
    places = {sub: [file.name for file in _files(path / sub)] for sub in ("transformer", "")}
    if found := [f"{sub}/{name}".lstrip("/") for sub, names in places.items() for name in candidates(names)]:
        return (
            f"{path.name} is a folder with a checkpoint ({found[0]}), and no LoRA. Load it as the model itself, and "
            "choose a LoRA here."
        )
    if _CONFIG in files:
        return f"{path.name} has only the settings of a LoRA ({_CONFIG}). Download {_FILES[0]} into the same folder."
    empty = ", for nothing is in it" if not any(_entries(path)) else ""
    inside = f": in it {'is' if len(files) == 1 else 'are'} {shorten_list(files, _SHOWN)}" if files else empty
    return (
        f"{path.name} is a folder without a LoRA{inside}. A LoRA is a file such as {_FILES[0]} or {_FILES[1]}: choose "
        "it, or the folder that it is in."
    )


def find_companions(file: Path) -> list[str]:
    """What the training of a LoRA changed beside the network: a sentence for each, by the files beside it."""
    folders = _own_folders(file)
    halves = [(half, folder) for folder in folders for half in _text_halves(folder) if half != file]
    learned = [(entry, folder) for folder in folders for entry in _files(folder) if _is_learned(entry)]
    notes = []
    if halves:
        notes.append(explain_text_half(_relative(*halves[0])))
    if learned:
        notes.append(explain_learned(_relative(*learned[0])))
    return notes


def explain_text_half(where: str) -> str:
    """The note for a training that changed the text encoder, too."""
    return (
        f"the training changed the text encoder, too ({where}); that half is not applied here, so images may differ "
        "from those of the trainer"
    )


def explain_learned(where: str) -> str:
    """The note for a training that learned embeddings, too."""
    return f"the training learned embeddings, too ({where}); they are not applied here, so its new words have no effect"


def other_half(file: Path) -> str | None:
    """The network's half of the training whose text encoder's half (or learned embeddings) a file is."""
    for folder in (file.parent, file.parent.parent):
        found = [half for entry in _folders(folder) if _HALVES.fullmatch(entry.name) for half in _direct(entry)]
        if found and found[0] != file:
            return f"{folder.name}/{found[0].relative_to(folder).as_posix()}"
    return None


def is_text_name(name: str) -> bool:
    """Whether a folder or file is called as trainers call a text encoder's half: text_encoder_2, te1, gemma-2-2b-it."""
    words = [word for word in re.findall(r"t5|[a-z]+", name.lower()) if word not in _FILLER]
    return "".join(words) in _TEXT


def is_state_name(stem: str) -> bool:
    """Whether a file is called as the other files of a training's state are: optimizer.bin, random_states_0.pkl."""
    return bool(_STATE.match(stem))


def is_embedding_name(stem: str) -> bool:
    """Whether a file or tensor is called as learned embeddings are."""
    return bool(_EMBEDDINGS.fullmatch(stem)) and "pos_emb" not in stem


def _candidates(path: Path) -> list[Path]:
    """The LoRA files of a folder that may be meant: the nearest ones."""
    if direct := _direct(path):
        return direct
    inner = [folder for folder in _folders(path) if not (is_text_name(folder.name) or is_state_name(folder.name))]
    if halves := [half for folder in inner if _HALVES.fullmatch(folder.name) for half in _direct(folder)]:
        return halves
    budget = iter(range(_MOST))
    if nested := [file for folder in inner for file in _nested(folder, 1, budget)]:
        return nested
    if own := [file for file in _files(path) if _is_weights(file)]:
        return own
    return [file for folder in inner for file in _files(folder) if _is_weights(file)]


def _nested(folder: Path, depth: int, budget: Iterator[int]) -> list[Path]:
    """Those of a folder within the one that was chosen: a training's half or checkpoint, an adapter by its name."""
    if direct := _direct(folder):
        return direct
    if depth >= _DEEPEST or next(budget, None) is None:
        return []
    inner = [entry for entry in _folders(folder) if not is_text_name(entry.name)]
    if halves := [half for entry in inner if _HALVES.fullmatch(entry.name) for half in _direct(entry)]:
        return halves
    return [file for entry in inner for file in _nested(entry, depth + 1, budget)]


def _direct(folder: Path) -> list[Path]:
    """The file of PEFT or diffusers in a folder; of several formats of it the first."""
    return [folder / name for name in _FILES if (folder / name).is_file()][:1]


def _own_folders(file: Path) -> list[Path]:
    """Where the other parts of a LoRA's training may be; a folder of many LoRAs is none."""
    if _HALVES.fullmatch(file.parent.name):
        return [file.parent.parent]
    return [file.parent] if file.name in _FILES else []


def _text_halves(folder: Path) -> list[Path]:
    """LoRA files of text encoders: in folders of their names, or beside the network's own."""
    inner = [half for entry in _folders(folder) if is_text_name(entry.name) for half in _lora_files(entry)]
    beside = (file for file in _files(folder) if is_text_name(file.stem) and "lora" in file.stem.lower())
    return [*inner, *(file for file in beside if file.suffix in _ENDS)]


def _lora_files(folder: Path) -> list[Path]:
    """Of a text encoder's folder, which in a pipeline holds the encoder itself."""
    named = (file for file in _files(folder) if file.suffix in _ENDS and "lora" in file.stem.lower())
    return _direct(folder) or sorted(named)[:1]


def _is_weights(file: Path) -> bool:
    stem = file.stem
    return file.suffix.lower() in _ENDS and not (is_state_name(stem) or is_text_name(stem) or is_embedding_name(stem))


def _is_learned(file: Path) -> bool:
    return file.suffix in _ENDS and is_embedding_name(file.stem)


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path) -> list[Path]:
    return sorted(entry for entry in _entries(folder) if entry.is_file() and not entry.name.startswith("."))


def _entries(folder: Path) -> Iterator[Path]:
    """The first entries of a folder; none of one that may not be read."""
    try:
        for _, entry in zip(range(_MOST), folder.iterdir(), strict=False):
            yield entry
    except OSError:
        return


def _relative(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()
