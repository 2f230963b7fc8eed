"""PixelDiT2 as a MODEL: tiny networks with random weights, the golden ones, and files of their encoders."""

import shutil

import torch
from kit import core, golden, golden_folder, load, out_of
from safetensors.torch import load_file, save_file

PLACE = "dino_conditioner.encoder."
SIZES = {
    "hidden_size": 16, "num_heads": 2, "depth": 3, "patch_size": 4, "num_classes": 5, "in_context_len": 3,
    "in_context_start": 2, "mlp_hidden_size": 42, "encoder_dim": 16, "encoder_depth": 2, "encoder_num_heads": 1,
    "grounding_proj_heads": 2,
}  # fmt: skip


def core_model(**changes):
    """A network with random weights, of sizes that its shapes determine or that are guessed rightly."""
    params = core().PixelDiT2Params(**SIZES | changes)
    model = core().build_model("pixeldit2", params, device="cpu", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            around = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(around + 0.15 * torch.randn(parameter.shape, generator=generator))
    return model


def written(model, name, **options):
    """A file of it in models/diffusion_models; -> its path."""
    path = out_of("models") / "diffusion_models" / name
    path.unlink(missing_ok=True)
    core().save_checkpoint(model, path, **options)
    refresh()
    return path


def refresh():
    import folder_paths

    folder_paths.filename_list_cache.clear()


def pixeldit2(name="pixeldit2.safetensors", options=None, **changes):
    """A float32 MODEL with its encoder inside of the file."""
    folder = out_of("files")
    folder.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    return load(core().save_checkpoint(core_model(**changes), folder / name), **options or {})


def clip_vision():
    """An empty models/clip_vision, the only one that ComfyUI looks into."""
    import folder_paths

    folder = out_of("models") / "clip_vision"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder_paths.folder_names_and_paths["clip_vision"] = ([str(folder)], {".safetensors", ".pth"})
    refresh()
    return folder


def encoder_tensors(model):
    """The encoder of a network under timm's names."""
    state = model.network.state_dict()
    return {key.removeprefix(PLACE): value.clone() for key, value in state.items() if key.startswith(PLACE)}


def put_encoder(model, path):
    """The file of its encoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(encoder_tensors(model), path)
    refresh()
    return path


def of_case(name):
    """A golden case: its JSON, inputs, outputs, the core's model and a file of it."""
    case, inputs, outputs = golden(name, "pixeldit2")
    config, encoder = case["config"], case["encoder_config"]
    stored = load_file(golden_folder(name, "pixeldit2") / case.get("checkpoint", "checkpoint.safetensors"))
    family = core().FAMILIES["pixeldit2"]
    shapes = {key: tuple(value.shape) for key, value in stored.items()}
    values = family.params_from(shapes) | {
        "in_context_start": config["in_context_start"],
        "encoder_num_heads": encoder["num_heads"],
        "single_silu_cond": config["single_silu_cond"],
        "noise_scale": case.get("sampler_settings", {}).get("noise_scale", 1.0),
    }
    model = core().build_model("pixeldit2", family.params(**values), device="cpu", dtype=torch.float32)
    model.network.load_state_dict(stored)
    folder = out_of("files")
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.unlink(missing_ok=True)
    return case, inputs, outputs, model, core().save_checkpoint(model, path)


def count_rows(model):
    """Numbers of rows that the network and the encoder of a MODEL are called with: two lists that hooks fill."""
    network, seen = model.model.diffusion_model, {"network": [], "encoder": []}
    network.register_forward_pre_hook(lambda _, arguments: seen["network"].append(len(arguments[0])))
    encoder = network.dino_conditioner.encoder
    encoder.register_forward_pre_hook(lambda _, arguments: seen["encoder"].append(len(arguments[0])))
    return seen
