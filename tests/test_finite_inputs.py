"""NaN and infinity in what is sampled from: named at the input that has them, before the network is called."""

import math

import pytest
import torch

import pixeldit_core as pc


def broken(*shape):
    tensor = torch.rand(shape)
    tensor.view(-1)[0] = math.nan
    tensor.view(-1)[-1] = math.inf
    return tensor


@pytest.mark.parametrize("name", ["image", "mask", "noise"])
def test_inputs_that_are_not_finite(tiny, calls, name):
    model = tiny()
    size = model.spec.default_size
    inputs = {"image": torch.zeros(1, 3, *size), "mask": torch.ones(1, 1, *size), "noise": torch.zeros(1, 3, *size)}
    inputs[name] = broken(*inputs[name].shape)
    network_calls = calls(model)
    with pytest.raises(ValueError, match=f"the {name} is not finite: 2 of its [0-9,]+ values are NaN or infinity"):
        pc.sample(model, pc.class_condition(model, [1]), **inputs)
    assert not network_calls


def test_texts_that_are_not_finite(tiny_t2i):
    model = tiny_t2i()
    good, bad = (pc.text_condition(model, make(1, 5, model.params.txt_embed_dim)) for make in (torch.rand, broken))
    with pytest.raises(ValueError, match="the condition is not finite"):
        pc.sample(model, bad, good, steps=1)
    with pytest.raises(ValueError, match="the null condition is not finite"):
        pc.sample(model, good, bad, steps=1)
