"""DoRA, LoHa, LoKr and OFT: the patched weight is what the formula of each makes of W, on our MODEL and ComfyUI's."""

import json

import pytest
import tiny_t2i
import torch
from kit import close, has_native, module, run
from loras import put, shapes_of

MODULES = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_x.w2")
ALPHA, RANK = 3.0, 2


def models():
    return [tiny_t2i.ours(), *([tiny_t2i.native()] if has_native() else [])]


def random(*shape, seed=0):
    return 0.3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def weight(model, name):
    """What the network would compute with."""
    model.patch_model(torch.device("cpu"))
    try:
        return model.model.diffusion_model.state_dict()[f"{name}.weight"].clone()
    finally:
        model.unpatch_model(torch.device("cpu"))


def agree(file, make, formula, before, strength=1.0, flat=False, metadata=None):
    """Compare every changed weight.

    make: (rows, columns) -> tensors of a module by part.
    formula: (W, those tensors) -> the changed weight, all float64.
    before: what the file has before the name of a module; flat: "_" for "." in it.
    """
    shapes = shapes_of(tiny_t2i.core_model())
    parts = {name: make(*shapes[f"{name}.weight"]) for name in MODULES}
    paths = {name: before + (name.replace(".", "_") if flat else name) for name in MODULES}
    tensors = {f"{paths[name]}.{part}": value for name in MODULES for part, value in parts[name].items()}
    path = module("nodes.host.folders").find_lora(put(file, tensors, metadata))
    for model in models():
        patched, lora = module("nodes.host.lora").add_lora(model, path, strength)
        assert (lora.applied, lora.total, lora.weights, lora.unknown) == (2, 2, 2, ())
        for name in MODULES:
            start = weight(model, name)
            expected = formula(start.double(), {part: value.double() for part, value in parts[name].items()})
            result = weight(patched, name)
            assert (result - start).abs().max() > 1e-2
            close(result, start + strength * (expected - start), 1e-5)


def low_rank(rows, columns):
    return {"lora_up.weight": random(rows, RANK), "lora_down.weight": random(RANK, columns)}


def test_loha():
    def make(rows, columns):
        parts = {f"hada_w{i}_a": random(rows, RANK, seed=i) for i in (1, 2)}
        return parts | {f"hada_w{i}_b": random(RANK, columns, seed=i) for i in (1, 2)} | {"alpha": torch.tensor(ALPHA)}

    def formula(start, p):
        return start + ALPHA / RANK * (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])

    agree("loha.safetensors", make, formula, "lycoris_", strength=0.7, flat=True)


def test_lokr():
    def make(rows, columns):
        parts = {"lokr_w1": random(4, 1), "lokr_w2_a": random(rows // 4, RANK), "lokr_w2_b": random(RANK, columns)}
        return parts | {"alpha": torch.tensor(ALPHA)}

    def formula(start, p):
        return start + ALPHA / RANK * torch.kron(p["lokr_w1"], p["lokr_w2_a"] @ p["lokr_w2_b"])

    agree("lokr.safetensors", make, formula, "diffusion_model.", strength=0.7)
    agree(
        "lokr-full.safetensors",
        lambda rows, columns: {"lokr_w1": random(4, 1), "lokr_w2": random(rows // 4, columns)},
        lambda start, p: start + torch.kron(p["lokr_w1"], p["lokr_w2"]),
        "lora_unet_",
        flat=True,
    )


def test_oft():
    def formula(start, p):
        skew = p["oft_blocks"] - p["oft_blocks"].transpose(1, 2)
        identity = torch.eye(skew.shape[1], dtype=skew.dtype)
        rotation = (identity + skew) @ torch.linalg.inv(identity - skew)  # Cayley
        blocks = start.unflatten(0, skew.shape[:2])
        return (rotation.transpose(1, 2) @ blocks).flatten(0, 1)

    agree("oft.safetensors", lambda rows, columns: {"oft_blocks": random(rows // 4, 4, 4)}, formula, "transformer.")


def test_dora_by_column_as_kohya_writes_it():
    def make(rows, columns):
        return low_rank(rows, columns) | {"alpha": torch.tensor(ALPHA), "dora_scale": 1 + random(1, columns)}

    def formula(start, p):
        merged = start + ALPHA / RANK * p["lora_up.weight"] @ p["lora_down.weight"]
        return p["dora_scale"] * merged / merged.norm(dim=0, keepdim=True)

    for strength in (1.0, 0.5):
        agree("dora.safetensors", make, formula, "lora_unet_", strength, flat=True)


def test_dora_by_row_as_peft_writes_it_with_rslora():
    def make(rows, columns):
        return {
            "lora_A.weight": random(RANK, columns),
            "lora_B.weight": random(rows, RANK),
            "lora_magnitude_vector": 1 + random(rows),
        }

    def formula(start, p):
        merged = start + ALPHA / RANK**0.5 * p["lora_B.weight"] @ p["lora_A.weight"]
        return p["lora_magnitude_vector"][:, None] * merged / merged.norm(dim=1, keepdim=True)

    settings = {"lora_adapter_metadata": json.dumps({"r": RANK, "lora_alpha": ALPHA, "use_rslora": True})}
    for strength in (1.0, 0.5):
        agree("peft-dora.safetensors", make, formula, "base_model.model.", strength, metadata=settings)


def loha(rows, columns):
    parts = {f"hada_w{i}_a": random(rows, RANK, seed=i) for i in (1, 2)}
    return parts | {f"hada_w{i}_b": random(RANK, columns, seed=i) for i in (1, 2)}


def agree_named(before, flat, adapter):
    """LoHa of a named adapter with PEFT's settings in the header, which are for what PEFT writes."""
    scale = 1.0 if flat else ALPHA / RANK

    def make(rows, columns):
        return {f"{part}{adapter}": value for part, value in loha(rows, columns).items()}

    def formula(start, p):
        first, second = (p[f"hada_w{i}_a{adapter}"] @ p[f"hada_w{i}_b{adapter}"] for i in (1, 2))
        return start + scale * first * second

    settings = {"lora_adapter_metadata": json.dumps({"r": RANK, "alpha": ALPHA})}
    agree("wrapped.safetensors", make, formula, before, flat=flat, metadata=settings)


def test_names_with_wrappers_and_adapters():
    for before in ("base_model.model._orig_mod.", "lycoris__orig_mod_", "lora_unet__fsdp_wrapped_module_"):
        for adapter in ("", ".ink-wash", ".v1.2"):
            agree_named(before, before.endswith("_"), adapter)


def test_dora_of_a_named_adapter():
    def make(rows, columns):
        parts = {"lora_A": random(RANK, columns), "lora_B": random(rows, RANK)}
        named = {f"{part}.weight.weight": value for part, value in parts.items()}  # an adapter called "weight"
        return named | {"lora_magnitude_vector.weight.weight": 1 + random(rows)}

    def formula(start, p):
        up, down, magnitude = (p[f"{part}.weight.weight"] for part in ("lora_B", "lora_A", "lora_magnitude_vector"))
        merged = start + up @ down
        return magnitude[:, None] * merged / merged.norm(dim=1, keepdim=True)

    agree("named-dora.safetensors", make, formula, "base_model.model.")


def test_unknown_modules_are_counted():
    parts = {"lokr_w1": torch.eye(2), "lokr_w2": torch.zeros(48, 16)}
    names = ("patch_blocks.0.attn.qkv_x", "elsewhere")
    path = put("extra-lokr.safetensors", {f"{name}.{part}": parts[part].clone() for name in names for part in parts})
    path = module("nodes.host.folders").find_lora(path)
    lora = module("nodes.host.lora").add_lora(tiny_t2i.ours(), path, 1.0)[1]
    assert (lora.applied, lora.total, lora.weights, lora.unknown) == (1, 2, 1, ("elsewhere",))


def refused(tensors, text, model=None):
    with pytest.raises(ValueError, match=text):
        run("PixelDiTLoRA", model=model or tiny_t2i.ours(), lora_name=put("refused.safetensors", tensors))


def test_errors():
    name, half = "pixel_blocks.0.adaLN_modulation.0", "pixel_blocks.0.adaLN_modulation_msa"
    lokr = {"lokr_w1": torch.eye(2), "lokr_w2": torch.zeros(4, 16)}
    refused({f"double_blocks.0.img_attn.qkv.{part}": value for part, value in lokr.items()}, "none of its 1 modules")
    refused({f"{half}.{part}": value for part, value in lokr.items()}, "Load the model with Load Diffusion Model")
    refused({f"{MODULES[0]}.{part}": value for part, value in lokr.items()}, "made for another size of network")
    refused({f"{MODULES[0]}.lokr_w1": torch.eye(2)}, "do not make a matrix")
    blocks = {f"{MODULES[0]}.oft_blocks": torch.zeros(24, 4, 4)}
    refused(blocks | {f"{MODULES[0]}.rescale": torch.ones(96, 1)}, "rescale, which is not read")
    refused({f"{MODULES[0]}.oft_blocks": torch.zeros(2, 24, 4, 4)}, "is BOFT, which is not read")
    refused({f"{MODULES[0]}.hada_t1": torch.zeros(2, 2, 1, 1)}, "hada_t1, which is not read")
    if has_native():
        refused(
            {f"{name}.{part}": lokr[part] for part in lokr}, "Load the model with PixelDiT Loader", tiny_t2i.native()
        )
    two = {f"{MODULES[0]}.{part}{name}": value.clone() for part, value in loha(96, 24).items() for name in (".a", ".b")}
    refused(two, 'has 2 adapters: "a", "b"')
    both = {f"patch_blocks.0.{piece}attn.qkv_x.lokr_w1": torch.eye(2) for piece in ("", "_orig_mod.")}
    refused(both, "two tensors for patch_blocks.0.attn.qkv_x.lokr_w1")
    refused({f"{MODULES[0]}.weight": torch.eye(2)} | {f"{MODULES[0]}.{p}": v for p, v in lokr.items()}, "is not read")
    refused({f"layers.3.self_attn.v_proj.{part}": value for part, value in lokr.items()}, "for a text encoder")
