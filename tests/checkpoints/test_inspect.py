"""Inspecting a file by its header, its metadata, and reading what is stored."""

import json
import struct

import pytest
import torch
from checkpoints.files import rewrite_metadata
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.locate import find_source
from pixeldit_core.checkpoints.read import read_source_shapes


@pytest.mark.parametrize(
    "about, reason",
    [
        ("{", 'metadata entry "pixeldit" is not readable'),
        ("[]", 'metadata entry "pixeldit" is not readable'),
        ('{"params": {"hidden_size": 48}}', "its metadata says hidden_size = 48, its tensors say 24"),
        ('{"params": {"magic": 1}}', 'its metadata has "magic"'),
        ('{"params": 3}', 'metadata entry "pixeldit" is not readable'),
        ('{"settings": {"steps": "many"}}', 'metadata entry "pixeldit" is not readable'),
        ('{"settings": {"steps": 0, "cfg": 1}}', "steps >= 1"),
        ('{"class_names": ["a", "b"]}', "2 class names for 12 classes"),
        ('{"class_names": 5}', 'metadata entry "pixeldit" is not readable'),
        ('{"family": "sd"}', '"sd"'),
    ],
)
def test_wrong_metadata_is_refused(tiny_file, about, reason):
    rewrite_metadata(tiny_file, lambda metadata: metadata.update(pixeldit=about))
    with pytest.raises(ValueError, match=reason) as error:
        pc.load_checkpoint(tiny_file)
    assert "tiny.safetensors" in str(error.value)
    assert reason in pc.inspect_checkpoint(tiny_file).refused


def test_inspecting_reads_the_header_only(tmp_path):
    """A file of gigabytes that has a header and a hole: to read its tensors would take their memory."""
    model = pc.build_model("pixeldit", "PixelDiT-XL")
    header, end = {}, 0
    for key, value in model.network.state_dict().items():
        size = value.numel() * 4
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path = tmp_path / "xl.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    before = peak_memory()
    info = pc.inspect_checkpoint(path)
    assert info.count == 797_383_203 and info.params == pc.VARIANTS["PixelDiT-XL"].params.__class__(
        **{**vars(pc.VARIANTS["PixelDiT-XL"].params), "mlp_hidden_size": 3072, "pixel_attn_hidden_size": 1152,
           "pixel_num_groups": 16}
    )  # fmt: skip
    assert info.class_names[207] == pc.inspect_checkpoint(path).class_names[207]
    assert peak_memory() - before < 200e6
    assert path.stat().st_size > 3e9
    path.unlink()


def peak_memory():
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_read_checkpoint_gives_what_is_stored(tiny, tmp_path):
    state = {"a.b": torch.ones(2, 3), "vae.c": torch.zeros(1, dtype=torch.float16)}
    save_file(state, tmp_path / "x.safetensors", {"author": "me"})
    tensors, metadata = pc.read_checkpoint(tmp_path / "x.safetensors")
    assert metadata == {"author": "me"} and set(tensors) == set(state)
    assert all(torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype for key, value in state.items())
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [torch.zeros(2)]}, tmp_path / "x.ckpt")
    tensors, metadata = pc.read_checkpoint(tmp_path / "x.ckpt")
    assert set(tensors) == set(state) and metadata == {"epoch": "3"}
    shapes, dtypes, _ = read_source_shapes(find_source(tmp_path / "x.safetensors"))
    assert shapes == {"a.b": (2, 3), "vae.c": (1,)} and dtypes["vae.c"] == torch.float16
