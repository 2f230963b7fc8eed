"""What lies in the place of weights, by its first bytes: archives, images, other programs' files, servers' answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .answers import explain_text
from .archives import explain_archive
from .folder import DEEPSPEED, DEEPSPEED_MODEL, has_whole_model, list_names

HEAD = 2**16  # bytes of a file that are looked at

_OTHER = "Choose the file of the model's weights instead, which ends with .safetensors in most cases."
_AS_SAFETENSORS = "Get the weights as .safetensors."
_IMAGE = "Drag it onto ComfyUI's page to open the workflow that it may hold, and choose a file of weights here."


@dataclass(frozen=True)
class Kind:
    """Files that start alike."""

    title: str
    advice: str
    starts: tuple[bytes, ...]
    offset: int = 0


def _image(title: str, *starts: bytes, offset: int = 0) -> Kind:
    return Kind(title, _IMAGE, starts, offset)


def _format(title: str, *starts: bytes, offset: int = 0, advice: str = _AS_SAFETENSORS) -> Kind:
    return Kind(f"{title}, which is not supported", advice, starts, offset)


KINDS = (
    _format("a GGUF file", b"GGUF"),
    _format("a GGML file", b"lmgg", b"tjgg", b"fmgg", b"algg"),
    _format("an array of numpy (.npy)", b"\x93NUMPY"),
    _format("an HDF5 file (Keras, .h5)", b"\x89HDF\r\n\x1a\n"),
    _format("a TensorFlow Lite model", b"TFL3", offset=4),
    _format("an ExecuTorch program", b"ET12", offset=4),
    _format("a TensorRT engine", b"ftrt", b"ptrt"),
    _image("a PNG image", b"\x89PNG\r\n\x1a\n"),
    _image("a JPEG image", b"\xff\xd8\xff"),
    _image("a WebP image", b"WEBP", offset=8),
    _image("a GIF image", b"GIF87a", b"GIF89a"),
    _image("a TIFF image", b"II*\0", b"MM\0*"),
    _image("a Photoshop image", b"8BPS"),
    _image("an AVIF or HEIC image", b"ftypavif", b"ftypheic", b"ftypmif1", offset=4),
    Kind("a video", _OTHER, (b"ftyp",), 4),
    Kind("a video", _OTHER, (b"\x1a\x45\xdf\xa3",)),
    Kind("a sound", _OTHER, (b"ID3", b"fLaC", b"OggS")),
    Kind("a sound", _OTHER, (b"WAVE",), 8),
    Kind("a video", _OTHER, (b"AVI ",), 8),
    Kind("an image", _OTHER, (b"\xff\x0a", b"\0\0\0\x0cJXL ", b"\x76\x2f\x31\x01")),
    Kind("a table of data (Parquet or Arrow)", _OTHER, (b"PAR1", b"ARROW1")),
    Kind("an Office document", _OTHER, (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    _format("a file of MATLAB", b"MATLAB "),
    _format("a file of R", b"RDX2", b"RDX3", b"RDA3"),
    Kind("a PDF document", _OTHER, (b"%PDF",)),
    Kind("a program", _OTHER, (b"MZ\x90\0", b"MZx\0", b"MZP\0", b"\x7fELF", b"\xcf\xfa\xed\xfe")),
    Kind("a database", _OTHER, (b"SQLite format 3\0",)),
    Kind(
        "a torrent: it says where the file is, and does not hold it",
        "Open it with a torrent program, and choose the file that this downloads.",
        (b"d8:announce", b"d10:created", b"d13:announce", b"d7:comment", b"d4:info"),
    ),
    Kind(
        "a Windows shortcut, not the file that it points to",
        "Move or copy the file itself into this folder.",
        (b"L\0\0\0\x01\x14\x02\0",),
    ),
    Kind(
        "a macOS alias, not the file that it points to",
        "Move or copy the file itself into this folder.",
        (b"book\0\0\0\0mark",),
    ),
    Kind(
        "what macOS keeps beside a file on other disks (its name starts with ._), not the file itself",
        "Choose the file of the same name without the ._ in front.",
        (b"\0\x05\x16\x07", b"\0\x05\x16\0"),
    ),
)
_ONNX = re.compile(
    rb"\x08[\x01-\x20]\x12.(pytorch|onnx|tf2onnx|keras|skl2onnx|paddle|optimum)", re.DOTALL | re.IGNORECASE
)
_MSGPACK = re.compile(rb"(?:[\x81-\x8f]|\xde..|\xdf....)(?:[\xa1-\xbf]|\xd9.)[ -~]", re.DOTALL)

# Files of which the name decides: what is in them may look like weights, and is a part of something, or has another use
_DISTRIBUTED = (
    "a part of a distributed checkpoint (torch.distributed), whose weights are spread over several files",
    "Make one file of its folder where it was trained: python -m torch.distributed.checkpoint.format_utils "
    "dcp_to_torch FOLDER model.pt",
)
_DEEPSPEED = (
    "a part of a DeepSpeed checkpoint, whose weights are spread over several files",
    "Make one file of it where it was trained: python zero_to_fp32.py FOLDER model.safetensors (DeepSpeed writes this "
    "program into the checkpoint's folder).",
)
NAMES: tuple[tuple[re.Pattern[str], tuple[str, str]], ...] = (
    (re.compile(r".*\.distcp|\.metadata"), _DISTRIBUTED),
    (DEEPSPEED, _DEEPSPEED),
    (
        re.compile(r".*\.data-\d{5}-of-\d{5}|.*\.ckpt(?:-\d+)?\.(?:index|meta)|saved_model\.pb(?:txt)?|.*\.keras"),
        ("a part of a TensorFlow checkpoint, which is not supported", _AS_SAFETENSORS),
    ),
)


def explain_name(path: Path) -> str | None:
    """Why a file is not read whatever is in it, as a whole sentence with its name; None = by its name, it may be."""
    if path.name == DEEPSPEED_MODEL and has_whole_model(list_names(path.parent)):
        return None
    return next((_sentence(path.name, *words) for pattern, words in NAMES if pattern.fullmatch(path.name)), None)


def explain_part(path: Path) -> str | None:
    """Why a file has no whole network, as whole sentences with its name; None = by its name, it should have one."""
    return _sentence(path.name, *_DEEPSPEED) if path.name == DEEPSPEED_MODEL else None


def explain_foreign(path: Path, head: bytes) -> str | None:
    """What a file is that is no checkpoint, and what to do, as whole sentences with its name; None = nothing known.

    Args:
        head: its first bytes, up to `HEAD`.
    """
    if found := explain_archive(path, head):
        return found
    for kind in KINDS:
        if head.startswith(kind.starts, kind.offset):
            return _sentence(path.name, kind.title, kind.advice)
    if _ONNX.match(head) or path.suffix == ".onnx":
        return _sentence(path.name, "an ONNX model, which is not supported", _AS_SAFETENSORS)
    if _MSGPACK.match(head):
        return _sentence(path.name, "a file of Flax or JAX (msgpack), which is not supported", _AS_SAFETENSORS)
    return explain_text(path, head)


def _sentence(name: str, title: str, advice: str) -> str:
    return f"{name} is {title}. {advice}"
