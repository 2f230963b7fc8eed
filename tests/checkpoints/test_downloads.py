"""Unfinished downloads, bytes after the tensors, links without target, and paths that are no files."""

import json
import logging
import os
import socket
import struct
import time
from dataclasses import replace

import pytest
import torch
from checkpoints.files import fails, same
from factories import TINY, TINY_T2I
from safetensors.torch import save

import pixeldit_core as pc
from pixeldit_core.checkpoints.downloads import check_zeros
from pixeldit_core.checkpoints.links import explain_os_error
from pixeldit_core.training.initialize import initialize


def reserved(path, content, share=1 / 3):
    """A file of full size of which the first part was downloaded."""
    there = int(len(content) * share)
    path.write_bytes(content[:there] + bytes(len(content) - there))
    return path


@pytest.fixture
def whole(tiny):
    return save({key: value.clone() for key, value in tiny().network.state_dict().items()})


MARKS = (
    ".aria2",
    ".part",
    ".crdownload",
    ".download",
    ".incomplete",
    ".!ut",
    ".xltd",
    ".xltd.cfg",
    ".td",
    ".bc!",
    ".st",
)


@pytest.mark.parametrize("mark", MARKS)
def test_a_reserved_download_with_a_mark(tmp_path, whole, mark):
    path = reserved(tmp_path / "pixeldit.safetensors", whole)
    path.with_name(path.name + mark).write_bytes(bytes(32))
    with pytest.raises(ValueError, match="is an unfinished download") as error:
        pc.load_checkpoint(path)
    assert path.name + mark in str(error.value) and "damaged" not in str(error.value)
    path.write_bytes(whole[:-50])
    fails(path, "is an unfinished download")
    path.write_bytes(b"")
    fails(path, "is an unfinished download")
    path.write_bytes(bytes(len(whole)))
    fails(path, "is an unfinished download")


@pytest.mark.parametrize("mark", [".part", ".crdownload", ".tmp"])
def test_a_whole_file_beside_another_download_loads(tiny, tmp_path, whole, mark):
    path = tmp_path / "pixeldit.safetensors"
    path.write_bytes(whole)
    path.with_name(path.name + mark).write_bytes(b"")
    assert same(pc.load_checkpoint(path), tiny().network.state_dict())


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_a_reserved_download_without_a_mark_is_warned_of(tmp_path, whole, share, caplog):
    path = reserved(tmp_path / "pixeldit.safetensors", whole, share)
    pc.load_checkpoint(path)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "pixeldit.safetensors: " in record.message and "of 53 tensors hold nothing but zeros" in record.message


def test_zeros_in_the_middle_and_in_pickled_files(tiny, tmp_path, whole, caplog):
    """Downloaders with several connections leave gaps."""
    path = tmp_path / "pixeldit.safetensors"
    a, b = int(len(whole) * 0.3), int(len(whole) * 0.6)
    path.write_bytes(whole[:a] + bytes(b - a) + whole[b:])
    pc.load_checkpoint(path)
    assert "hold nothing but zeros" in caplog.text
    caplog.clear()
    for zipped in (True, False):
        path = tmp_path / f"pixeldit{zipped}.ckpt"
        torch.save({"state_dict": dict(tiny().network.state_dict())}, path, _use_new_zipfile_serialization=zipped)
        reserved(path, path.read_bytes(), 0.5)
        if zipped:
            fails(path, "is an unfinished download", "nothing but zeros")
            continue
        try:
            pc.load_checkpoint(path)
        except ValueError as error:
            assert "unfinished download" in str(error)
        else:
            assert "hold nothing but zeros" in caplog.text


NETWORKS = {
    "pixeldit": TINY,
    "pixeldit_t2i": TINY_T2I,
    "pixelhdm": replace(pc.VARIANTS["PixelHDM-small"].params, patch_layers=1),
} | {f"xpred_{kind}": pc.VARIANTS[f"{kind}-tiny/4-mnist"].params for kind in ("dit", "mmdit", "pixeldit", "mmpixeldit")}


@pytest.mark.parametrize("family", NETWORKS)
def test_fresh_networks_have_zeros_by_design(family, tmp_path, caplog):
    model = pc.build_model(family, NETWORKS[family], device="cpu")
    initialize(model)
    state = model.network.state_dict()
    check_zeros(state, tmp_path / "x.safetensors")
    assert not caplog.records
    check_zeros({key: torch.zeros_like(value) for key, value in state.items()}, tmp_path / "x.safetensors")
    assert f"{len(state)} of {len(state)} tensors hold nothing but zeros" in caplog.text


def test_a_fresh_lora_has_zeros_by_design(tmp_path, caplog):
    names = ("lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight", "b.lora_A.weight", "b.lora_B.weight")
    halves = {name: torch.full((4, 4), float("down" in name or "lora_A" in name)) for name in names}
    check_zeros(halves, tmp_path / "x.safetensors")
    assert not caplog.records


@pytest.mark.parametrize(
    "name", ["a.safetensors.part", "a.ckpt.crdownload", "a.tmp", "a.safetensors.incomplete", "a.!qB"]
)
def test_unfinished_downloads_themselves(tmp_path, whole, name):
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    fails(tmp_path / name, "is an unfinished download", "take this ending off its name")


def test_the_note_of_a_downloader_itself(tmp_path):
    (tmp_path / "a.ckpt.aria2").write_bytes(bytes(32))
    fails(tmp_path / "a.ckpt.aria2", "is the note of a downloader", "about a.ckpt")


def test_a_file_that_the_hub_s_downloader_has_not_finished(tmp_path):
    waiting = tmp_path / ".cache" / "huggingface" / "download"
    waiting.mkdir(parents=True)
    (waiting / "model.safetensors.3f.incomplete").write_bytes(b"")
    fails(tmp_path / "model.safetensors", "is not completely downloaded", "Run the download again")
    fails(tmp_path, "whose download has not finished")


@pytest.mark.parametrize("tail", [bytes(3), b"\n", bytes(3 << 20), b"<!-- more -->" * 9])
def test_bytes_after_the_tensors(tiny, tmp_path, whole, tail, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "padded.safetensors"
    path.write_bytes(whole + tail)
    state = tiny().network.state_dict()
    assert same(pc.load_checkpoint(path), state)
    assert "padded.safetensors has bytes after its tensors" in caplog.text
    assert pc.inspect_checkpoint(path).refused is None
    tensors, _ = pc.read_checkpoint(path)
    assert all(torch.equal(tensors[key], state[key]) for key in state)
    again = pc.save_checkpoint(path, tmp_path / "again.safetensors")
    assert same(pc.load_checkpoint(again), state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("spaces", [0, 1, 7, 5000])
def test_bytes_after_the_tensors_with_any_header(tmp_path, dtype, spaces):
    tensors = {"a": torch.randn(3, 5).to(dtype), "b": torch.randn(()).to(dtype), "c": torch.zeros(0, 4, dtype=dtype)}
    content = save(tensors, {"note": "x"})
    length = struct.unpack("<Q", content[:8])[0]
    header, data = content[8 : 8 + length].rstrip() + b" " * spaces, content[8 + length :]
    for tail in (b"", b"??"):
        path = tmp_path / f"padded{len(tail)}.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + data + tail)
        found, metadata = pc.read_checkpoint(path)
        assert metadata == {"note": "x"} and found.keys() == tensors.keys()
        assert all(torch.equal(found[key], tensors[key]) and found[key].dtype == dtype for key in tensors)


@pytest.mark.parametrize("change", [
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
    {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
     "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
     "b": {"dtype": "F32", "shape": [1], "data_offsets": [9, 13]}},
    {"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}},
    {"a": []}, {"a": {}},
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"x": 3}},
    {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**47]}},
])  # fmt: skip
def test_a_header_that_is_not_sound_is_not_read_with_bytes_after_it(tmp_path, change):
    header = json.dumps(change).encode()
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
    fails(path, "damaged or truncated")


def test_a_truncated_file_says_how_much_is_there(tmp_path, whole):
    path = tmp_path / "half.safetensors"
    path.write_bytes(whole[:-1000])
    fails(
        path,
        f"is damaged or truncated: {len(whole) - 1000:,} bytes are there, the whole file has {len(whole):,}",
        "Get the file again",
    )


def test_links_without_target(tmp_path):
    link = tmp_path / "pixeldit.safetensors"
    link.symlink_to("nowhere/blob")
    fails(link, "is a link that points to nowhere/blob, which is not there")
    chain = tmp_path / "chain.ckpt"
    chain.symlink_to(link.name)
    fails(chain, "is a link to the link pixeldit.safetensors, which points to nowhere/blob")
    (tmp_path / "pipe").symlink_to(tmp_path / "gone", target_is_directory=True)
    fails(tmp_path / "pipe", "is a link that points to", "gone")
    fails(tmp_path / "pipe" / "model.safetensors", "is in the folder of the link pipe, which points to")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / "0f3a.incomplete").write_bytes(b"")
    hub = tmp_path / "hub.safetensors"
    hub.symlink_to("blobs/0f3a")
    fails(hub, "its download has not finished")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "transformer").symlink_to("../gone")
    fails(tmp_path / "folder", "transformer is a link that points to ../gone")


def test_links_in_a_circle(tmp_path):
    a, b = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    a.symlink_to(b.name)
    b.symlink_to(a.name)
    fails(a, "is a link that leads back to itself, through b.safetensors")


def test_a_good_link_loads(tiny, tiny_file, tmp_path):
    link = tmp_path / "link.safetensors"
    link.symlink_to(tiny_file.name)
    assert same(pc.load_checkpoint(link), tiny().network.state_dict())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_and_devices_are_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.ckpt")
    fails(tmp_path / "pipe.ckpt", "is a device, a pipe or a socket")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    fails(tmp_path / "zero.ckpt", "is a device, a pipe or a socket")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.ckpt")
        fails(tmp_path / "socket.ckpt", "is a device, a pipe or a socket")


def test_what_the_system_refuses(tiny_file, monkeypatch):
    refused = PermissionError(13, "Permission denied")
    assert "may not be read by this user" in explain_os_error(tiny_file, refused)
    locked = PermissionError(13, "in use")
    locked.winerror = 32
    assert "is in use by another program" in explain_os_error(tiny_file, locked)
    assert "could not be read" in explain_os_error(tiny_file, OSError(5, "Input/output error"))
    small = OSError("The paging file is too small for this operation to complete. (os error 1455)")
    assert "not enough memory" in explain_os_error(tiny_file, small)

    def refuse(*args, **kwargs):
        raise refused

    monkeypatch.setattr(type(tiny_file), "open", refuse)
    with pytest.raises(ValueError, match="may not be read by this user"):
        pc.load_checkpoint(tiny_file)


def test_names_that_no_file_can_have(tmp_path):
    for name in ("a\0b.ckpt", "x" * 300 + ".ckpt"):
        with pytest.raises(ValueError):
            pc.load_checkpoint(tmp_path / name)


def test_looking_for_zeros_costs_no_time(tmp_path):
    tensors = {f"patch_blocks.{i}.attn.qkv.weight": torch.ones(40, 40) for i in range(2000)}
    began = time.process_time()
    check_zeros(tensors, tmp_path / "x.safetensors")
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("tail", [b"\n", bytes(4096), b"<html>", b"\r\n0\r\n\r\n"])
@pytest.mark.parametrize("zipped", [True, False])
def test_bytes_after_a_torch_file(tiny, tmp_path, tail, zipped):
    path = tmp_path / "padded.ckpt"
    state = dict(tiny().network.state_dict())
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes() + tail)
    assert same(pc.load_checkpoint(path), state)
