"""LoRAs of every key style onto our MODELs and the host's own PixelDiT."""

import checks_t2i
import tiny_t2i
import torch
from checks_t2i import apply, ksampler
from foreign import foreign_model
from kit import close, core, golden_folder, labels, load_tiny, module, out_of, raises, require, run
from safetensors.torch import load_file, save_file

MODULES = ("patch_blocks.0.attn.qkv_x", "patch_blocks.1.mlp_x.w2", "pixel_blocks.1.adaLN_modulation.0")


def put(name, tensors, metadata=None):
    """A LoRA in models/loras; -> its name."""
    import folder_paths

    folder = out_of("models") / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    if str(folder) not in folder_paths.folder_names_and_paths["loras"][0]:
        folder_paths.folder_names_and_paths["loras"][0].insert(0, str(folder))
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


def merged(found, strength):
    """The core's model with the LoRA in its weights."""
    model = tiny_t2i.core_model()
    state = model.network.state_dict()
    for name, (up, down) in found.items():
        state[f"{name}.weight"] += strength * up @ down
    return model


def check_a_lora_changes_our_model_and_the_hosts_own_alike():
    found = pairs(shapes_of(tiny_t2i.core_model()))
    name = put("peft.safetensors", peft(found))
    models = [tiny_t2i.ours()]
    try:
        models.append(tiny_t2i.native())
    except Exception as error:
        require(type(error).__name__ == "Skipped", error)
    wanted = None
    for model in models:
        before = apply(model)[1]
        patched = run("PixelDiTLoRA", model=model, lora=name, strength=0.5)[0]
        after = apply(patched)[1]
        require((after - before).abs().max() > 1e-2, "the LoRA changes the picture")
        expected = apply(
            checks_t2i.load(core().save_checkpoint(merged(found, 0.5), out_of("files") / "merged.safetensors"))
        )[1]
        close(after, expected, 1e-4)
        close(apply(model)[1], before, 0.0)
        wanted = after if wanted is None else wanted
        close(after, wanted, 1e-4)
        close(apply(run("PixelDiTLoRA", model=patched, lora=name, strength=-0.5)[0])[1], before, 1e-4)
        close(apply(run("PixelDiTLoRA", model=model, lora=name, strength=0.0)[0])[1], before, 1e-6)


def check_key_styles():
    found = pairs(shapes_of(tiny_t2i.core_model()))
    model, expected = tiny_t2i.ours(), None
    for index, prefix in enumerate(("base_model.model.model.", "transformer.", "core.", "diffusion_model.", "")):
        name = put(f"style-{index}.safetensors", peft(found, prefix))
        result = apply(run("PixelDiTLoRA", model=model, lora=name)[0])[1]
        expected = result if expected is None else expected
        close(result, expected, 0.0)
    kohya = {}
    for module_name, (up, down) in found.items():
        start = "lora_unet_" + module_name.replace(".", "_")
        kohya |= {f"{start}.lora_up.weight": up, f"{start}.lora_down.weight": down, f"{start}.alpha": torch.tensor(2.0)}
    close(apply(run("PixelDiTLoRA", model=model, lora=put("kohya.safetensors", kohya))[0])[1], expected, 0.0)


def check_a_class_model_and_ksampler():
    model = load_tiny()
    shapes = {key: tuple(value.shape) for key, value in model.model.diffusion_model.state_dict().items()}
    name = put("classes.safetensors", peft(pairs(shapes, ("patch_blocks.0.attn.qkv", "pixel_blocks.0.mlp.fc1"))))
    options = {"positive": labels([3]), "negative": labels([10])}
    before = ksampler(model, **options)
    after = ksampler(run("PixelDiTLoRA", model=model, lora=name)[0], **options)
    require((after - before).abs().max() > 1e-3)
    close(ksampler(model, **options), before, 0.0)


def check_the_golden_lora():
    folder = golden_folder("madtune-t2i", "peers")
    tensors = load_file(folder / "lora_diffusers" / "pytorch_lora_weights.safetensors")
    from safetensors import safe_open

    with safe_open(folder / "lora_diffusers" / "pytorch_lora_weights.safetensors", "pt") as file:
        name = put("madtune.safetensors", tensors, file.metadata())
    model = checks_t2i.load(
        folder / "model" / "transformer" / "diffusion_pytorch_model.safetensors", "madtune.safetensors"
    )
    patched, lora = module("nodes.host.lora").add_lora(model, module("nodes.host.folders").find_lora(name), 1.0)
    require((lora.applied, lora.total, lora.unknown) == (8, 8, ()))
    require(len(patched.patches) == 8 and not model.patches)


def check_errors():
    model = tiny_t2i.ours()

    def fails(text, name, model=model):
        raises(ValueError, text, run, "PixelDiTLoRA", model=model, lora=name)

    fails("not in models/loras", "nowhere.safetensors")
    one = torch.zeros(2, 2)
    flux = {f"transformer.double_blocks.0.img_attn.qkv.lora_{part}.weight": one for part in "AB"}
    fails("made for Flux", put("flux.safetensors", flux))
    found = pairs(shapes_of(tiny_t2i.core_model()))
    fails("is a whole checkpoint", put("whole.safetensors", tiny_t2i.core_model().network.state_dict()))
    fails("class-conditional", put("c2i.safetensors", peft({"patch_blocks.0.attn.qkv": (one, one)})))
    small = {name: (up[:4], down) for name, (up, down) in found.items()}
    fails("another size of network", put("small.safetensors", peft(small)))
    fails("is no PixelDiT", put("good.safetensors", peft(found)), foreign_model())
    extra = peft(found) | {
        "base_model.model.elsewhere.lora_A.weight": one,
        "base_model.model.elsewhere.lora_B.weight": one,
    }
    patched, lora = module("nodes.host.lora").add_lora(
        model, module("nodes.host.folders").find_lora(put("extra.safetensors", extra)), 1.0
    )
    require((lora.applied, lora.total, len(lora.unknown)) == (3, 4, 1) and len(patched.patches) == 3)
