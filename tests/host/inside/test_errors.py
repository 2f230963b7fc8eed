"""Bad input: a clear error that names what is wrong, and what to do; the next run works."""

import os
import pickle
import re
import zipfile

import pytest
import torch
from class_model import guided, ksampler, picture, pixeldit
from foreign import foreign_model
from kit import classes_of, core, empty, labels, load_tiny, out_of, put, run, sampler_net
from safetensors.torch import save_file


def file(name, content=None, tensors=None):
    """A file in models/diffusion_models; -> its name."""
    path = out_of("models") / "diffusion_models" / name
    if tensors is not None:
        save_file(tensors, path)
    else:
        path.write_bytes(content)
    import folder_paths

    folder_paths.filename_list_cache.clear()
    return name


def loads(name):
    return run("PixelDiTLoader", checkpoint=name)


def tiny_tensors():
    return dict(core().load_checkpoint(sampler_net()).network.state_dict())


def test_files_that_are_no_checkpoints():
    whole = sampler_net().read_bytes()
    with pytest.raises(ValueError, match=re.escape("empty.ckpt is empty")):
        loads(file("empty.ckpt", b""))
    with pytest.raises(ValueError, match=re.escape("text.ckpt is not a checkpoint")):
        loads(file("text.ckpt", b"hello, this is a text file"))
    with pytest.raises(ValueError, match=re.escape("cut.ckpt is damaged or truncated")):
        loads(file("cut.ckpt", whole[: len(whole) // 2]))
    saved = out_of("models") / "diffusion_models" / "whole.safetensors"
    save_file(tiny_tensors(), saved)
    with pytest.raises(ValueError, match="damaged or truncated"):
        loads(file("cut.safetensors", saved.read_bytes()[:-100]))
    with pytest.raises(ValueError, match="web page"):
        loads(file("page.safetensors", b"<!DOCTYPE html><html>404</html>"))
    with pytest.raises(ValueError, match="is not in models/"):
        loads("no-such-file.safetensors")


def test_a_pickle_that_would_run_code_does_not():
    marker = out_of("temp") / "ran"
    marker.parent.mkdir(exist_ok=True)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    path = out_of("models") / "diffusion_models" / "evil.ckpt"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(ValueError, match="(?i)nothing of it was run"):
        loads(file("evil.ckpt", path.read_bytes()))
    with pytest.raises(ValueError, match="(?i)nothing of it was run"):
        loads(file("old.ckpt", pickle.dumps({"state_dict": Evil()})))
    assert not marker.exists(), "the pickle ran"
    assert zipfile.is_zipfile(path)


def test_other_kinds_are_named():
    one = torch.zeros(2, 2)
    for name, key, title in (
        ("pid", "net.lq_proj.latent_proj.0.weight", "PiD"),
        ("two", "ema_denoiser.in_context_posemb", "PixelDiT2"),
        ("lora", "diffusion_model.patch_blocks.0.attn.qkv.lora_A.weight", "LoRA"),
        ("other", "some.layer.weight", "not a PixelDiT checkpoint"),
    ):
        with pytest.raises(ValueError, match=re.escape(title)):
            loads(file(f"{name}.safetensors", tensors={key: one}))


def test_strict_loading_names_the_tensor():
    tensors = tiny_tensors()
    missing = {key: value for key, value in tensors.items() if key != "patch_blocks.1.norm2.weight"}
    with pytest.raises(ValueError, match=re.escape("patch_blocks.1.norm2.weight")):
        loads(file("missing.safetensors", tensors=missing))
    extra = {**tensors, "patch_blocks.0.attn.extra.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=re.escape("patch_blocks.0.attn.extra.weight")):
        loads(file("extra.safetensors", tensors=extra))
    wrong = {**tensors, "final_layer.linear.bias": torch.zeros(4)}
    with pytest.raises(ValueError, match=re.escape("final_layer.linear.bias is [4], expected [3]")):
        loads(file("wrong.safetensors", tensors=wrong))


def test_class_labels():
    model = load_tiny()

    def label(**options):
        return run("PixelDiTClassLabel", model=model, **{"class_name": "3", **options})

    with pytest.raises(ValueError, match="out of range"):
        label(classes="11")
    with pytest.raises(ValueError, match="10 classes"):
        label(class_name="207: golden retriever")
    with pytest.raises(ValueError, match="no class names"):
        label(classes="tabby cat")
    with pytest.raises(ValueError, match="backwards"):
        label(classes="7-3")
    assert classes_of(label(classes="10")[0]) == [10], "no class is allowed"
    assert classes_of(label(classes="1, 3-5")[0]) == [1, 3, 4, 5]
    assert classes_of(label()[1]) == [10], "null is the last row"
    with pytest.raises(ValueError, match="has no classes"):
        run("PixelDiTClassLabel", model=foreign_model(), class_name="3")


def test_imagenet_labels():
    """A network of 1,000 classes has ImageNet's names; both cranes and both maillots are distinct."""
    pc = core()
    params = pc.PixelDiTParams(16, 2, 1, 1, patch_size=4, pixel_hidden_size=4)
    model = pc.build_model("pixeldit", params, device="cpu")
    for parameter in model.network.parameters():
        parameter.data.normal_(0, 0.02)
    path = out_of("models") / "diffusion_models" / "thousand.safetensors"
    pc.save_checkpoint(model, path)
    import folder_paths

    folder_paths.filename_list_cache.clear()
    model = loads("thousand.safetensors")[0]

    def index(**options):
        positive, null = run("PixelDiTClassLabel", model=model, **{"class_name": "207: golden retriever", **options})
        assert classes_of(null) == [1000]
        return classes_of(positive)

    assert index() == [207] and index(classes="tabby cat, 1") == [281, 1]
    from kit import node

    options = node("PixelDiTClassLabel").GET_NODE_INFO_V1()["input"]["required"]["class_name"][1]["options"]
    for number, word in ((134, "crane"), (517, "crane"), (638, "maillot"), (639, "maillot")):
        # the list has the bundled models' entries too, with the same numbers
        (entry,) = (option for option in options if option.startswith(f"{number}: ") and word in option)
        assert index(class_name=entry) == [number], entry
    assert len(set(options)) == len(options)
    with pytest.raises(ValueError, match=re.escape('"134: crane (bird)", "517: crane (machine)"')):
        index(classes="crane")
    with pytest.raises(ValueError, match="golden retriever"):
        index(classes="golden retreiver")
    with pytest.raises(ValueError, match="1000 classes"):
        index(classes="1001")


def test_conditioning_of_another_kind():
    model = load_tiny()
    text = [[torch.zeros(1, 7, 16), {}]]
    with pytest.raises(ValueError, match="PixelDiT Class Label"):
        pixeldit(model, positive=text)
    with pytest.raises(ValueError, match="PixelDiT Class Label"):
        ksampler(model, positive=text)
    with pytest.raises(ValueError, match="is for a model with 1000 classes; .* has 10"):
        ksampler(model, positive=labels([700], 1000))
    with pytest.raises(ValueError, match="negative input"):
        pixeldit(foreign_model(), positive=text, negative=None)


def test_sampler_settings():
    model = load_tiny()
    with pytest.raises(ValueError, match="nearest that does is 16 x 20"):
        pixeldit(model, width=15, height=21)
    with pytest.raises(ValueError, match=re.escape("interval is 0.9 to 0.1")):
        pixeldit(model, cfg_interval_start=0.9, cfg_interval_end=0.1)
    with pytest.raises(ValueError, match=re.escape("interval is 0.5 to 0.5")):
        guided(model, 0.5, 0.5)
    with pytest.raises(ValueError, match="steps is 0"):
        pixeldit(model, steps=0)
    with pytest.raises(ValueError, match="steps is 0"):
        run("PixelDiTScheduler", model=model, steps=0)
    with pytest.raises(ValueError, match="denoise"):
        pixeldit(model, denoise=0.0, image=picture())
    with pytest.raises(ValueError, match="no image"):
        pixeldit(model, mask=torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match="3 channels"):
        ksampler_four_channels(model)
    solver = run("PixelDiTSolver", solver="ab2")[0]
    with pytest.raises(ValueError, match="flow models"):
        solver.sampler_function(None, torch.zeros(1, 3, 8, 8), torch.tensor([14.6, 0.0]))
    assert torch.isfinite(pixeldit(model)).all(), "the next run works"


def ksampler_four_channels(model):
    samples = torch.full((1, 4, 16, 16), 0.5)
    return ksampler(model, latent_image={"samples": samples}, positive=labels([3]))


def test_a_small_latent_of_another_kind_is_explained():
    """Empty Latent Image (4 channels, an eighth of the size) ends as a tiny picture on old hosts: still no crash."""
    result = ksampler(load_tiny(), latent_image=empty((1, 4, 16, 16)), positive=labels([3]))
    assert result.shape[1] == 3


def test_put_reuses_a_name():
    """A file replaced under its name is loaded again: the loader's fingerprint follows the file."""
    from kit import node

    kind = node("PixelDiTLoader")
    name = put(sampler_net(), "replaced.ckpt")
    first = kind.fingerprint_inputs(checkpoint=name, weights="auto", weight_dtype="fp32")
    os.utime(out_of("models") / "diffusion_models" / name, (1, 1))
    assert kind.fingerprint_inputs(checkpoint=name, weights="auto", weight_dtype="fp32") != first
