"""LoRA files in the key styles of their writers."""

import torch
from kit import out_of
from safetensors.torch import save_file

MODULES = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_x.w2", "pixel_blocks.1.adaLN_modulation.0")


def put(name, tensors, metadata=None):
    """A LoRA in models/loras; -> its name."""
    import folder_paths

    folder = out_of("models") / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    if str(folder) not in folder_paths.folder_names_and_paths["loras"][0]:
        folder_paths.folder_names_and_paths["loras"][0].insert(0, str(folder))
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name, metadata)
    folder_paths.filename_list_cache.clear()
    return name


def pairs(shapes, modules=MODULES, rank=2):
    """A random LoRA: (up, down) by module."""
    generator = torch.Generator().manual_seed(5)
    found = {}
    for name in modules:
        rows, columns = shapes[f"{name}.weight"]
        up, down = (0.3 * torch.randn(size, generator=generator) for size in ((rows, rank), (rank, columns)))
        found[name] = (up, down)
    return found


def peft(found, prefix="base_model.model."):
    tensors = {f"{prefix}{name}.lora_B.weight": up for name, (up, _) in found.items()}
    return tensors | {f"{prefix}{name}.lora_A.weight": down for name, (_, down) in found.items()}


def shapes_of(model):
    return {key: tuple(value.shape) for key, value in model.network.state_dict().items()}
