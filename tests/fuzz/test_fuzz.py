"""Damaged and hostile files by the hundred: each loads, or is a ValueError with its name. No code, bombs or hangs."""

import collections
import contextlib
import io
import json
import os
import pickle
import pickletools
import random
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from fuzz import hostile, mutations
from fuzz import run as fuzzing
from fuzz.attempts import attempt, attempt_encoder
from fuzz.hostile_values import DAMAGED, HARMLESS, hostile_value_files
from fuzz.originals import sound_files
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.pickle import archive, contents, machine, operations, reader

pytestmark = pytest.mark.fuzz

ROOT = Path(__file__).parents[2]


def refused(path, *expected_texts):
    """Both readers refuse a file with the same words, its name and `expected_texts` among them."""
    messages = []
    for read in (pc.load_checkpoint, pc.inspect_checkpoint):
        try:
            found = read(path)
            messages.append(found.refused if read is pc.inspect_checkpoint else None)
        except ValueError as error:
            messages.append(str(error))
    assert messages[0] and messages[0] == messages[1]
    for text in (path.name, *expected_texts):
        assert text in messages[0], messages[0]


def run(*arguments):
    """The engine in a process of its own, so that a crash is seen and a limit of memory holds for it alone."""
    command = [sys.executable, "-m", "fuzz.run", *map(str, arguments)]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "tests", ROOT)))}
    done = subprocess.run(command, cwd=ROOT, env=paths, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    return done.stdout


def test_random_damage(tmp_path):
    """A small budget that is always the same; `make fuzz` has a large one."""
    output = run("--cases", 400, "--seed", 0, "--folder", tmp_path)
    assert " 0 wrong" in output and " loaded" in output and " refused" in output


def test_other_families(tmp_path):
    """Well-formed files of the x-prediction networks and of PixelHDM are sampled with, or refused by name."""
    output = run("--families", "--cases", 40, "--seed", 0, "--folder", tmp_path)
    assert " 0 wrong" in output and " generated" in output and " refused" in output and " lora applied" in output


@pytest.mark.slow
def test_hostile_files(tmp_path):
    """Each asks for code, memory or time; all together have three GiB of memory."""
    output = run("--hostile", "--folder", tmp_path)
    assert " 0 wrong" in output


@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
def test_truncated_at_every_boundary(tmp_path, container):
    files = {name: content for name, content in sound_files(tmp_path).items() if container in name}
    content = files[min(files)]
    places = mutations.boundaries(content)
    assert len(places) > 8
    for place in places[:: 1 + len(places) // 60]:
        assert attempt(tmp_path / "cut.ckpt", content[:place], tmp_path / "it-ran") == "refused", place


def test_the_files_to_begin_with_load(tmp_path):
    for name, content in sound_files(tmp_path).items():
        path = tmp_path / f"sound{Path(name).suffix}"
        is_encoder = name.startswith("encoder")  # which is no model by itself
        assert attempt(path, content, tmp_path / "it-ran") == ("refused" if is_encoder else "loaded"), name
        assert not is_encoder or attempt_encoder(path, tmp_path / "network.safetensors") == "applied"


def test_a_case_is_made_from_its_number(tmp_path):
    files = sound_files(tmp_path)
    assert [fuzzing.random_case(files, 3, 8) for _ in range(2)] == [fuzzing.random_case(files, 3, 8)] * 2
    assert fuzzing.random_case(files, 3, 8) != fuzzing.random_case(files, 3, 9)


# ---- what is refused, in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("content, reason", [
    (lambda of: hostile.call("builtins.bytearray", hostile.integer(9)), "has bytes that pickle does not write"),
    (lambda of: hostile.call("torch._utils._rebuild_sparse_tensor"), '"torch._utils._rebuild_sparse_tensor"'),
    (lambda of: hostile.call("torch._utils._rebuild_qtensor"), 'wants to load "torch._utils._rebuild_qtensor"'),
    (lambda of: hostile.call("functools.partial"), 'wants to load "functools.partial"'),
    (lambda of: hostile.call("torch.load"), 'wants to load "torch.load"'),
    (lambda of: hostile.tensor(of, hostile.row(10**6, 10**6), hostile.row(0, 0)),
     "is larger than its storage of 4 bytes"),
    (lambda of: hostile.tensor(of, hostile.row(2), hostile.row(1)), "does not fit into its storage of 4 bytes"),
    (lambda of: hostile.tensor(of, hostile.row(1), hostile.row(1), -1), "shape is not readable"),
    (lambda of: b"}" + hostile.row(1) + b"\x85Ns", "neither a string nor a small number"),
    (lambda of: hostile.call("torch.storage.UntypedStorage", hostile.integer(9)),
     'wants to load "torch.storage.UntypedStorage"'),
])  # fmt: skip
def test_pickles_are_refused_without_torch(tmp_path, monkeypatch, legacy, content, reason):
    monkeypatch.setattr(torch, "load", None)
    inside = b"\x80\x02" + hostile.table(a=content(hostile.storage(1, legacy=legacy))) + b"."
    path = tmp_path / "odd.ckpt"
    data = b"\0" * 4
    path.write_bytes(
        hostile.legacy_file(inside, ("0",), struct.pack("<q", 1) + data) if legacy else hostile.zip_file(inside, data)
    )
    refused(path, reason, "as .safetensors")


@pytest.mark.parametrize("content, reason", [
    (b"}q\x00" + hostile.text("a") + b"h\x00s", "nests dictionaries more than 16 deep"),
    (b"}q\x00" + b"".join(b"}(" + b"".join(hostile.text(str(n)) + b"h\x00" for n in range(10)) + b"uq\x00"
                          for _ in range(9)), "entries"),
])  # fmt: skip
def test_dictionaries_without_an_end(tmp_path, content, reason):
    path = tmp_path / "endless.ckpt"
    path.write_bytes(hostile.zip_file(b"\x80\x02" + content + b"."))
    refused(path, reason, "Choose another")


def test_zip_files_that_torch_does_not_write(tmp_path, monkeypatch):
    path = tmp_path / "odd.ckpt"
    good = b"\x80\x02" + hostile.table(a=b"N") + b"."
    members = {"a/data.pkl": good, "a/version": b"3\n"}
    path.write_bytes(hostile.pack(members, zipfile.ZIP_DEFLATED))
    refused(path, "is compressed, which torch never does")
    path.write_bytes(hostile.pack(members | {"b/data.pkl": good}))
    refused(path, "outside of one folder")
    # after these, readers may find another directory, or none
    for end in (b"PK\x05\x06", hostile.pack(members)[-22:] + b"?", bytes(2**17)):
        path.write_bytes(hostile.pack(members) + end)
        with pytest.raises(ValueError, match="not at the end|damaged|not finish|nothing but zeros"):
            pc.read_checkpoint(path)
    monkeypatch.setattr(archive, "_MOST_MEMBERS", 1)
    path.write_bytes(hostile.pack(members))
    refused(path, "2 members, more than 1")
    monkeypatch.undo()
    path.write_bytes(hostile.pack({"a/version": b"3\n", "a/weights": b""}))
    refused(path, "is an archive (zip) without weights", "a/version")
    path.write_bytes(hostile.pack(members | {"a/code/x.py": b""}, zipfile.ZIP_DEFLATED))
    refused(path, "is a TorchScript program")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_storage_longer_than_its_record_is_not_read(tmp_path, suffix):
    """torch takes the pickle's word for the length, and reads on behind the record."""
    path = tmp_path / f"short{suffix}"
    inside = hostile.table(a=hostile.tensor(hostile.storage(2, legacy=False), hostile.row(2), hostile.row(1)))
    path.write_bytes(hostile.zip_file(b"\x80\x02" + inside + b".", b"\0" * 4))
    refused(path, "storage '0' has less than its 8 bytes", "Get the file again")


def test_two_tensors_of_one_name(tmp_path):
    path = tmp_path / "twice.ckpt"
    torch.save({"a": {"b": torch.zeros(1)}, "a.b": torch.zeros(1)}, path)
    refused(path, "two tensors of the name a.b")
    entry = b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    path.write_bytes(hostile.safetensors_file(b'{"a":' + entry + b',"\\u0061":' + entry + b"}", b"\0" * 4))
    refused(path, "'a' twice", "Get the file again")


def test_an_unknown_dtype_is_named(tmp_path):
    path = tmp_path / "six.safetensors"
    header = {"a.weight": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}
    path.write_bytes(hostile.safetensors_file(json.dumps(header).encode(), b"\0" * 3))
    refused(path, "a.weight", "F6_E2M3", "Get the weights as bfloat16")


def test_keys_that_are_not_text_are_passed_over(tiny, tmp_path):
    state = dict(tiny().network.state_dict())
    path = tmp_path / "odd-keys.ckpt"
    torch.save({"state_dict": {**state, 7: torch.zeros(1)}, 3: "three"}, path)
    assert pc.load_checkpoint(path).params == tiny().params


def test_an_attribute_in_the_way_of_a_dictionary(tmp_path):
    path = tmp_path / "odd.ckpt"
    inside = hostile.call("collections.OrderedDict") + hostile.table(items=hostile.integer(1), get=b"N") + b"b"
    path.write_bytes(hostile.zip_file(b"\x80\x02" + inside + b"."))
    refused(path, "holds no tensors")


@pytest.mark.parametrize(
    "about", ['{"settings":{"steps":1e999,"cfg":1}}', "[" * 100_000, '{"class_names":[[],[7],[{}]]}']
)
def test_metadata_that_is_not_readable(tiny, tmp_path, about):
    path = tmp_path / "odd.safetensors"
    save_file(dict(tiny().network.state_dict()), path, {"pixeldit": about})
    refused(path, "metadata", "is not readable")


def test_one_name_cannot_make_a_network_of_a_billion_blocks(tiny, tmp_path):
    path = tmp_path / "deep.safetensors"
    save_file(dict(tiny().network.state_dict()) | {"patch_blocks.999999999.norm1.weight": torch.zeros(1)}, path)
    refused(path, "patch_blocks.999999999", "get it again")


# ---- headers only ----------------------------------------------------------------------------------------------------


def grown(path, content, size):
    """A file with nothing written behind its first part, of which most file systems keep nothing."""
    path.write_bytes(content)
    with path.open("r+b") as file:
        file.truncate(size)


def test_a_large_safetensors_is_inspected_at_once(tiny, tmp_path):
    path, size = tmp_path / "large.safetensors", 5 * 10**9
    save_file(dict(tiny().network.state_dict()), path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    end = len(content) - 8 - length
    header["text_encoders.a"] = {"dtype": "U8", "shape": [size], "data_offsets": [end, end + size]}
    encoded = json.dumps(header).encode()
    grown(path, hostile.safetensors_file(encoded), 8 + len(encoded) + end + size)
    began = time.process_time()
    assert pc.inspect_checkpoint(path).params == tiny().params
    assert time.process_time() - began < 1
    path.unlink()


def test_an_older_torch_file_is_inspected_without_its_data(tiny, tmp_path):
    path = tmp_path / "older.ckpt"
    torch.save({"state_dict": dict(tiny().network.state_dict())}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    with path.open("rb") as file:
        for _ in range(5):
            collections.deque(pickletools.genops(file), maxlen=0)
        header = file.tell()
    grown(path, content[:header], len(content))  # the sizes that stand before each storage are gone
    assert pc.inspect_checkpoint(path).params == tiny().params
    with pytest.raises(ValueError, match="older.ckpt"):
        pc.load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_mapped(tiny, tmp_path, monkeypatch, zipped):
    path, maps = tmp_path / "mapped.ckpt", []
    torch.save({"state_dict": dict(tiny().network.state_dict())}, path, _use_new_zipfile_serialization=zipped)
    made = contents.Contents._map
    monkeypatch.setattr(contents.Contents, "_map", lambda self: maps.append(made(self)) or maps[-1])
    pc.inspect_checkpoint(path)
    assert not maps
    found, _ = pc.read_checkpoint(path)
    start, size = maps[0].data_ptr(), path.stat().st_size
    inside = [start <= value.data_ptr() < start + size for value in found.values()]
    assert all(inside) or not zipped  # of the older container, what lies at a multiple of its size
    assert all(value.data_ptr() % value.element_size() == 0 for value in found.values())


# ---- what looks like a plain value -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_looks_like_a_plain_value(tmp_path):
    """Refused soon, with the true reason; code by its name."""
    path = tmp_path / "odd.pt"
    for name, content in hostile_value_files():
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        kind, began, message = name.split(": ", 1)[1], time.process_time(), ""
        try:
            reader.read_pickled(path)
        except ValueError as error:
            message = str(error)
        assert time.process_time() - began < 2, name
        assert bool(message) != (kind in HARMLESS), (name, message)
        assert ("damaged or truncated" in message) == (kind in DAMAGED), (name, message)
        called = any(word in content for word in (b"system", b"Popen", b"some_trainer.run"))
        assert not called or "wants to load" in message, (name, message)


def plain_value(dice, depth=0):
    """What a pickle of plain values may hold, some of it twice."""
    texts = ("", "a", "b" * 300, "\u56fe", "state")
    kind = dice.randrange(12 if depth < 4 else 8)
    if kind < 8:
        return (None, True, dice.randrange(-(2**40), 2**40), dice.randrange(300), 0.5, dice.choice(texts), (), 2**70)[
            kind
        ]
    parts = [plain_value(dice, depth + 1) for _ in range(dice.randrange(6))]
    parts += [dice.choice(parts)] if parts else []
    if kind < 10:
        return parts if kind == 8 else tuple(parts)
    return {dice.choice(texts) + str(place): part for place, part in enumerate(parts)}


def without_tuples_as_keys(value, known=()):
    """Such entries are not kept; lists and dictionaries may have themselves in them."""
    if type(value) in (list, tuple, dict) and id(value) not in known:
        parts = list(value.values()) if type(value) is dict else value
        for part in parts:
            without_tuples_as_keys(part, (*known, id(value)))
    if type(value) is dict:
        for key in [key for key in value if type(key) is tuple]:
            del value[key]
    return value


class Nothing(pickle.Unpickler):
    """Python's own unpickler, without classes."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError


def test_pickles_are_understood_as_python_does():
    """Of any order of operations: what both read is the same, and what Python cannot read is refused."""
    dice, both = random.Random(0), 0
    changes = (
        b"",
        b"\x94",
        b"q\x00",
        b"h\x00",
        b"h\x01",
        b"0",
        b"1",
        b"2",
        b"(",
        b"\x85",
        b"t",
        b"N",
        b"a",
        b"e",
        b"s",
    )
    for _ in range(6000):
        content = pickle.dumps(plain_value(dice), dice.choice((1, 2, 3, 4, 5)))
        places = [place for _, _, place in pickletools.genops(content)]
        for _ in range(dice.randrange(4)):
            at = dice.choice(places)
            content = content[:at] + dice.choice(changes) + content[at + dice.choice((0, 0, 1)) :]
        with contextlib.suppress(ValueError):
            ours = operations.load(machine.Machine(content))
            theirs = Nothing(io.BytesIO(content)).load()  # raises where it cannot: then we do not read it, either
            assert repr(ours) == repr(without_tuples_as_keys(theirs))
            both += 1
    assert both > 1500
