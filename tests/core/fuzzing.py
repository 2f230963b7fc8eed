"""Damaged and hostile checkpoint files, made by the thousand: `python -m tests.core.fuzzing --cases 100000 --seed 1`.

A case is made from its seed and number alone, so that one that fails is made again by `--first NUMBER --cases 1`.
`--hostile` runs the named ones instead, of which every one asks for code, memory or time, under a limit of memory.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import io
import json
import pickle
import pickletools
import random
import re
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import pixeldit_core as pc

SLOW = 20.0  # seconds for a case: far more than any takes, far less than a hang
MEMORY = 3 * 2**30  # for all hostile cases, above what the process has at their start

# ---- files to begin with ---------------------------------------------------------------------------------------------


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
    models = {"class": pc.build("pixeldit", params, device="cpu"), "text": pc.build("pixeldit_t2i", text, device="cpu")}
    files = {}
    for name, model in models.items():
        with torch.no_grad():
            for parameter in model.network.parameters():
                parameter.fill_(0.5)
        model.recipe = pc.Recipe(steps=4, cfg=2.0)
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
    return files


# ---- mutations -------------------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS = (
    "",
    "a",
    "module.",
    "pixel_blocks.999999999.",
    "\0",
    "é",
    "__metadata__",
    "0",
    "items",
    "F4",
    "F8_E8M0",
    "BOOL",
)
GLOBALS = (
    *(b"os\nsystem", b"posix\nsystem", b"builtins\neval", b"__builtin__\ngetattr", b"functools\npartial"),
    *(b"torch\nload", b"torch.serialization\nload", b"builtins\nbytearray", b"builtins\nset", b"torch\nFloatStorage"),
    *(b"torch.storage\nUntypedStorage", b"torch._utils\n_rebuild_sparse_tensor", b"torch._utils\n_rebuild_qtensor"),
    *(b"torch._utils\n_rebuild_parameter", b"torch._utils\n_rebuild_tensor_v3", b"collections\nOrderedDict"),
    *(b"collections\nCounter", b"torch\nfloat8_e4m3fn", b"torch\nSize", b"torch\ndevice", b"numpy\ndtype"),
    *(b"numpy\nndarray", b"torch._utils\n_rebuild_meta_tensor_no_storage", b"_codecs\nencode"),
)


def mutate(dice: random.Random, name: str, content: bytes) -> bytes:
    """A file with some damage, from a stray bit to a pickle with its operations in disorder."""
    ways: list[Callable[[random.Random, bytes], bytes]] = [truncate, scatter, overwrite, cut_and_paste, numbers]
    if name.endswith(".safetensors"):
        ways += [header_length, *[header_content] * 6]
    else:
        ways += [operations] * 6
    if "zip" in name:
        ways += [directory] * 3
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        try:
            content = dice.choice(ways)(dice, content)
        except Exception:  # too broken already for a mutation that has to read it
            content = scatter(dice, content)
    return content


def boundaries(content: bytes) -> list[int]:
    """Where the parts of a file begin and end, as far as they can be told by looking."""
    found = {0, 1, 4, 7, 8, 9, len(content) - 1}
    if content[8:9] == b"{":
        end = 8 + int.from_bytes(content[:8], "little")
        found |= {end // 2, end - 1, end, end + 1}
        found |= {end + int(number) for number in re.findall(rb"[\[,](\d{1,9})\]", content[8:end])}
    for mark in (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x07\x08", b"data.pkl", b".\x80\x02"):
        start = content.find(mark)
        while start >= 0:
            found |= {start, start + len(mark), start + 30}
            start = content.find(mark, start + 1)
    return sorted(place for place in found if 0 <= place < len(content))


def place_in(dice: random.Random, content: bytes) -> int:
    """Anywhere; more often near a boundary or in the first part, where readers trip."""
    kind = dice.randrange(3)
    if kind == 0:
        return min(len(content), max(0, dice.choice(boundaries(content)) + dice.randrange(-3, 30)))
    return dice.randrange((len(content) if kind == 1 else min(len(content), 4000)) + 1)


def truncate(dice: random.Random, content: bytes) -> bytes:
    return content[: place_in(dice, content)]


def scatter(dice: random.Random, content: bytes) -> bytes:
    """Bits and bytes flipped."""
    broken = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 8, 40)) if content else 0):
        place = min(place_in(dice, content), len(content) - 1)
        broken[place] = broken[place] ^ 1 << dice.randrange(8) if dice.random() < 0.5 else dice.randrange(256)
    return bytes(broken)


def overwrite(dice: random.Random, content: bytes) -> bytes:
    start = place_in(dice, content)
    length = dice.choice((1, 4, 8, 64, 1000))
    return content[:start] + bytes([dice.choice((0, 0x28, 0x5D, 0x7B, 0xFF))]) * length + content[start + length :]


def cut_and_paste(dice: random.Random, content: bytes) -> bytes:
    start, end = sorted(place_in(dice, content) for _ in range(2))
    if dice.random() < 0.5:
        return content[:start] + content[end:]
    to = place_in(dice, content)
    return content[:to] + content[start:end] + content[to:]


def numbers(dice: random.Random, content: bytes) -> bytes:
    """An extreme number somewhere."""
    start, width = place_in(dice, content), dice.choice((2, 4, 8))
    return content[:start] + (dice.choice(EXTREMES) % 256**width).to_bytes(width, "little") + content[start + width :]


def header_length(dice: random.Random, content: bytes) -> bytes:
    return (dice.choice((*EXTREMES, len(content), len(content) - 8))).to_bytes(8, "little") + content[8:]


def header_content(dice: random.Random, content: bytes) -> bytes:
    """A well-formed .safetensors header that does not tell the truth, or tells it twice."""
    length = int.from_bytes(content[:8], "little")
    header = list(json.loads(content[8 : 8 + length]).items())
    for _ in range(dice.choice((1, 1, 2, 5)) if header else 0):
        at = dice.randrange(len(header))
        key, entry = header[at]
        other, other_entry = dice.choice(header)
        kind = dice.randrange(8)
        if kind == 0:
            header.insert(dice.randrange(len(header)), (key, dice.choice((entry, other_entry))))
        elif kind == 1:
            header[at] = (dice.choice(("module.", "ema.", "core.", "model.diffusion_model.")) + key, entry)
        elif kind == 2:
            header[at] = (dice.choice((other, dice.choice(TEXTS), key + dice.choice(TEXTS))), entry)
        elif kind == 3:
            del header[at]
        elif kind == 4 and isinstance(entry, dict) and "pixeldit" in entry:
            about = json.loads(entry["pixeldit"])
            inner = dice.choice([about, *(part for part in about.values() if isinstance(part, dict))])
            inner[dice.choice(list(inner))] = dice.choice((None, "x", [], {}, -1, 1e400, True, 2**70, [[1], {}], [0.5]))
            header[at] = (key, entry | {"pixeldit": json.dumps(about)})
        elif kind == 5:
            header[at] = (key, dice.choice((None, 1, "x", [], {}, [entry], other_entry)))
        elif isinstance(entry, dict) and isinstance(entry.get("shape"), list):
            shape = list(entry["shape"])
            change = dice.choice(("size", "swap", "dtype", "offset", "more"))
            if change == "size" and shape:
                shape[dice.randrange(len(shape))] = dice.choice((*EXTREMES, -1, 1.5, None))
            elif change == "swap":
                shape.reverse()
            elif change == "more":
                shape += [1] * dice.choice((1, 20, 2000))
            entry = entry | {"shape": shape}
            if change == "dtype":
                entry["dtype"] = dice.choice(("F4", "F6_E2M3", "F8_E8M0", "C64", "U64", "I32", "BOOL", "F128", None))
            elif change == "offset":
                entry["data_offsets"] = [dice.choice((*EXTREMES, -1, 16)) for _ in range(dice.choice((1, 2, 2, 2, 3)))]
            header[at] = (key, entry)
    text = ",".join(f"{json.dumps(key)}:{json.dumps(entry)}" for key, entry in header)
    encoded = b"{" + text.encode("utf-8", "replace") + b"}"
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


def operations(dice: random.Random, content: bytes) -> bytes:
    """Operations of a pickle left out, doubled, swapped or with other arguments, in a container that is sound."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = next(name for name in members if name.endswith("data.pkl"))
        return pack(members | {name: disorder(dice, members[name])})
    stream, ends = io.BytesIO(content), [0]
    for _ in range(5):
        collections.deque(pickletools.genops(stream), maxlen=0)
        ends.append(stream.tell())
    part = dice.choice((0, 1, 2, 3, 3, 3, 3, 4))
    return content[: ends[part]] + disorder(dice, content[ends[part] : ends[part + 1]]) + content[ends[part + 1] :]


def disorder(dice: random.Random, pickled: bytes) -> bytes:
    places = [place for _, _, place in pickletools.genops(pickled)] + [len(pickled)]
    pieces = [pickled[start:end] for start, end in zip(places, places[1:], strict=False)]
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at, other = dice.randrange(len(pieces)), dice.randrange(len(pieces))
        code, kind = pieces[at][:1], dice.randrange(7)
        if kind == 0:
            del pieces[at]
        elif kind == 1:
            pieces.insert(other, pieces[at])
        elif kind == 2:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif code == b"c" and kind < 6:
            pieces[at] = b"c" + dice.choice(GLOBALS) + b"\n"
        elif code in (b"K", b"M", b"J", b"\x8a") and kind < 6:
            pieces[at] = integer(dice.choice((*EXTREMES, -1)))
        elif code == b"X" and kind < 6:
            pieces[at] = text(dice.choice(TEXTS))
        elif code in (b"h", b"j", b"q", b"r") and kind < 6:
            pieces[at] = b"j" + struct.pack("<I", dice.randrange(60))
        else:
            pieces[at] = dice.choice(
                (b"}", b"]", b")", b"N", b"(", b"t", b"\x85", b"R", b"b", b"s", b"u", b"Q", b"0", b"2")
            )
        if not pieces:
            break
    return b"".join(pieces)


def directory(dice: random.Random, content: bytes) -> bytes:
    """A number in the directory or in a local header of a zip file replaced."""
    broken = bytearray(content)
    marks = [(b"PK\x01\x02", 46), (b"PK\x03\x04", 30), (b"PK\x05\x06", 22), (b"PK\x06\x06", 56)]
    mark, length = dice.choice(marks)
    starts = [start for start in range(len(content)) if content.startswith(mark, start)]
    if not starts:
        return scatter(dice, content)
    start, width = dice.choice(starts) + 4 + 2 * dice.randrange((length - 4) // 2), dice.choice((2, 4))
    value = dice.choice((*EXTREMES, len(content), dice.randrange(len(content)), 8)) % 256**width
    broken[start : start + width] = value.to_bytes(width, "little")
    return bytes(broken)


# ---- pickles by hand -------------------------------------------------------------------------------------------------


def pack(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    encoded = value.to_bytes(10, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def call(name: str, *arguments: bytes) -> bytes:
    return b"c" + b"\n".join(name.rsplit(".", 1)[i].encode() for i in (0, 1)) + b"\n(" + b"".join(arguments) + b"tR"


def row(*values: int) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def table(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def storage(count: int, key: str = "0", kind: bytes = b"torch\nFloatStorage", legacy: bool = True) -> bytes:
    return (
        b"(" + text("storage") + b"c" + kind + b"\n" + text(key) + text("cpu") + integer(count) + b"N" * legacy + b"tQ"
    )


def tensor(of: bytes, size: bytes, stride: bytes, offset: int = 0) -> bytes:
    return call(
        "torch._utils._rebuild_tensor_v2", of, integer(offset), size, stride, b"\x89", call("collections.OrderedDict")
    )


def legacy_file(content: bytes, keys: tuple[str, ...] = (), data: bytes = b"") -> bytes:
    """A file as torch.save wrote it before it wrote zip files."""
    start = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in start) + content + pickle.dumps(list(keys), 2) + data


def zip_file(content: bytes, data: bytes = b"") -> bytes:
    return pack({"a/data.pkl": content, "a/byteorder": b"little", "a/data/0": data, "a/version": b"3\n"})


def safetensors_file(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


class Trap:
    """Does what it is told when a careless reader unpickles it."""

    def __init__(self, *made: object):
        self.made = made

    def __reduce__(self):
        return self.made


def hostile_pickles(legacy: bool, marker: Path) -> Iterator[tuple[str, bytes]]:
    """Contents that ask for code, memory or time, by what they do."""
    import functools
    import os
    import subprocess

    run = f"open({str(marker)!r}, 'w').close()"
    for protocol in (0, 1, 2, 4):
        for name, made in {
            "os.system": (os.system, (f"echo > {marker}",)),
            "eval": (eval, (run,)),
            "exec": (exec, (run,)),
            "open": (open, (str(marker), "w")),
            "popen": (subprocess.Popen, (["touch", str(marker)],)),
            "partial": (functools.partial, (os.system, f"echo > {marker}")),
            "getattr": (getattr, (os, "system")),
            "torch.load": (torch.load, (str(marker),)),
            "state": (collections.OrderedDict, (), {"x": Trap(eval, (run,))}),
            "items": (collections.OrderedDict, (), None, None, iter([("x", Trap(eval, (run,)))])),
        }.items():
            try:
                yield f"{name}, protocol {protocol}", pickle.dumps({"state_dict": Trap(*made)}, protocol)
            except (pickle.PicklingError, TypeError):  # modules in the chain below
                continue
    chain = call("builtins.getattr", b"cos\n__dict__\n", text("get")) + text("system") + b"\x85R"
    yield "getattr chain", b"\x80\x02" + table(a=chain) + b"."
    four = call("torch._utils._rebuild_tensor_v2")[:-3]
    for name, content in {
        "a huge storage": tensor(storage(2**40, legacy=legacy), row(2**40), row(1)),
        "a storage of a negative size": tensor(storage(-1, legacy=legacy), row(1), row(1)),
        "a storage beyond all": tensor(storage(2**63, legacy=legacy), row(1), row(1)),
        "a tensor larger than its storage": tensor(storage(1, legacy=legacy), row(2**33), row(1)),
        "a tensor behind its storage": tensor(storage(1, legacy=legacy), row(1), row(1), 2**40),
        "a tensor before its storage": tensor(storage(1, legacy=legacy), row(1), row(1), -1),
        "an expanded tensor": tensor(storage(1, legacy=legacy), row(10**6, 10**6), row(0, 0)),
        "a tensor that steps back": tensor(storage(1, legacy=legacy), row(2), row(-1)),
        "a tensor of many dimensions": tensor(storage(1, legacy=legacy), row(*[1] * 5000), row(*[1] * 5000)),
        "a bytearray": call("builtins.bytearray", integer(2**40)),
        "many bytearrays": b"](" + call("builtins.bytearray", integer(2**28)) * 100 + b"e",
        "a storage by hand": call("torch.storage.UntypedStorage", integer(2**36)),
        "a tensor by hand": call("torch.FloatTensor", integer(2**36)),
        "a set of tuples": call("builtins.set", b"]" + row(1) + b"a"),
        "a numpy array": call("numpy._core.multiarray._reconstruct", b"cnumpy\nndarray\n", row(2**36), text("b")),
        "a numpy object array": call("numpy.dtype", text("O8")),
        "text copied over and over": text("x" * 2**20) + b"q\x00" + b"0" * 0 + b"]("
        + (b"c_codecs\nencode\nh\x00" + text("latin1") + b"\x86R") * 20_000 + b"e",
        "text packed": call("_codecs.encode", text("x"), text("bz2")),
        "a Counter of a Counter": call("collections.Counter", call("collections.Counter", b"}")),
        "sparse": call("torch._utils._rebuild_sparse_tensor", b"N", b"N"),
        "quantised": call("torch._utils._rebuild_qtensor", b"N"),
        "meta": call("torch._utils._rebuild_meta_tensor_no_storage", b"N", row(2**50), row(1), b"\x89"),
        "nested tensor": call("torch._utils._rebuild_nested_tensor", b"N"),
        "wrapper": call("torch._utils._rebuild_wrapper_subclass", b"N"),
        "half a call": four,
        "a key that hashes for ever": b"}" + text("a") + b"](" + b")q\x00" + b"h\x00h\x00\x86q\x00" * 200
        + b"es" + b"h\x00Ns",
        "keys that collide": b"}(" + b"".join(integer((2**61 - 1) * n) + b"N" for n in range(1, 40_000)) + b"u",
        "a billion entries": b"}q\x00" + b"".join(
            b"}(" + b"".join(text(str(n)) + b"h\x00" for n in range(10)) + b"uq\x00" for _ in range(12)),
        "itself": b"}q\x00" + text("a") + b"h\x00s",
        "itself as a container": b"}q\x00" + text("state_dict") + b"h\x00s",
        "depth": (b"}" + text("a")) * 30_000 + b"}" + b"s" * 30_000,
        "deep lists": b"]" * 30_000 + b"a" * 29_999,
        "deep tuples": b")" + b"\x85" * 30_000,
        "marks": b"(" * 100_000,
        "a far memo": b"}r\xff\xff\xff\xff",
        "a text of four GiB": b"X\xff\xff\xff\xffx",
        "an attribute in the way": call("collections.OrderedDict") + table(items=integer(1)) + b"b",
        "a class in the way": call("collections.OrderedDict") + table(__class__=b"N") + b"b",
        "two of one name": b"}(" + text("a.b") + tensor(storage(1, legacy=legacy), row(1), row(1)) + text("a")
        + table(b=tensor(storage(1, legacy=legacy), row(1), row(1))) + b"u",
    }.items():  # fmt: skip
        yield name, b"\x80\x02" + (content if content.startswith((b"}", b"]")) else table(a=content)) + b"."


def hostile_files(folder: Path, marker: Path) -> Iterator[tuple[str, bytes]]:
    """Named files of all containers, each made to hurt."""
    yield "bare: many things", b"\x80\x02](" + b"}" * 3_000_000 + b"e."
    for name, content in hostile_pickles(True, marker):
        yield f"legacy: {name}", legacy_file(content, ("0",), struct.pack("<q", 1) + b"\0" * 4)
        yield f"bare: {name}", content
    for name, content in hostile_pickles(False, marker):
        yield f"zip: {name}", zip_file(content, b"\0" * 4)
    yield from hostile_zips()
    yield from hostile_safetensors(folder)


def hostile_zips() -> Iterator[tuple[str, bytes]]:
    good = b"\x80\x02" + table(a=tensor(storage(1, legacy=False), row(1), row(1))) + b"."
    zeros = b"\0" * 2**27
    yield (
        "zip: a packed storage",
        pack({"a/data.pkl": good, "a/data/0": zeros, "a/version": b"3\n"}, zipfile.ZIP_DEFLATED),
    )
    yield (
        "zip: a packed pickle",
        pack({"a/data.pkl": b"\x80\x02" + b"]" * 2**27, "a/version": b"3\n"}, zipfile.ZIP_DEFLATED),
    )
    yield "zip: packed otherwise", pack({"a/data.pkl": good, "a/data/0": zeros[:4]}, zipfile.ZIP_BZIP2)
    yield "zip: a large pickle", pack({"a/data.pkl": good + zeros[: 2**26], "a/version": b"3\n"})
    yield "zip: two of one name", pack({"a/data.pkl": good, "a/DATA.PKL": good, "a/version": b"3\n"})
    yield "zip: two folders", pack({"a/data.pkl": good, "b/data.pkl": good})
    yield "zip: nothing inside", b"PK\x03\x04" + pack({})
    yield "zip: something behind", zip_file(good, b"\0" * 4) + zip_file(good, b"\0" * 4)
    yield (
        "zip: a script",
        pack({"a/data.pkl": good, "a/constants.pkl": good, "a/data/0": b"\0" * 4, "a/version": b"3\n"}),
    )
    yield "zip: a short storage", zip_file(good, b"\0")
    yield (
        "zip: another byte order",
        pack({"a/data.pkl": good, "a/byteorder": b"middle", "a/data/0": b"\0" * 4, "a/version": b"3\n"}),
    )
    for field, width in ((20, 4), (24, 4), (42, 4), (28, 2), (30, 2), (32, 2), (8, 2), (10, 2)):
        content = bytearray(zip_file(good, b"\0" * 4))
        start = content.find(b"PK\x01\x02") + field
        content[start : start + width] = b"\xff" * width
        yield f"zip: directory field {field}", bytes(content)


def hostile_safetensors(folder: Path) -> Iterator[tuple[str, bytes]]:
    path = folder / "class.safetensors"
    state = load_file(path)

    def stored(entries: dict[str, torch.Tensor], about: str | None = None) -> bytes:
        other = folder / "other.safetensors"
        save_file({key: value.clone() for key, value in entries.items()}, other, {"pixeldit": about} if about else None)
        return other.read_bytes()

    def renamed(start: str) -> dict[str, torch.Tensor]:
        return {start + key: value for key, value in state.items()}

    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    yield "safetensors: one name twice", safetensors_file(b'{"a":' + entry + b',"a":' + entry + b"}", b"\0" * 4)
    yield (
        "safetensors: an escaped name twice",
        safetensors_file(b'{"a":' + entry + b',"\\u0061":' + entry + b"}", b"\0" * 4),
    )
    for length in (2**63 - 1, 2**64 - 1, 2**40, 10**8, 0, 1):
        yield f"safetensors: a header of {length}", struct.pack("<Q", length) + b'{"a":' + entry + b"}" + b"\0" * 4
    yield "safetensors: depth", safetensors_file(b'{"a":' * 1_000_000)
    yield "safetensors: lists", safetensors_file(b'{"a":' + b"[" * 1_000_000)
    yield "safetensors: a large header", safetensors_file(b'{"__metadata__":{"a":"' + b"x" * (40 * 2**20) + b'"}}')
    yield "safetensors: not UTF-8", safetensors_file(b'{"\xff\xfe":' + entry + b"}", b"\0" * 4)
    yield "safetensors: a long name", stored({"module." * 10_000 + "a": torch.zeros(1)})
    yield "safetensors: many ways to read a name", stored(renamed("model.diffusion_model." * 21))
    yield (
        "safetensors: no end of networks",
        stored({f"{'core.' * depth}{key}": value[:1].clone() for depth in range(60) for key, value in state.items()}),
    )
    yield "safetensors: two networks", stored(renamed("ema.") | renamed("net_ema."))
    yield (
        "safetensors: a network and a copy",
        stored(renamed("") | {"module." + k: v.clone() for k, v in state.items()}),
    )
    for block in (10**9, 10**18, 10**400):
        yield (
            f"safetensors: block 10^{len(str(block)) - 1}",
            stored(state | {f"patch_blocks.{block}.norm1.weight": torch.zeros(1)}),
        )
    for key, value in state.items():
        if value.dim():
            shape = [2**47] * value.dim() if value.dim() > 1 else [0]
            header = {name: {"dtype": "F32", "shape": [0, *shape[1:]] if name == key else list(of.shape)}
                      for name, of in state.items()}  # fmt: skip
            end = 0
            for name in header:
                start, end = end, end + (0 if name == key else 4 * state[name].numel())
                header[name]["data_offsets"] = [start, end]
            yield (
                f"safetensors: {key} of nothing and endless",
                safetensors_file(json.dumps(header).encode(), b"\0" * end),
            )
    for about in ("[" * 100_000, '{"params":' * 50_000, "1e999", '"family"', "null", '{"family":[]}', '{"params":[1]}',
                  '{"params":{"use_pixel_abs_pos":[]}}', '{"params":{"patch_size":Infinity}}', '{"params":null}',
                  '{"recipe":{"steps":Infinity,"cfg":1}}', '{"recipe":{"steps":1e400,"cfg":1}}', '{"class_names":7}',
                  '{"class_names":{"a":1}}', '{"class_names":[[],[],[]]}', '{"class_names":[[1],[{}],null]}',
                  '{"recipe":{"steps":4,"cfg":2,"size":{"0":1}}}',
                  '{"recipe":{"steps":' + "9" * 5000 + "}}"):  # fmt: skip
        yield f"safetensors: metadata {about[:60]}", stored(state, about)


# ---- one case --------------------------------------------------------------------------------------------------------


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
        else:
            outcomes, wrong = run_cases(folder, chosen.first, chosen.cases, chosen.seed)
    told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    lines = [*wrong[:50], f"{told}, {len(wrong)} wrong, in {time.monotonic() - began:.0f} seconds"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
