"""Quantised files: what is found in a header, exact numbers, pictures as from plain weights, and broken ones."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.checkpoints.quantised import dequantise, find_quantised

STYLES = {
    "fp8-scaled": "fp8",
    "fp8-metadata": "fp8",
    "fp8-old": "fp8",
    "fp8-plain": "fp8",
    "mxfp8": "mxfp8",
    "int8": "int8",
    "int8-convrot": "int8",
}


def file_of(golden, style):
    case = golden(f"comfy-t2i-{style}", "peers")
    return case, case.folder / "checkpoint.safetensors"


def header(tensors):
    return {key: value.dtype for key, value in tensors.items()}, {k: tuple(v.shape) for k, v in tensors.items()}


@pytest.mark.parametrize("style, kind", STYLES.items())
def test_every_number_is_exact(golden, style, kind):
    case, path = file_of(golden, style)
    tensors, metadata = pc.read_checkpoint(path)
    found = find_quantised(*header(tensors), metadata)
    assert found == {f"core.{layer}.weight": kind for layer in case.case["quantized_layers"]}
    wanted = {key.removeprefix("dequant."): value for key, value in case.outputs.items() if key.startswith("dequant.")}
    assert len(wanted) == 6
    for key, value in wanted.items():
        got = dequantise("core." + key, tensors, metadata, tuple(value.shape))
        assert got.dtype == torch.float32 and torch.equal(got, value), key
        half = dequantise("core." + key, tensors, metadata, tuple(value.shape), torch.bfloat16)
        assert torch.equal(half, value.to(torch.bfloat16))


@pytest.mark.usefixtures("reference_processor")
@pytest.mark.parametrize("style, kind", STYLES.items())
def test_a_quantised_file_paints_as_its_plain_numbers(golden, style, kind):
    case, path = file_of(golden, style)
    model = pc.load_checkpoint(path)
    given = case.inputs
    velocity = model.network(given["x"], given["timesteps"], given["context"])
    tolerance = case.case["suggested_atol_velocity"]
    torch.testing.assert_close(velocity, case.outputs["velocity"], atol=tolerance, rtol=0)
    info = pc.inspect_checkpoint(path)
    assert (info.quantisation, info.refused, info.dtype, info.params) == (kind, None, torch.float32, model.params)
    assert info.count == sum(parameter.numel() for parameter in model.network.parameters())
