"""Ways to damage a checkpoint file: of bytes, of headers, of zip directories and of the operations of a pickle."""

from __future__ import annotations

import collections
import io
import itertools
import json
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable

from fuzz.hostile import integer, pack, text

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
    *(b"argparse\nNamespace", b"types\nSimpleNamespace", b"pathlib\nPosixPath", b"some_trainer\nArgs", b"uuid\nUUID"),
    *(b"numpy._core.multiarray\nscalar", b"numpy.core.multiarray\n_reconstruct", b"numpy._core.numeric\n_frombuffer"),
    *(b"copy_reg\n_reconstructor", b"copyreg\n__newobj__", b"builtins\nfrozenset", b"collections\ndefaultdict"),
    *(b"torch.nn.modules.linear\nLinear", b"torch._C\nGenerator", b"_operator\ngetitem", b"typing\nUnion"),
    *(b"torch._tensor\n_rebuild_from_type_v2", b"torch._utils\n_rebuild_tensor", b"array\narray", b"builtins\nlist"),
)
OPERATIONS = (
    *(b"}", b"]", b")", b"N", b"(", b"t", b"\x85", b"R", b"b", b"s", b"u", b"Q", b"0", b"2", b"1", b"a", b"e"),
    *(b"\x93", b"\x94", b"\x81", b"\x92", b"\x8f", b"\x90", b"\x91", b"\x97", b"\x88", b"\x8c\x01a", b"C\x01a"),
    *(b"\x95" + struct.pack("<Q", size) for size in (0, 3, 2**40)), b"\x96" + struct.pack("<Q", 2**40),
    *(b"\x8d" + struct.pack("<Q", 1) + b"a", b"\x8e" + struct.pack("<Q", 2) + b"ab", b"B\x02\0\0\0ab", b"I01\n"),
    *(b"\x8b" + struct.pack("<I", 600) + b"\x7f" * 600, b"G\x7f\xf8\0\0\0\0\0\0", b"U\x01a", b"L7L\n"),
)  # fmt: skip


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
    """Where the parts of a file begin and end, as far as they can be detected."""
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
    """A well-formed .safetensors header with wrong or repeated entries."""
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
    pieces = [pickled[start:end] for start, end in itertools.pairwise(places)]
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
        elif code == b"\x93" and kind < 6:
            pieces[at] = b"00" + b"".join(map(short_text, dice.choice(GLOBALS).split(b"\n"))) + b"\x93"
        elif code in (b"K", b"M", b"J", b"\x8a") and kind < 6:
            pieces[at] = integer(dice.choice((*EXTREMES, -1)))
        elif code in (b"X", b"\x8c") and kind < 6:
            pieces[at] = text(dice.choice(TEXTS))
        elif code in (b"h", b"j", b"q", b"r") and kind < 6:
            pieces[at] = b"j" + struct.pack("<I", dice.randrange(60))
        else:
            pieces[at] = dice.choice(OPERATIONS)
        if not pieces:
            break
    return b"".join(pieces)


def short_text(value: bytes) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value


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
