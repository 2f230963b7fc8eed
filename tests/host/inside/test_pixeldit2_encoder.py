"""The frozen encoder of a PixelDiT2 in ComfyUI: found, chosen, left out, kept in its own precision, saved or not."""

import dataclasses
import json
import os

import pytest
import torch
from kit import close, core, execute, golden, golden_folder, labels, load, module, node, out_of, put, run, sampler_net
from loras import put as put_lora
from pixeldit2 import (
    PLACE,
    clip_vision,
    core_model,
    encoder_tensors,
    of_case,
    pixeldit2,
    put_encoder,
    refresh,
    written,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_save import save

NULL = 5
BARE = "bare.safetensors"


def bare(**changes):
    """A file without its encoder in models/diffusion_models, and the network that it is of."""
    model = core_model(**changes)
    written(model, BARE, encoder="none")
    return model


def loader(**options):
    return run("PixelDiTLoader", checkpoint=BARE, weight_dtype="fp32", **options)[0]


def shown(checkpoint=BARE, **options):
    """The text on the node."""
    return execute("PixelDiTLoader", checkpoint=checkpoint, weight_dtype="fp32", **options).ui["text"][0]


def fails(*texts, **options):
    with pytest.raises(ValueError) as raised:
        loader(**options)
    for text in texts:
        assert text in str(raised.value), str(raised.value)


def velocity(model, rows=2):
    """What a MODEL predicts for class 3."""
    x = torch.randn(rows, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    base = model.model
    ((cross, extra),) = labels([3], NULL)
    entries = base.extra_conds(cross_attn=cross, noise=x, **extra)
    arguments = {key: value.process_cond(rows, area=None).cond for key, value in entries.items()}
    with torch.inference_mode():
        return base.apply_model(x, torch.full((rows,), 0.6), **arguments)


def in_core(model, skip=None, rows=2):
    x = torch.randn(rows, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    label = torch.full((rows,), 3)
    condition = label if skip is None else (label, torch.full((rows,), skip))
    with torch.inference_mode():
        return x + 0.6 * model.velocity(x, 0.4, condition)


def test_auto_takes_the_only_one_that_fits():
    model, folder = bare(), clip_vision()
    expected = in_core(model)
    other = core_model(encoder_dim=32, encoder_num_heads=1)
    save_file({"vision_model.embeddings.position_embedding.weight": torch.zeros(2, 2)}, folder / "clip.safetensors")
    _diffusion("half.ckpt").write_bytes(b"PK\3\4 of another download")
    for place in (
        folder / "x.safetensors",
        folder / "vits16" / "model.safetensors",
        _diffusion("dinov3_s.safetensors"),
    ):
        put_encoder(model, place)
        put_encoder(other, folder / "wide.safetensors")
        close(velocity(loader()), expected, 1e-5)
        text = shown()
        assert f"from {place.parent.name}/{place.name}" in text and "width 16" in text, text
        place.unlink()
    beside = put_encoder(model, _diffusion("encoder") / "model.safetensors")
    close(velocity(loader()), expected, 1e-5)
    assert "from diffusion_models/encoder" in shown()
    beside.unlink()
    beside.parent.rmdir()
    refresh()
    fails("wide.safetensors is a DINOv3 ViT of width 32", "which does not fit")


def _diffusion(name):
    return out_of("models") / "diffusion_models" / name


def test_several_are_named_and_one_can_be_chosen():
    model, folder = bare(), clip_vision()
    other = core_model()
    with torch.no_grad():
        other.network.dino_conditioner.encoder.norm.weight.mul_(1.5)
    put_encoder(model, folder / "one.safetensors")
    put_encoder(other, folder / "two.safetensors")
    fails("2 encoders fit", "clip_vision/one.safetensors", "clip_vision/two.safetensors", "Choose one")
    close(velocity(loader(encoder="one.safetensors")), in_core(model), 1e-5)
    close(velocity(loader(encoder="two.safetensors")), in_core(other), 1e-5)
    assert "from clip_vision/two.safetensors" in shown(encoder="two.safetensors")
    inside = pixeldit2().model.pixeldit.source
    assert "inside of the checkpoint" in shown(inside)
    replaced = run("PixelDiTLoader", checkpoint=inside, weight_dtype="fp32", encoder="two.safetensors")[0]
    close(velocity(replaced), in_core(other), 1e-5)


def test_a_folder_of_transformers_declares_its_heads():
    model, folder = bare(encoder_num_heads=2), clip_vision()
    encoder = encoder_tensors(model)
    path = put_encoder(model, folder / "dinov3-vits16" / "model.safetensors")
    config = {"model_type": "dinov3_vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    (path.parent / "config.json").write_text(json.dumps(config | {"patch_size": 16}))
    assert "dinov3-vits16/model.safetensors" in module("nodes.host.encoders").list_encoders()
    for choice in ("auto", "dinov3-vits16/model.safetensors", "dinov3-vits16\\model.safetensors"):
        found = loader(encoder=choice)
        assert found.model.pixeldit.params.encoder_num_heads == 2
        close(velocity(found), in_core(model), 1e-5)
    assert len(encoder) == sum(key.startswith(PLACE) for key in found.model.diffusion_model.state_dict())


def test_without_one_the_message_names_what_to_get():
    bare()
    clip_vision()
    fails(BARE, "a DINOv3 ViT of width 16", "DINOv3 License (Meta)", '"none"')
    small = core_model(encoder_dim=384, encoder_depth=1, encoder_num_heads=6)
    written(small, BARE, encoder="none")
    fails(
        "DINOv3 ViT-S/16", "timm/vit_small_patch16_dinov3_qkvb.lvd1689m", "models/clip_vision", "DINOv3 License (Meta)"
    )


def test_none_generates_without_grounding_and_says_so():
    model = bare()
    clip_vision()
    ungrounded = loader(encoder="none")
    assert ungrounded.model.pixeldit.params.encoder_depth == 0
    close(velocity(ungrounded), in_core(model, skip=True), 1e-5)
    assert "without grounding" in shown(encoder="none")
    positive, null = run("PixelDiTClassLabel", model=ungrounded, class_name="3")
    image = run(
        "PixelDiTSampler", model=ungrounded, positive=positive, negative=null, seed=1, steps=4, width=16, height=16
    )[0]
    assert torch.isfinite(image).all()
    inside = pixeldit2().model.pixeldit.source
    left_out = run("PixelDiTLoader", checkpoint=inside, weight_dtype="fp32", encoder="none")[0]
    close(velocity(left_out), in_core(model, skip=True), 1e-5)


def test_other_families_have_none():
    folder = clip_vision()
    put_encoder(core_model(), folder / "x.safetensors")
    name = put(sampler_net(), "sampler-net.ckpt")
    for encoder in ("auto", "none"):
        text = shown(name, encoder=encoder)
        assert "encoder" not in text and "grounding" not in text, text
    with pytest.raises(
        ValueError, match=r"sampler-net\.ckpt is .*which has no encoder, and .*x\.safetensors was given"
    ):
        run("PixelDiTLoader", checkpoint=name, encoder="x.safetensors")


def test_files_are_looked_into_only_when_needed(monkeypatch):
    folder = clip_vision()
    model = bare()
    put_encoder(model, folder / "x.safetensors")
    choice, opened = module("pixeldit_core.checkpoints.encoder_choice"), []
    read = choice.read_encoder_header
    monkeypatch.setattr(choice, "read_encoder_header", lambda path: opened.append(path) or read(path))
    listed = node("PixelDiTLoader").GET_NODE_INFO_V1()["input"]["optional"]["encoder"][1]["options"]
    assert listed[:2] == ["auto", "none"] and "x.safetensors" in listed
    run("PixelDiTLoader", checkpoint=put(sampler_net(), "sampler-net.ckpt"))
    load(core().save_checkpoint(model, _fresh("inside.safetensors")))
    loader(encoder="x.safetensors")
    assert not opened
    loader()
    assert opened


def _fresh(name):
    path = out_of("files") / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def test_names_in_the_list():
    folder = clip_vision()
    names = ("model.safetensors", "sub/dinov3_vitb16.pth", "clip_vision_g.safetensors", "sigclip_384.safetensors")
    for name in (*names, "dinov2_l.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (_diffusion("vit_small_patch16_dinov3_qkvb.safetensors")).write_bytes(b"x")
    refresh()
    listed = module("nodes.host.encoders").list_encoders()
    assert [os.path.normpath(name) for name in listed] == [
        "auto", "none", "model.safetensors", os.path.normpath("sub/dinov3_vitb16.pth"),
        "vit_small_patch16_dinov3_qkvb.safetensors",
    ]  # fmt: skip
    _diffusion("vit_small_patch16_dinov3_qkvb.safetensors").unlink()
    refresh()


def test_the_node_runs_again_when_its_encoder_changes():
    model, folder = bare(), clip_vision()
    kind, options = node("PixelDiTLoader"), {"checkpoint": BARE, "weights": "auto", "weight_dtype": "fp32"}

    def stamp(**more):
        return kind.fingerprint_inputs(**options, **more)

    broken = _diffusion("lost.safetensors.index.json")
    broken.write_text('{"weight_map": ')
    path = put_encoder(model, folder / "x.safetensors")
    before, chosen, none = stamp(encoder="auto"), stamp(encoder="x.safetensors"), stamp(encoder="none")
    assert before == stamp() and len({before, chosen, none}) == 3
    os.utime(path, ns=(1, 1))
    assert stamp(encoder="auto") != before and stamp(encoder="x.safetensors") != chosen
    assert stamp(encoder="none") == none
    middle = stamp(encoder="auto")
    put_encoder(model, folder / "y.safetensors")
    assert stamp(encoder="auto") != middle, "another one may make it ambiguous"
    other = {**options, "checkpoint": put(sampler_net(), "sampler-net.ckpt"), "encoder": "auto"}
    first = kind.fingerprint_inputs(**other)
    (folder / "y.safetensors").unlink()
    refresh()
    assert kind.fingerprint_inputs(**other) == first, "no other family looks at it"
    assert stamp(encoder="gone.safetensors") != stamp(encoder="auto")
    assert kind.validate_inputs(checkpoint=BARE, encoder="x.safetensors") is True
    assert kind.validate_inputs(checkpoint=BARE, encoder=None) is True
    message = kind.validate_inputs(checkpoint=BARE, encoder="gone.safetensors")
    assert 'encoder "gone.safetensors" is not in models/clip_vision' in message


def test_it_keeps_a_precision_of_its_own():
    model, folder = bare(), clip_vision()
    put_encoder(model, folder / "x.safetensors")
    exact = in_core(model)
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    for name, dtype, limit in (
        ("fp32", torch.float32, 1e-5), ("bf16", torch.bfloat16, 0.05), ("fp16", torch.float32, 0.05),
        ("fp8_e4m3fn", torch.bfloat16, 0.3), ("fp8_e5m2", torch.bfloat16, 0.5),
    ):  # fmt: skip
        loaded = run("PixelDiTLoader", checkpoint=BARE, weight_dtype=name)[0]
        network = loaded.model.diffusion_model
        assert {value.dtype for value in network.dino_conditioner.encoder.state_dict().values()} == {dtype}, name
        assert network.patch_blocks[0].mlp.w1.weight.dtype == module("pixeldit_core.dtypes").DTYPES[name]
        error = (velocity(loaded) - exact).norm() / (exact - x).norm()
        assert error < limit, (name, float(error))
        assert load_file(save(loaded))[f"{PLACE}blocks.0.mlp.fc1.weight"].dtype == dtype


def test_loaded_in_part_it_gives_the_same():
    model = pixeldit2(noise_scale=2.0)
    whole = velocity(model)
    part = model.clone()
    part.patch_model(torch.device("cpu"), lowvram_model_memory=1500)
    try:
        close(velocity(part), whole, 0.0)
    finally:
        part.unpatch_model(torch.device("cpu"))


def test_saved_with_or_without_it():
    folder = clip_vision()
    model = core_model(noise_scale=2.0)
    loaded = pixeldit2(noise_scale=2.0)
    expected = velocity(loaded)
    whole, smaller = save(loaded), save(loaded, with_encoder=False)
    assert any(key.startswith(PLACE) for key in load_file(whole))
    assert not any(key.startswith(PLACE) for key in load_file(smaller))
    for path, inside in ((whole, True), (smaller, False)):
        with safe_open(path, "pt") as file:
            assert json.loads(file.metadata()["pixeldit"])["encoder"] is inside
        assert core().inspect_checkpoint(path).encoder is inside
    assert torch.equal(velocity(load(whole)), expected)
    with pytest.raises(ValueError, match="neither in the file nor beside it"):
        load(smaller)
    put_encoder(model, folder / "x.safetensors")
    again = load(smaller)
    assert torch.equal(velocity(again), expected) and again.model.pixeldit.params == loaded.model.pixeldit.params
    ungrounded = load(smaller, encoder="none")
    assert not any(key.startswith(PLACE) for key in load_file(save(ungrounded)))
    name = put_lora("x.safetensors", {"patch_blocks.0.attn.proj.lora_A.weight": torch.ones(1, 16),
                                      "patch_blocks.0.attn.proj.lora_B.weight": torch.ones(16, 1)})  # fmt: skip
    patched = run("PixelDiTLoRA", model=loaded, lora_name=name, strength_model=0.1)[0]
    merged = load_file(save(patched, with_encoder=False))
    close(
        merged["patch_blocks.0.attn.proj.weight"] - 0.1,
        model.network.state_dict()["patch_blocks.0.attn.proj.weight"],
        1e-5,
    )


def test_model_save_and_merges():
    loaded = pixeldit2()
    expected = velocity(loaded)
    run("ModelSave", model=loaded, filename_prefix="pixeldit/two", prompt=None, extra_pnginfo=None)
    saved = sorted(out_of("output").rglob("two*.safetensors"))[-1]
    again = run("PixelDiTLoader", checkpoint=put(saved, "two.safetensors"), weight_dtype="fp32")[0]
    assert torch.equal(velocity(again), expected) and "inside of the checkpoint" in shown("two.safetensors")
    other = pixeldit2()
    with torch.no_grad():
        other.model.diffusion_model.final_layer.linear.bias.add_(1)
    bias = other.model.diffusion_model.final_layer.linear.bias.clone()
    other = load(save(other))
    merged = run("ModelMergeSimple", model1=again, model2=other, ratio=0.25)[0]
    state = load_file(save(merged))
    close(state["final_layer.linear.bias"], bias - 0.25, 1e-6)
    first = again.model.diffusion_model.state_dict()
    assert all(torch.equal(state[key], first[key]) for key in first if key.startswith(PLACE))
    alone = run("PixelDiTLoader", checkpoint="two.safetensors", weight_dtype="fp32", encoder="none")[0]
    mixed = run("ModelMergeSimple", model1=alone, model2=other, ratio=0.25)[0]
    assert not any(key.startswith(PLACE) for key in load_file(save(mixed)))


def test_the_recorded_lora_files():
    case, inputs, outputs, _, path = of_case("lora_adapter")
    model = load(path)
    for name, settings in case["files"].items():
        stored = golden_folder("lora_adapter", "pixeldit2") / name
        with safe_open(stored, "pt") as file:
            lora = put_lora(name, load_file(stored), file.metadata())
        result = execute("PixelDiTLoRA", model=model, lora_name=lora, strength_model=1.0)
        count = len(settings["modules"])
        assert f"{count} of {count} modules applied" in result.ui["text"][0]
        patched = result.result[0]
        patched.patch_model(torch.device("cpu"))
        try:
            network, x, t = patched.model.diffusion_model, inputs["x"], inputs["t"]
            forward = model.model.pixeldit.family.network.forward
            classes = inputs["labels"]
            close(
                forward(network, x, t, classes, transformer_options={}), outputs[f"x_pred_{name.split('.')[0]}"], 2e-5
            )
            null = torch.full_like(classes, 7)
            skipped = forward(network, x, t, null, transformer_options={})
            close(skipped, outputs[f"x_pred_null_skip_{name.split('.')[0]}"], 2e-5)
        finally:
            patched.unpatch_model(torch.device("cpu"))


def test_other_encoders_are_refused_by_name():
    model, folder = bare(), clip_vision()
    good = encoder_tensors(model)
    gated = {key.replace("mlp.fc1.", "mlp.fc1_g."): value for key, value in good.items()}
    wide = encoder_tensors(core_model(encoder_dim=32, encoder_num_heads=1))
    files = {
        "convnext.safetensors": ({"stages.0.blocks.0.conv_dw.weight": torch.zeros(4, 1, 7, 7)}, "ConvNeXt"),
        "plus.safetensors": (gated, "gated MLP"),
        "vits16.sat493m.safetensors": (good, "satellite"),
        "wide.safetensors": (wide, "needs a DINOv3 ViT of width 16"),
        "v2.safetensors": (good | {"pos_embed": torch.zeros(1, 5, 16)}, "DINOv2"),
    }
    for name, (tensors, words) in files.items():
        save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
        refresh()
        fails(words, encoder=name)
    (folder / "text.safetensors").write_text("not a file of tensors")
    refresh()
    fails("text.safetensors", encoder="text.safetensors")
    fails('encoder "gone.safetensors" is not in models/clip_vision', encoder="gone.safetensors")


def test_params_that_no_network_has():
    path = written(core_model(), "deep.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    values = json.loads(metadata["pixeldit"])
    values["params"]["in_context_start"] = 7
    save_file(load_file(path), path, metadata | {"pixeldit": json.dumps(values)})
    with pytest.raises(ValueError, match="in_context_start is 7; it must be one of the 3 patch blocks"):
        run("PixelDiTLoader", checkpoint="deep.safetensors")


def test_the_published_layout_is_loaded():
    case, _, _ = golden("checkpoint_released", "pixeldit2")
    clip_vision()
    (stored,) = golden_folder("checkpoint_released", "pixeldit2").glob("*.ckpt")
    name = put(stored, "pixeldit2_h16_in256_ep600.ckpt")
    text = shown(name, encoder="none")
    assert "PixelDiT2" in text and "50 steps heun_exact" in text and "ema weights" in text, text
    assert module("nodes.host.routes")._class_list(name), case["config"]


def test_comfyui_reserves_the_memory_that_a_grounded_call_takes():
    """Two blocks of the smallest variant, in the usual precision; the more blocks, the same memory."""
    loader, pc = module("nodes.host.load"), core()
    params = dataclasses.replace(
        pc.VARIANTS["PixelDiT2-B/16"].params, depth=2, in_context_start=1, encoder_depth=2, num_classes=10
    )
    model = pc.build_model("pixeldit2", params, device="cpu", dtype=torch.float32)
    for parameter in model.network.parameters():
        parameter.data.fill_(0.01)
    patcher = loader.load_model(str(pc.save_checkpoint(model, _fresh("base.safetensors"))), weight_dtype="bf16")
    network = patcher.model.diffusion_model
    x, classes = torch.zeros(2, 3, 256, 256, dtype=torch.bfloat16), torch.tensor([1, 2])

    def call():
        with torch.inference_mode():
            network(x, torch.full((2,), 0.5), pixeldit_class=classes)

    call()
    taken, formula = _peak(call), 2 * 256 * 256 * 2 * 0.01 * patcher.model.memory_usage_factor * 2**20
    assert 0.9 < formula / taken < 1.6, (formula / 2**20, taken / 2**20)


def _peak(function):
    """Bytes that a function allocates at most."""
    with torch.profiler.profile(profile_memory=True) as record:
        function()
    held = peak = 0
    events = (event for event in record.profiler.kineto_results.events() if event.name() == "[memory]")
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak
