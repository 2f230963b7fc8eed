"""Pickles made by hand, of what looks like a plain value beside the weights and is none."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fuzz.hostile import call, integer, legacy_file, row, storage, table, tensor, text, zip_file

# Nothing is wrong with these: what would be, in another reader, is never made.
HARMLESS = (
    "namespace: state of itself",
    "other object: a key",
    "array: endless and empty",
    "not a number as keys",
    "floats that collide",
    "frame within an operation",
    "frame of nothing",
    "memo over and over",
    "a large number",
    "a set of sets",
    "a deque without end",
    "a range of all",
    "deep objects",
    "deep frozen sets",
)
# These cannot be the work of pickle: the only ones that are said to be damaged.
DAMAGED = (
    "an odd number of items",
    "items of a number",
    "frame beyond the end",
    "memo of nothing",
    "memo changed",
    "bytes of a TiB",
    "bytes of all",
    "text of all",
    "a number of four GiB",
    "a number of many digits",
)


def new(name: str, *arguments: bytes) -> bytes:
    return call(name, *arguments)[:-1] + b"\x81"


def dtype(name: str, state: bytes = b"") -> bytes:
    return call("numpy.dtype", text(name), b"\x89", b"\x88") + (b"(" + state + b"tb" if state else b"")


def array(shape: bytes, of: bytes, data: bytes) -> bytes:
    made = call("numpy._core.multiarray._reconstruct", b"cnumpy\nndarray\n", row(0), b"C\x01b")
    return made + b"(K\x01" + shape + of + b"\x89" + data + b"tb"


def hostile_values() -> Iterator[tuple[str, bytes]]:
    """What looks like a plain value beside the weights, and is none."""
    run = call("posix.system", text("echo"))
    plain = b"K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
    wide = b"K\x03" + text("<") + b"NNN" + integer(2**40) + b"K\x01K\x00"
    fields = (
        b"K\x03"
        + text("|")
        + b"N"
        + text("a")
        + b"\x85"
        + b"}"
        + text("a")
        + dtype("O8")
        + b"K\x00\x86sK\x08K\x01K\x10"
    )
    twice = b"".join(b"h\x00h\x00\x86q\x00" for _ in range(64))
    for name, content in {
        "namespace: no dictionary": new("argparse.Namespace") + b"](K\x01eb",
        "namespace: a tensor's number": new("argparse.Namespace") + b"K\x01b",
        "namespace: a class": new("argparse.Namespace") + table(__class__=b"cos\nsystem\n") + b"b",
        "namespace: a dictionary": new("argparse.Namespace") + table(__dict__=b"}") + b"b",
        "namespace: with arguments": new("argparse.Namespace", text("a")),
        "namespace: called": call("argparse.Namespace", text("a")),
        "namespace: parser": new("argparse.ArgumentParser"),
        "namespace: its method": call("argparse.Namespace.__init__", text("a")),
        "namespace: state of itself": new("argparse.Namespace") + b"q\x00}" + text("a") + b"h\x00sb",
        "namespace: states without end": b"}q\x00(" + b"".join(text(str(n)) + b"N" for n in range(50_000)) + b"u"
        + new("argparse.Namespace") + b"h\x00b" * 60_000 + b"0",
        "other object: state that calls": new("some_trainer.Args") + table(a=run) + b"b",
        "other object: a function": call("some_trainer.run", text("a")),
        "other object: many arguments": call("some_trainer.Run", *[text("a")] * 300),
        "other object: a key": b"}" + new("some_trainer.Args") + b"Ns",
        "new system": new("os.system", text("echo")),
        "new Popen": new("subprocess.Popen", text("echo")),
        "new module": new("torch.nn.modules.linear.Linear", integer(2**40), integer(2**40)),
        "new with keywords": b"csubprocess\nPopen\n)}" + text("args") + text("echo") + b"s\x92",
        "new of no class": text("a") + b")\x81",
        "reconstructor": call("copy_reg._reconstructor", b"cos\nsystem\n", b"c__builtin__\nobject\n", b"N"),
        "newobj": call("copyreg.__newobj__", b"cos\nsystem\n", text("echo")),
        "number of numpy: object": call("numpy._core.multiarray.scalar", dtype("O8"), run),
        "number of numpy: object, plain": call("numpy.core.multiarray.scalar", dtype("O8"), b"C\x08" + b"x" * 8),
        "number of numpy: short": call("numpy._core.multiarray.scalar", dtype("f8", plain), b"C\x01x"),
        "number of numpy: wide": call("numpy._core.multiarray.scalar", dtype("V8", wide), b"C\x01x"),
        "number of numpy: very wide": call("numpy._core.multiarray.scalar", dtype("V999999999"), b"C\x01x"),
        "dtype of a dtype": call("numpy.dtype", dtype("f8")),
        "dtype of a text": dtype("f8,f8,O"),
        "structure with objects": call("numpy._core.multiarray.scalar", dtype("V8", fields), b"C\x08" + b"x" * 8),
        "array: larger than its bytes": array(row(2**40), dtype("f8", plain), b"C\x08" + b"x" * 8),
        "array: of many dimensions": array(row(*[1] * 5000), dtype("f8", plain), b"C\x08" + b"x" * 8),
        "array: negative": array(row(-1, -1), dtype("f8", plain), b"C\x08" + b"x" * 8),
        "array: endless and empty": array(row(0, 2**62, 2**62), dtype("f8", plain), b"C\x00"),
        "array: objects that call": array(row(1), dtype("O8"), b"](" + run + b"e"),
        "array: objects without end": array(row(2**40), dtype("O8"), b"](Ne"),
        "array: from a buffer": call("numpy._core.numeric._frombuffer", b"\x96" + struct.pack("<Q", 2) + b"ab",
                                     dtype("f8"), row(2**50), text("C")),
        "file of bytes: called": call("_io.BytesIO", text("a")),
        "file of bytes: a call as its state": call("_io.BytesIO")[:-1] + b"\x81(" + run + b"K\x00Ntb",
        "file of bytes: attributes": call("_io.BytesIO")[:-1] + b"\x81}" + text("close") + b"Nsb",
        "file of bytes: opened by name": call("_io.open", text("file")),
        "nested tuple as a key": b"}" + row(1) + b"\x85Ns",
        "tuple of tuples of tuples as a key": row(1) + b"q\x000" + twice + b"0" * 64 + b"}h\x00Ns",
        "long tuple as a key": b"}" + row(*range(1000)) + b"Ns",
        "tuple with a call as a key": b"}(" + run + b"tNs",
        "list as a key": b"}]Ns",
        "dictionary as a key": b"}}Ns",
        "not a number as keys": b"}(" + b"G\x7f\xf8\0\0\0\0\0\0N" * 100_000 + b"u",
        "floats that collide": b"}(" + b"".join(b"G" + struct.pack(">d", 2.0**n) + b"N" for n in range(-9, 900)) + b"u",
        "an odd number of items": b"}(" + text("a") + b"u",
        "items of a number": b"K\x01(" + text("a") + b"Nu",
        "frame beyond the end": b"\x95" + struct.pack("<Q", 2**40) + b"N",
        "frame within an operation": b"\x95" + struct.pack("<Q", 1) + text("abc"),
        "frame of nothing": b"\x95" + struct.pack("<Q", 0) + b"N",
        "memo of nothing": b"(\x941N",
        "memo over and over": b"N" + b"\x94" * 1_000_000,
        "memo changed": b"}q\x00" + text("a") + b"]q\x00sh\x00",
        "stack global of numbers": b"K\x01K\x02\x93",
        "stack global of lists": b"]]\x93",
        "stack global of the system": text("os") + text("system") + b"\x93" + text("echo") + b"\x85R",
        "stack global with a dot": text("argparse") + text("Namespace.__class__") + b"\x93)\x81",
        "stack global with a blank": text("argparse") + text("Namespace\nx") + b"\x93)\x81",
        "stack global of nothing": text("") + text("") + b"\x93",
        "bytes of a TiB": b"\x96" + struct.pack("<Q", 2**40),
        "bytes of all": b"\x8e" + b"\xff" * 8,
        "text of all": b"\x8d" + b"\xff" * 8,
        "a number of four GiB": b"\x8b\xff\xff\xff\xff",
        "a number of many digits": b"L" + b"9" * 5000 + b"\n",
        "a large number": b"\x8b" + struct.pack("<I", 2**20) + b"\x7f" * 2**20,
        "a bytearray of a number": call("builtins.bytearray", integer(2**40)),
        "a set of sets": b"\x8f(" + b"\x8f(" * 30_000 + b"\x90" * 30_000 + b"\x90",
        "a deque without end": call("collections.deque", b"]", integer(-1)),
        "a range of all": call("builtins.range", integer(2**62)),
        "deep objects": b"".join([b"csome_trainer\nArgs\n)\x81}" + text("a")] * 20_000) + b"N" + b"sb" * 20_000,
        "deep frozen sets": b"(" * 30_000 + b"\x91" * 30_000,
        "out of band": b"\x97\x98",
        "an old class": b"(ios\nsystem\n",
        "an old object": b"(cos\nsystem\n" + text("echo") + b"o",
        "an extension": b"\x82\x01",
        "a far protocol": b"\x80\xff",
        "a tensor of another class": call("torch._tensor._rebuild_from_type_v2", b"cos\nsystem\n", b"ctorch\nTensor\n",
                                          text("echo") + b"\x85", b"}"),
        "a tensor within itself": call("torch._tensor._rebuild_from_type_v2",
                                       b"ctorch._tensor\n_rebuild_from_type_v2\n", b"ctorch\nTensor\n", b")", b"}"),
    }.items():  # fmt: skip
        yield name, b"\x80\x04}" + text("a") + content + b"s."


def hostile_value_files() -> Iterator[tuple[str, bytes]]:
    """The same as files of both containers, and long ones of one operation."""
    for name, content in hostile_values():
        yield f"zip: {name}", zip_file(content, b"\0" * 4)
        yield f"legacy: {name}", legacy_file(content)
    again = tensor(storage(1, legacy=True), row(1), row(1))[:-1]
    at = again.rindex(b"(", 0, again.index(b"(X\x07\x00\x00\x00storage"))
    function, arguments = again[:at] + b"q\x00", again[at:] + b"q\x01"
    yield "bare: tensors without end", b"\x80\x02" + function + arguments + b"R" + b"h\x00h\x01R" * (2**26 // 5)
    for part in (b"}", b"]", b"(", b"\x8f", b"]\x94", b"csome_trainer\nArgs\n)\x81", b"2"):
        yield f"bare: 64 MiB of {part!r}", b"\x80\x04N" + part * (2**26 // len(part))
