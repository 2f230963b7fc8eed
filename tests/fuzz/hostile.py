"""Files made by hand that ask for code, for memory or for time."""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import io
import json
import operator
import os
import pathlib
import pickle
import struct
import subprocess
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


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
    """Runs its call when a careless reader unpickles it."""

    def __init__(self, *made: object):
        self.made = made

    def __reduce__(self):
        return self.made


def hostile_pickles(legacy: bool, marker: Path) -> Iterator[tuple[str, bytes]]:
    """Contents that ask for code, memory or time, by what they do."""
    run = f"open({str(marker)!r}, 'w').close()"
    for protocol in (0, 1, 2, 4, 5):
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
            "namespace": (argparse.Namespace, (), {"x": [Trap(os.system, (f"echo > {marker}",))]}),
            "namespace of a call": (argparse.Namespace, (), Trap(os.system, (f"echo > {marker}",))),
            "simple namespace": (types.SimpleNamespace, (), {"x": Trap(exec, (run,))}),
            "path": (pathlib.PurePosixPath, (Trap(eval, (run,)),)),
            "set": (set, ([Trap(eval, (run,))],)),
            "getitem": (operator.getitem, ({"x": 1}, "x")),
            "methodcaller": (operator.methodcaller("touch"), (marker,)),
            "import": (importlib.import_module, ("antigravity",)),
        }.items():
            try:
                yield f"{name}, protocol {protocol}", pickle.dumps({"state_dict": Trap(*made)}, protocol)
            except (pickle.PicklingError, TypeError, AttributeError):  # modules in the chain below
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
        "quantized": call("torch._utils._rebuild_qtensor", b"N"),
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
                  '{"settings":{"steps":Infinity,"cfg":1}}', '{"settings":{"steps":1e400,"cfg":1}}',
                  '{"class_names":7}',
                  '{"class_names":{"a":1}}', '{"class_names":[[],[],[]]}', '{"class_names":[[1],[{}],null]}',
                  '{"settings":{"steps":4,"cfg":2,"size":{"0":1}}}',
                  '{"settings":{"steps":' + "9" * 5000 + "}}"):  # fmt: skip
        yield f"safetensors: metadata {about[:60]}", stored(state, about)
