"""Other things in the place of weights: named as what they are, with the way out."""

import bz2
import collections
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from checkpoints.files import fails
from safetensors.torch import save

import pixeldit_core as pc

WHOLE = save({"x": torch.zeros(2000)})


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(members, mode="w"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def put(tmp_path, content, name="pixeldit.safetensors"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


ARCHIVES = {
    "zip": zipped({"models/pixeldit.safetensors": WHOLE}),
    "stored zip": zipped({"models/pixeldit.safetensors": WHOLE}, zipfile.ZIP_STORED),
    "zip of macOS": zipped({"models/pixeldit.safetensors": WHOLE, "__MACOSX/models/._pixeldit.safetensors": b"\0"}),
    "zip of a torch file": zipped({"run/models/pixeldit.safetensors": b"PK", "readme.txt": b""}),
    "tar": tarred({"readme.txt": b"x" * 700, "models/pixeldit.safetensors": WHOLE}),
    "tar.gz": tarred({"models/pixeldit.safetensors": WHOLE}, "w:gz"),
    "gzip": gzip.compress(WHOLE, mtime=0),
    "bzip2": bz2.compress(WHOLE),
    "xz": lzma.compress(WHOLE),
    "lzma": lzma.compress(WHOLE, lzma.FORMAT_ALONE),
    "7z": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(60),
    "rar": b"Rar!\x1a\x07\x01\x00" + bytes(60),
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(60),
    "lz4": b"\x04\x22\x4d\x18" + bytes(60),
    "rar, with a brace where safetensors has one": b"Rar!\x1a\x07\x01\x00{" + bytes(60),
    "zstd after a skippable frame": b"\x50\x2a\x4d\x18\4\0\0\0abcd\x28\xb5\x2f\xfd" + bytes(60),
    "zlib": zlib.compress(WHOLE),
    "zip of an archive": zipped({"pixeldit.7z": b"7z", "models/pixeldit.safetensors": b""}),
    "tar of long names": tarred({"d" * 150 + "/models/pixeldit.safetensors": WHOLE}),
}


@pytest.mark.parametrize("name", ["pixeldit.safetensors", "pixeldit.ckpt", "pixeldit.ckpt.gz"])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives(tmp_path, kind, name):
    message = fails(put(tmp_path, ARCHIVES[kind], name), "is an archive", "unpack it", "7-Zip")
    assert "damaged" not in message and "Get the file again" not in message
    if "zip" in kind.split() or kind == "tar":
        assert "models/pixeldit.safetensors" in message


def test_archives_name_what_is_in_them(tmp_path):
    many = {f"{letter}/model.ckpt": b"x" for letter in "abcde"}
    fails(put(tmp_path, zipped(many)), "choose one of a/model.ckpt, b/model.ckpt, c/model.ckpt and 2 more")
    fails(put(tmp_path, zipped({"workflow.json": b"{}"})), "without weights", "workflow.json")
    named = io.BytesIO()
    with gzip.GzipFile("pixeldit_xl.ckpt", "wb", fileobj=named, mtime=0) as file:
        file.write(WHOLE)
    fails(put(tmp_path, named.getvalue(), "x.ckpt"), "choose pixeldit_xl.ckpt", "let its name end with .gz")


def test_a_torch_file_that_was_packed_again(tiny, tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(dict(tiny().network.state_dict()), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    message = fails(put(tmp_path, zipped(members), "again.ckpt"), "packed again", "do not unpack it")
    assert "damaged" not in message


ANSWERS = {
    "gated": (b"Access to model some/PixelDiT is restricted and you are not in the authorized list.", "is restricted"),
    "password": (b"Invalid username or password.", "Invalid username or password."),
    "not found": (b"Entry not found", "Entry not found"),
    "404": (b"404: Not Found\n", "404: Not Found"),
    "JSON": (b'{"error":"Repository Not Found"}', "Repository Not Found"),
    "JSON of errors": (b'{"errors": [{"message": "expired"}], "status": 403}', "expired"),
    "JSON, nested": (b'{"error": {"code": 401, "message": "token expired"}}', "token expired"),
    "JSON that looks like a header": (b'{"data":{"id":3},"message":"Unauthorized"}', "Unauthorized"),
    "bucket": (b"\xef\xbb\xbf<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
    "bucket, bare": (b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "has expired"),
    "headers": (b"HTTP/1.1 403 Forbidden\r\nServer: x\r\n\r\n", "HTTP/1.1 403 Forbidden"),
    "UTF-16 without a mark": ("Login required".encode("utf-16-le"), "Login required"),
    "UTF-16, big": ('{"error": "Login required"}'.encode("utf-16-be"), "Login required"),
    "UTF-32": ("Login required".encode("utf-32"), "Login required"),
    "blanks at the end": (b"Access denied\0\0\0\0", "Access denied"),
    "ModelScope": (b'{"Code":404,"Success":false,"Data":null,"Msg":"not found"}', "not found"),
    "problem": (b'{"type":"about:blank","title":"Too Many Requests","status":429}', "Too Many Requests"),
    "attributes": (b'<Error xmlns="x"><Code a="b">SignatureDoesNotMatch</Code></Error>', "SignatureDoesNotMatch"),
    "UTF-16": ("\ufeffLogin required".encode("utf-16-le"), "Login required"),
    "Chinese": ("文件不存在".encode(), "文件不存在"),
}
PAGES = {
    "BOM": b"\xef\xbb\xbf<!DOCTYPE html><html><title>Sign in</title>",
    "comment": b"<!-- saved from\n here --><html><head><title>\n Sign in </title></head>",
    "blank lines": b"\n\n \r\n<HTML><body><h1>Sign in</h1></body>",
    "XHTML": b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD"><html><title>Sign in</title></html>',
    "UTF-16": "<!doctype html><title>Sign in</title>".encode("utf-16-be"),
    "no head": b"<noscript>enable it</noscript><h1>Sign in</h1>",
    "gzip": gzip.compress(b"<!doctype html><title>Sign in</title>", mtime=0),
}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_servers(tmp_path, kind, suffix):
    content, line = ANSWERS[kind]
    message = fails(put(tmp_path, content, f"pixeldit{suffix}"), "a server's answer in place of the file", line)
    assert "in a browser" in message and "damaged" not in message


@pytest.mark.parametrize("kind", PAGES)
def test_web_pages(tmp_path, kind):
    fails(put(tmp_path, PAGES[kind]), "is a web page", "server", '"Sign in"', "log in")


def test_long_answers_are_shortened(tmp_path):
    message = fails(put(tmp_path, b"\x1b[31m" + b"no " * 10_000 + b"\n"), "a server's answer")
    assert len(message) < 600 and message.isprintable()


@pytest.mark.parametrize("content, name, text", [
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "girl.safetensors", "is a PNG image. Drag it onto ComfyUI's page"),
    (b"\xff\xd8\xff\xe0" + bytes(40), "girl.ckpt", "is a JPEG image"),
    (b"RIFF\x00\x01\x00\x00WEBPVP8 ", "girl.ckpt", "is a WebP image"),
    (b"\x93NUMPY\x01\0", "x.npy", "is an array of numpy"),
    (b"\x89HDF\r\n\x1a\n", "x.h5", "is an HDF5 file"),
    (b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "x.safetensors", "is an ONNX model"),
    (b"\x82\xa6params\x81\xa5embed\xc7", "flax_model.msgpack", "is a file of Flax or JAX"),
    (b"%PDF-1.7\n%\xe2\xe3", "x.ckpt", "is a PDF document"),
    (b"L\0\0\0\x01\x14\x02\0\0\0\0\0" + bytes(64), "pixeldit.safetensors.lnk", "is a Windows shortcut"),
    (b"\0\x05\x16\x07\0\x02\0\0" + bytes(64), "._pixeldit.safetensors", "without the ._ in front"),
    (b"[InternetShortcut]\r\nURL=https://huggingface.co/x", "pixeldit.url", "is a shortcut"),
    (b"../../blobs/0f3a9c", "pixeldit.safetensors", "it is a link that was stored as a text"),
    (b"d8:announce35:udp", "pixeldit.torrent", "is a torrent"),
    (b"model:\n  hidden_size: 24\n", "config.yaml", "is a YAML configuration"),
    (b'{"_class_name": "PixelDiTModel", "hidden_size": 24}', "config.json", "is not a checkpoint but a configuration"),
    (json.dumps({"nodes": [], "links": []}).encode(), "flow.json", "is a ComfyUI workflow"),
    (json.dumps({"3": {"class_type": "KSampler", "inputs": {}}}).encode(), "x.ckpt", "is a ComfyUI workflow"),
    (json.dumps({"weight_map": {"x": "y"}}).encode(), "index.json", "but the index of one in several files"),
    (bytes(9000), "x.ckpt", "reserved the space and did not finish"),
    (b"  \n", "x.ckpt", "nothing but blanks"),
])  # fmt: skip
def test_files_of_other_programs(tmp_path, content, name, text):
    message = fails(put(tmp_path, content, name), text)
    assert "damaged" not in message


def test_an_archive_of_numpy_and_programs(tmp_path):
    arrays = {"patch_blocks.0.norm1.weight": np.ones(3), "pixel_embedder.proj.bias": np.ones(3)}
    for save_arrays in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save_arrays(stream, **arrays)
        for name in ("weights.npz", "weights.safetensors", "weights.ckpt"):
            assert "damaged" not in fails(put(tmp_path, stream.getvalue(), name), "archive of numpy arrays (.npz)")
    traced = torch.jit.trace(torch.nn.Linear(3, 3), torch.zeros(1, 3))
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()))
    for program in (traced, scripted):
        for name in ("scripted.pt", "scripted.safetensors"):
            torch.jit.save(program, tmp_path / "program.pt")
            content = (tmp_path / "program.pt").read_bytes()
            assert "damaged" not in fails(put(tmp_path, content, name), "TorchScript", "torch.jit")
    exported = zipped({"archive/archive_format": b"pt2", "archive/models/model.json": b"{}"}, zipfile.ZIP_STORED)
    fails(put(tmp_path, exported, "program.pt2"), "torch.export")


def test_an_optimizer_alone(tiny, tmp_path):
    network = tiny().network
    adam = torch.optim.AdamW(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    for name in ("optimizer.bin", "optimizer.pt", "optimizer_1.bin"):
        torch.save(adam.state_dict(), tmp_path / name)
        fails(tmp_path / name, "optimizer", "model.safetensors or pytorch_model.bin")
    named = {"state": {"a.weight": {"exp_avg": torch.zeros(2), "step": torch.tensor(1.0)}}, "param_groups": []}
    torch.save(named, tmp_path / "optim.pt")
    pc.save_checkpoint(tiny(), tmp_path / "model.safetensors")
    fails(tmp_path / "optim.pt", "is the state of an optimizer", "are in model.safetensors beside it")
    torch.save({"base_lrs": [0.1], "last_epoch": 3}, tmp_path / "scheduler.bin")
    fails(tmp_path / "scheduler.bin", "learning rate scheduler", "model.safetensors beside it")


def test_a_training_s_state_by_its_keys(tmp_path):
    from pixeldit_core.checkpoints.training_state import explain_training_state as explain

    path = tmp_path / "x.bin"
    assert "x.bin is the state of an optimizer" in explain({"state": {0: {}}, "param_groups": []}, path)
    assert "learning rate scheduler" in explain({"base_lrs": [], "last_epoch": 0, "_step_count": 1}, path)
    assert "gradient scaler" in explain({"scale": 1.0, "growth_factor": 2.0, "backoff_factor": 0.5}, path)
    assert "random generators" in explain({"step": 1, "random_state": (), "torch_manual_seed": 0}, path)
    assert explain({"optimizer": {}, "epoch": 3}, path) is None
    assert "without the network's weights" in explain({"optimizer": {}, "epoch": 3}, path, empty=True)
    assert explain({"model": {}, "epoch": 3}, path, empty=True) is None


@pytest.mark.parametrize("encoding", ["gbk", "shift-jis"])
def test_answers_in_old_encodings_are_not_quoted(tmp_path, encoding):
    text = {"gbk": "\u6587\u4ef6\u4e0d\u5b58\u5728", "shift-jis": "\u30d5\u30a1\u30a4\u30eb"}[encoding]
    message = fails(put(tmp_path, text.encode(encoding)), "a server's answer")
    assert "\ufffd" not in message and "It says" not in message


@pytest.mark.parametrize("members, compression", [
    ({"models/pixeldit.safetensors": WHOLE}, zipfile.ZIP_STORED), ({"readme": WHOLE * 9}, zipfile.ZIP_DEFLATED),
])  # fmt: skip
def test_archives_without_their_end(tmp_path, members, compression):
    content = zipped(members, compression)
    message = fails(
        put(tmp_path, content[: len(content) // 2]), "is an archive (zip) that is not complete", "Get it again"
    )
    assert next(iter(members)) in message and "damaged" not in message


def test_a_torch_file_without_its_end_is_no_archive(tmp_path):
    path = tmp_path / "half.ckpt"
    torch.save({"x": torch.ones(3000)}, path)
    fails(put(tmp_path, path.read_bytes()[:5000], "half.ckpt"), "damaged or truncated", "Get the file again")


@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], {3}, collections.OrderedDict()])
def test_pickled_texts_of_other_programs(tmp_path, value):
    fails(
        put(tmp_path, pickle.dumps(value, 0), "model.pkl"), "a pickled file of another program", "nothing of it was run"
    )
