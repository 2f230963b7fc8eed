"""Damaged and hostile files by the hundred: each loads, or is a ValueError with its name. No code, bombs or hangs."""

import collections
import json
import os
import pickletools
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
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.pickle import reader as pickled
from pixeldit_core.checkpoints.pickle import verifier

pytestmark = pytest.mark.fuzz

ROOT = Path(__file__).parents[2]


def refused(path, *reason):
    """Both readers refuse a file with the same words, its name and `reason` among them."""
    messages = []
    for read in (pc.load_checkpoint, pc.inspect_checkpoint):
        try:
            found = read(path)
            messages.append(found.refused if read is pc.inspect_checkpoint else None)
        except ValueError as error:
            messages.append(str(error))
    assert messages[0] and messages[0] == messages[1]
    for text in (path.name, *reason):
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
    summary = run("--cases", 400, "--seed", 0, "--folder", tmp_path)
    assert " 0 wrong" in summary and " loaded" in summary and " refused" in summary


def test_other_families(tmp_path):
    """Well-formed files of the x-prediction networks and of PixelHDM: all that loads draws, or tells why not."""
    summary = run("--families", "--cases", 40, "--seed", 0, "--folder", tmp_path)
    assert " 0 wrong" in summary and " drawn" in summary and " refused" in summary and " lora applied" in summary


@pytest.mark.slow
def test_hostile_files(tmp_path):
    """Each asks for code, memory or time; all together have three GiB of memory."""
    summary = run("--hostile", "--folder", tmp_path)
    assert " 0 wrong" in summary


@pytest.mark.parametrize("container", ["safetensors", "zip", "legacy"])
def test_truncated_at_every_boundary(tmp_path, container):
    files = {name: content for name, content in fuzzing.sound_files(tmp_path).items() if container in name}
    content = files[min(files)]
    places = mutations.boundaries(content)
    assert len(places) > 8
    for place in places[:: 1 + len(places) // 60]:
        assert fuzzing.attempt(tmp_path / "cut.ckpt", content[:place], tmp_path / "it-ran") == "refused", place


def test_the_files_to_begin_with_load(tmp_path):
    for name, content in fuzzing.sound_files(tmp_path).items():
        suffix = Path(name).suffix
        assert fuzzing.attempt(tmp_path / f"sound{suffix}", content, tmp_path / "it-ran") == "loaded", name


def test_a_case_is_made_from_its_number(tmp_path):
    files = fuzzing.sound_files(tmp_path)
    assert [fuzzing.random_case(files, 3, 8) for _ in range(2)] == [fuzzing.random_case(files, 3, 8)] * 2
    assert fuzzing.random_case(files, 3, 8) != fuzzing.random_case(files, 3, 9)


# ---- what is refused, in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("content, reason", [
    (lambda of: hostile.call("builtins.bytearray", hostile.integer(9)), 'wants to load "builtins.bytearray"'),
    (lambda of: hostile.call("torch._utils._rebuild_sparse_tensor"), '"torch._utils._rebuild_sparse_tensor"'),
    (lambda of: hostile.call("torch._utils._rebuild_qtensor"), 'wants to load "torch._utils._rebuild_qtensor"'),
    (lambda of: hostile.call("functools.partial"), 'wants to load "functools.partial"'),
    (lambda of: hostile.call("torch.load"), 'wants to load "torch.load"'),
    (lambda of: hostile.tensor(of, hostile.row(10**6, 10**6), hostile.row(0, 0)),
     "is larger than its storage of 4 bytes"),
    (lambda of: hostile.tensor(of, hostile.row(2), hostile.row(1)), "does not fit into its storage of 4 bytes"),
    (lambda of: hostile.tensor(of, hostile.row(1), hostile.row(1), -1), "shape is not readable"),
    (lambda of: b"}" + hostile.row(1) + b"Ns", "neither a string nor a small number"),
    (lambda of: hostile.call("torch.storage.UntypedStorage", hostile.integer(9)), "in a way that torch does not write"),
])  # fmt: skip
def test_pickles_are_refused_before_torch_reads_them(tmp_path, monkeypatch, legacy, content, reason):
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
    path.write_bytes(hostile.pack(members) + b"PK")
    refused(path, "not at the end")
    monkeypatch.setattr(pickled, "_MOST_MEMBERS", 1)
    path.write_bytes(hostile.pack(members))
    refused(path, "2 members, more than 1")
    monkeypatch.undo()
    monkeypatch.setattr(verifier, "_OPERATIONS", 4)
    refused(path, "more than 4 operations")


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
    began = time.perf_counter()
    assert pc.inspect_checkpoint(path).params == tiny().params
    assert time.perf_counter() - began < 1
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


def test_a_torch_file_is_mapped(tiny, tmp_path, monkeypatch):
    path = tmp_path / "mapped.ckpt"
    torch.save({"state_dict": dict(tiny().network.state_dict())}, path)
    load, seen = torch.load, []
    monkeypatch.setattr(torch, "load", lambda *of, **options: seen.append(options) or load(*of, **options))
    pc.inspect_checkpoint(path)
    assert seen == [{"map_location": "cpu", "weights_only": True, "mmap": True}]
