"""Writing state dicts as files, comparing a model with one, and expecting a refusal."""

import json
import struct

import pytest
import torch
from safetensors.torch import save_file

import pixeldit_core as pc


def prefixed(prefix, state):
    return {prefix + key: value.contiguous() for key, value in state.items()}


def write(path, state, **others):
    """A file of this state dict: safetensors by its suffix, else torch's with `others` beside."""
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save({"state_dict": state, **others}, path)
    return path


def same(model, state):
    own = model.network.state_dict()
    return set(own) == set(state) and all(torch.equal(value, state[key]) for key, value in own.items())


def fails(path, *expected_texts):
    """Loading and reading raise ValueError with the file's name and all `expected_texts`; inspecting refuses alike."""
    with pytest.raises(ValueError) as raised:
        pc.load_checkpoint(path)
    message = str(raised.value)
    assert path.name in message
    for text in expected_texts:
        assert text in message, message
    try:
        refused = pc.inspect_checkpoint(path).refused
    except ValueError as error:
        refused = str(error)
    assert refused == message
    return message


def golden_weights(case):
    """The weights of a golden case: a file of its own, or that in its diffusers folder."""
    path, *others = [*case.folder.glob("checkpoint.*"), *case.folder.glob("model/transformer/*.safetensors")]
    assert not others
    return path


def rewrite_metadata(path, change):
    """Change the metadata of a .safetensors file, a dict, in place."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
