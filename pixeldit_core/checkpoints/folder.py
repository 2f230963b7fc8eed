"""Which file of a folder holds the weights, by names alone, and what a folder without weights is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from ..text import shorten_list
from .downloads import explain_unfinished, is_unfinished_name
from .links import explain_missing, explain_os_error, is_broken_link
from .training_state import is_training_file

TRANSFORMER = "transformer"
WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pth", ".pt", ".bin")
INDEX = re.compile(r"(?P<stem>.+)\.(?P<kind>safetensors|bin)\.index(?:\.(?P<variant>[\w-]+))?\.json")
SHARD = re.compile(
    r"(?P<stem>.+?)-(?P<number>\d{1,9})-of-(?P<count>\d{1,9})"
    r"(?P<end>(?:\.[\w-]+)?(?:\.safetensors|\.sft|\.ckpt|\.pth|\.pt|\.bin))"
)
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
# Names of the weights in a diffusers folder, best first; of variants, what is nearest to the plain ones first
_PLAIN = tuple(stem + end for end in _ENDS for stem in _STEMS)
_VARIANTS = ("fp32", "bf16", "fp16", "ema")
_VARIANT = re.compile(
    rf"(?P<stem>{'|'.join(_STEMS)})(?:\.(?P<single>[\w-]+)(?P<end>\.safetensors|\.bin)"
    r"|(?P<index>\.safetensors|\.bin)\.index\.(?P<sharded>[\w-]+)\.json)"
)
_ADAPTERS = re.compile(r"(?:adapter_model|pytorch_lora_weights).*|adapter_config\.json")
# Parts of a DeepSpeed checkpoint. Where it shards the optimizer alone (ZeRO 1 and 2), the first of them has all weights
DEEPSPEED = re.compile(r"(?:bf16_|fp16_)?zero_pp_rank_\d+_.*\.pt|mp_rank_\d+.*_(?:model|optim)_states\.pt")
DEEPSPEED_MODEL = "mp_rank_00_model_states.pt"
# Folders in a folder that hold other things than the network
_OTHER_PARTS = re.compile(
    r"vae.*|text_encoder.*|tokenizer.*|image_encoder.*|encoder|feature_extractor|scheduler|safety_checker|controlnet.*|lora.*"
    r"|optim.*|samples?|logs?|blobs|refs|wandb|tensorboard|runs|.*ema.*|critic|discriminator|teacher",
    re.IGNORECASE,
)
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".bz2", ".xz", ".zst", ".001")
_NOT_READ = (*_ARCHIVES, ".gguf", ".onnx", ".h5", ".keras", ".npz", ".msgpack", ".tflite")
_SHOWN = 5
_MOST_FOLDERS = 64  # in a folder, that are looked into for a message

_OPEN = "Choose a file, or a diffusers folder whose transformer was downloaded completely."


def list_names(folder: Path) -> list[str]:
    """Names in a folder, sorted; none where it is not there.

    Raises:
        ValueError: it may not be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ValueError(explain_os_error(folder, error)) from error


def usual_weights(names: Iterable[str]) -> str | None:
    """The weights among a folder's names, as diffusers and transformers write them: plain ones before variants."""
    names = set(names)
    if plain := next((name for name in _PLAIN if name in names), None):
        return plain
    found = [(_rank(match), name) for name in names if (match := _VARIANT.fullmatch(name))]
    best = sorted(found)
    if len(best) > 1 and best[1][0] == best[0][0]:
        return None  # of variants that no order is known for
    return best[0][1] if best else None


def _rank(match: re.Match[str]) -> tuple[int, int, int]:
    variant, end = match["single"] or match["sharded"], match["end"] or f"{match['index']}.index.json"
    order = _VARIANTS.index(variant) if variant in _VARIANTS else len(_VARIANTS)
    return order, _ENDS.index(end if end in _ENDS else f"{match['index']}.index.json"), _STEMS.index(match["stem"])


def candidates(names: Iterable[str]) -> list[str]:
    """Checkpoints among a folder's names: files, indices in place of shards, and the first of shards without index.

    States of a training, LoRAs, hidden files and unfinished downloads are none.
    """
    names = sorted(names)
    files = [name for name in names if name.lower().endswith(WEIGHTS) and not name.startswith(".")]
    files = [
        list_entry(name, names)
        for name in files
        if not (is_training_file(name) or is_unfinished_name(name) or _ADAPTERS.fullmatch(name))
        and (name == DEEPSPEED_MODEL or not DEEPSPEED.fullmatch(name))
    ]
    return list(dict.fromkeys((*filter(INDEX.fullmatch, names), *files)))


def in_folder(message: str, folder: str, file: str) -> str:
    """A message about a file of a folder, with the name of the folder that was chosen."""
    if folder in message:
        return message
    return f"{folder}/{message}" if message.startswith(file) else f"{folder}: {message}"


def index_of(shard: str, names: Iterable[str]) -> str | None:
    """The index of a shard among the names of its folder; None = it has none.

    diffusers writes a variant before the numbers of a shard, and has written it after them.
    """
    match = SHARD.fullmatch(shard)
    for name in sorted(names):
        index = INDEX.fullmatch(name)
        if match and index and match["end"].endswith(f".{index['kind']}"):
            variant = f".{index['variant']}" if index["variant"] else ""
            ways = ((index["stem"] + variant, f".{index['kind']}"), (index["stem"], f"{variant}.{index['kind']}"))
            if (match["stem"], match["end"]) in ways:
                return name
    return None


def list_entry(name: str, names: Iterable[str]) -> str:
    """What a list shows for a file of a folder: of shards, their index, or the first of them."""
    if not (match := SHARD.fullmatch(name)):
        return name
    names = list(names)
    shards = (other for other in names if (found := SHARD.fullmatch(other)) and _group(found) == _group(match))
    return index_of(name, names) or min(shards, default=name)


def _group(match: re.Match[str]) -> tuple[str, ...]:
    return match["stem"], match["count"], match["end"]


def find_snapshot(folder: Path) -> Path | None:
    """The folder with the files of a model in the Hugging Face cache ("models--name--model"); None = it is none."""
    snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
    is_cache = folder.name.startswith("models--") or folder.name == "snapshots" or (folder / "refs").is_dir()
    if not is_cache or not snapshots.is_dir():
        return None
    names = [name for name in list_names(snapshots) if (snapshots / name).is_dir()]
    try:
        main = (snapshots.parent / "refs" / "main").read_text(encoding="ascii")[:100].strip()
    except (OSError, ValueError):
        main = ""
    chosen = main if main in names else names[0] if len(names) == 1 else None
    return snapshots / chosen if chosen else None


def explain_folder(folder: Path) -> str:
    """Why no weights are read from a folder, and what to do, as whole sentences with its name."""
    name, names = folder.name, list_names(folder)
    if is_broken_link(folder / TRANSFORMER):
        return f"{name} has no weights: {explain_missing(folder / TRANSFORMER)}"
    if found := explain_distributed(folder) or _explain_known(folder, names):
        return found
    for place in (folder / TRANSFORMER, folder):
        inside = list_names(place)
        if several := candidates(inside):
            listed = shorten_list(several, _SHOWN)
            return f"{name} is a folder with several checkpoints: {listed}. Choose one of these files."
        if any(map(is_unfinished_name, inside)) or explain_unfinished(place / _PLAIN[0]):
            marked = next(filter(is_unfinished_name, inside), "")
            which = f" ({marked} is in it)" if marked else ""
            return f"{name} is a folder whose download has not finished{which}. Let it finish, or run it again."
    below = [f"{sub}/{found}" for sub in _folders(folder, names) for found in candidates(list_names(folder / sub))]
    if below:
        listed = shorten_list(below, _SHOWN)
        return f"{name} is a folder without weights of its own. In its folders are {listed}. Choose one of these."
    empty = "" if names else ", for nothing is in it"
    return (
        f"{name} is a folder without weights{empty}: in it, or in its {TRANSFORMER} folder, should be {_PLAIN[0]}. "
        f"{_OPEN}"
    )


def explain_distributed(folder: Path) -> str | None:
    """That a folder, or one in it, is a distributed checkpoint, and how to make a file of it; None = it is none."""
    names = list_names(folder)
    subs = sorted(_folders(folder, names), key=lambda sub: _OTHER_PARTS.fullmatch(sub) is not None)
    for sub in ("", *subs):  # that of the optimizer last
        inside = list_names(folder / sub) if sub else names
        place = f"{folder.name}/{sub}" if sub else folder.name
        if any(name.endswith(".distcp") for name in inside):
            return (
                f"{place} is a distributed checkpoint (sharded by torch.distributed, .distcp), which only the program "
                "that trained it reads. Make one file of it there: python -m torch.distributed.checkpoint.format_utils "
                f"dcp_to_torch {sub or folder.name} model.pt, or accelerate merge-weights {sub or folder.name} OUTPUT."
            )
        if any(map(DEEPSPEED.fullmatch, inside)) and not has_whole_model(inside):
            return (
                f"{place} is a checkpoint of DeepSpeed, whose weights are sharded over several files. Make one file of "
                "it where it was trained: python zero_to_fp32.py FOLDER OUTPUT (DeepSpeed writes this program into the "
                "checkpoint's folder)."
            )
    return None


def has_whole_model(names: Iterable[str]) -> bool:
    """Whether DeepSpeed's files may have all weights in the first: no other has a part of the network."""
    names = set(names)
    others = (name for name in names if DEEPSPEED.fullmatch(name) and name.endswith("_model_states.pt"))
    return DEEPSPEED_MODEL in names and set(others) == {DEEPSPEED_MODEL}


def inner_folders(folder: Path) -> list[Path]:
    """Folders of a folder that have checkpoints in them, themselves or in their `transformer`."""
    inner = [folder / name for name in _folders(folder, list_names(folder)) if not _OTHER_PARTS.fullmatch(name)]
    return [sub for sub in inner if any(candidates(list_names(place)) for place in (sub, sub / TRANSFORMER))]


def _folders(folder: Path, names: list[str]) -> list[str]:
    """Folders in a folder, without hidden ones."""
    return [name for name in names if not name.startswith(".") and (folder / name).is_dir()][:_MOST_FOLDERS]


def _explain_known(folder: Path, names: list[str]) -> str | None:
    """Folders of other things, by a name in them."""
    present, name = set(names), folder.name
    unpacked = [entry for entry in ("", *_folders(folder, names)) if (folder / entry / "data.pkl").is_file()]
    if unpacked and (folder / unpacked[0] / "data").exists():
        return (
            f"{name} is a torch file that was unpacked like an archive (macOS does so after a download). Get the file "
            "again, and do not unpack it."
        )
    for place in (folder / TRANSFORMER, folder):
        adapters = [entry for entry in list_names(place) if _ADAPTERS.fullmatch(entry)]
        if adapters and not candidates(list_names(place)):
            return (
                f"{name} is the folder of a LoRA ({adapters[-1]} is in it), not of a checkpoint. Choose it where LoRAs "
                "are chosen, and a checkpoint here."
            )
    if {"_CHECKPOINT_METADATA", "manifest.ocdbt"} & present or {"saved_model.pb", "checkpoint"} & present:
        return f"{name} is a folder of TensorFlow or JAX, which is not supported. Get the weights as .safetensors."
    if others := [entry for entry in names if entry.lower().endswith(_NOT_READ)]:
        unpack = "Unpack it, and choose" if others[0].lower().endswith(_ARCHIVES) else "That is not supported: get"
        if not candidates(names) and not inner_folders(folder):
            return f"{name} has no weights that are read, only {others[0]}. {unpack} the weights as .safetensors."
    training = [entry for entry in names if is_training_file(entry)]
    if training and not candidates(names):
        return (
            f"{name} is a folder with the state of a training ({shorten_list(training, 3)}) and no weights. Choose the "
            "folder or file that the training wrote its weights to."
        )
    return None
