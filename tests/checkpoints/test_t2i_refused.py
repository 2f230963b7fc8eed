"""Text-to-image files with missing, misshapen or contradictory tensors."""

import pytest
import torch
from checkpoints.files import prefixed
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.comfy_adaln import split_tensors

MODULATION = "pixel_blocks.0.adaLN_modulation"


def fails(path, *expected_texts):
    """Loading raises ValueError with the file's name and all of `expected_texts`; inspecting refuses alike."""
    with pytest.raises(ValueError) as error:
        pc.load_checkpoint(path)
    message = str(error.value)
    for text in (path.name, *expected_texts):
        assert text in message, message
    info = pc.inspect_checkpoint(path)
    assert info.refused == message and info.family is None


@pytest.mark.parametrize("kind", ["weight", "bias"])
@pytest.mark.parametrize("half", ["msa", "mlp"])
@pytest.mark.parametrize("prefix", ["core.", "", "model.diffusion_model."])
def test_a_missing_half_is_named(tiny_t2i, tmp_path, prefix, half, kind):
    stored = prefixed(prefix, split_tensors(tiny_t2i().network.state_dict()))
    del stored[f"{prefix}{MODULATION}_{half}.{kind}"]
    path = tmp_path / "half.safetensors"
    save_file(stored, path)
    fails(path, f"{MODULATION}", kind)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("kind", ["weight", "bias"])
@pytest.mark.parametrize("half", ["msa", "mlp"])
@pytest.mark.parametrize("change", ["a row less", "a pixel less", "a pixel more", "no rows", "a column more"])
def test_a_half_of_the_wrong_size_is_named(tiny_t2i, tmp_path, change, half, kind, both):
    stored = split_tensors(tiny_t2i().network.state_dict())
    for name in ("msa", "mlp") if both else (half,):
        value = stored[f"{MODULATION}_{name}.{kind}"]
        stored[f"{MODULATION}_{name}.{kind}"] = {
            "a row less": value[:-1],
            "a pixel less": value[:-12],
            "a pixel more": torch.cat([value, value[:12]]),
            "no rows": value[:0],
            "a column more": torch.cat([value, value[..., :1]], dim=-1),
        }[change].clone()
    path = tmp_path / "wrong.safetensors"
    save_file(prefixed("core.", stored), path)
    fails(path, MODULATION)


@pytest.mark.parametrize("key", [f"{MODULATION}_msa.bias", "pixel_embedder.proj.weight"])
def test_a_number_in_place_of_a_split_tensor_is_named(tiny_t2i, tmp_path, key):
    stored = split_tensors(tiny_t2i().network.state_dict())
    for name in {key, key.replace("_msa", "_mlp")}:
        stored[name] = torch.zeros(())
    path = tmp_path / "number.safetensors"
    save_file(stored, path)
    fails(path, key.split("_msa")[0])


def test_both_a_whole_and_its_halves_is_a_contradiction(tiny_t2i, tmp_path):
    state = tiny_t2i().network.state_dict()
    path = tmp_path / "both.safetensors"
    save_file(split_tensors(state) | {key: value + 1 for key, value in state.items()}, path)
    fails(path, MODULATION)


PARTS = [
    "y_pos_embedding",
    "y_embedder.norm.weight",
    "patch_blocks.0.attn.q_norm_x.weight",
    "patch_blocks.1.attn.k_norm_y.weight",
    "patch_blocks.1.attn.proj_y.bias",
    "patch_blocks.1.adaLN_modulation_txt.0.weight",
    "pixel_blocks.1.adaLN_modulation.0.weight",
    "pixel_blocks.0.attn.proj.bias",
    "final_layer.linear.weight",
]


@pytest.mark.parametrize("key", PARTS[1:])
def test_a_missing_tensor_is_named(tiny_t2i, tmp_path, key):
    """Also where it has no effect on the image, as the text half of the last block."""
    state = prefixed("core.", tiny_t2i().network.state_dict())
    del state["core." + key]
    path = tmp_path / "changed.safetensors"
    save_file(state, path)
    fails(path, key, "incomplete")


@pytest.mark.parametrize("key", PARTS[1:])
def test_a_misshapen_tensor_is_named(tiny_t2i, tmp_path, key):
    state = tiny_t2i().network.state_dict()
    wrong = torch.zeros(*state[key].shape[:-1], state[key].shape[-1] + 1)
    path = tmp_path / "changed.safetensors"
    save_file(prefixed("core.", state | {key: wrong}), path)
    sizes = {  # read from these
        "pixel_blocks.0.attn.proj.bias": "pixel_attn_hidden_size 17 does not divide",
        "patch_blocks.0.attn.q_norm_x.weight": "patch_blocks.0.attn",
    }
    fails(path, sizes.get(key, key))


def test_without_its_text_positions_it_is_no_network_that_we_know(tiny_t2i, tmp_path):
    state = tiny_t2i().network.state_dict()
    del state["y_pos_embedding"]
    path = tmp_path / "changed.safetensors"
    save_file(state, path)
    fails(path, "is not a PixelDiT checkpoint", "final_layer.linear.bias")
