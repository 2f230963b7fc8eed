"""LoRA files in every style of names, and the weights they give."""

import pytest
import torch
from safetensors.torch import save_file

import pixeldit_core as pc

RANK, ALPHA = 3, 2.0

PATHS = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_y.w2", "patch_blocks.1.adaLN_modulation_img.0")
PATHS += ("pixel_blocks.0.attn.proj", "pixel_blocks.1.mlp.fc1", "t_embedder.mlp.2", "y_embedder.proj")

MODULATION = "pixel_blocks.1.adaLN_modulation"


def shapes_of(model):
    return {key: tuple(value.shape) for key, value in model.network.state_dict().items()}


def random_pair(out, into, rank=RANK, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in ((out, rank), (rank, into))]


def pairs_for(shapes, paths=PATHS):
    return {path: random_pair(*shapes[f"{path}.weight"], seed=seed) for seed, path in enumerate(paths)}


def written(pairs, before="diffusion_model.", up="lora_up.weight", down="lora_down.weight", alpha=ALPHA, flat=False):
    """A LoRA's tensors in a style of names."""
    tensors = {}
    for path, pair in pairs.items():
        name = before + (path.replace(".", "_") if flat else path)
        tensors |= {f"{name}.{up}": pair[0], f"{name}.{down}": pair[1]}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return {key: value.clone().contiguous() for key, value in tensors.items()}  # files want no shared memory


def saved(path, tensors, metadata=None):
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata)
    else:
        torch.save(tensors, path)
    return path


def expected(model, pairs, scale=ALPHA / RANK):
    """The weights by the formula, in double precision."""
    state = dict(model.network.state_dict())
    for path, (up, down) in pairs.items():
        added = scale * up.double() @ down.double()
        state[f"{path}.weight"] = (state[f"{path}.weight"].double() + added).float()
    return state


def agree(model, state):
    own = model.network.state_dict()
    assert set(own) == set(state)
    for key, value in own.items():
        torch.testing.assert_close(value, state[key], atol=2e-6, rtol=1e-6, msg=key)


UP_DOWN = {"up": "lora_up.weight", "down": "lora_down.weight"}

DOTTED = {"up": "lora.up.weight", "down": "lora.down.weight"}

PEFT = {"up": "lora_B.weight", "down": "lora_A.weight"}

NAMED = {"up": "lora_B.default.weight", "down": "lora_A.default.weight"}

STYLES = [
    dict(before="diffusion_model.", **UP_DOWN),
    dict(before="diffusion_model.", **DOTTED),
    dict(before="diffusion_model.", **PEFT),
    dict(before="lora_unet_", flat=True, **UP_DOWN),
    dict(before="lora_unet_", flat=True, **PEFT),
    dict(before="lora_unet_core_", flat=True, **UP_DOWN),
    dict(before="lycoris_", flat=True, **UP_DOWN),
    dict(before="base_model.model.", **PEFT),
    dict(before="base_model.model.model.", **PEFT),
    dict(before="base_model.model.model.", **NAMED),
    dict(before="base_model.model.core.", **NAMED),
    dict(before="model.", **PEFT),
    dict(before="transformer.", **PEFT),
    dict(before="transformer.", up="lora_linear_layer.up.weight", down="lora_linear_layer.down.weight"),
    dict(before="transformer.core.", **PEFT),
    dict(before="core.", **PEFT),
    dict(before="", **PEFT),
    dict(before="", **UP_DOWN),
    dict(before="model.diffusion_model.core.", **UP_DOWN),
    dict(before="module._orig_mod.core.", **PEFT),
    dict(before="ema_denoiser.", **PEFT),
]


def whole_pair(model, rank=RANK, seed=0):
    return random_pair(*shapes_of(model)[f"{MODULATION}.0.weight"], rank, seed)


def halves_of(pair, channels=4):
    """By the formula of the rows: pixel q, map k and channel c are row q * 6C + k * C + c."""
    up, down = pair
    rows = torch.arange(len(up))
    first = rows // channels % 6 < 3
    return {f"{MODULATION}_msa": [up[first], down], f"{MODULATION}_mlp": [up[~first], down]}


def fails(model, path, *expected_texts):
    """Applying raises ValueError with all of `expected_texts`, and leaves the model as it was."""
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    with pytest.raises(ValueError) as error:
        pc.apply_lora(model, path)
    for text in expected_texts:
        assert text in str(error.value), str(error.value)
    assert str(error.value).endswith(".")
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())
