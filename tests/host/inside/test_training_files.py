"""What ComfyUI's Train LoRA makes of our MODELs, of every kind that it offers: as it comes, and saved."""

from pathlib import Path

import tiny_t2i
import torch
from kit import close, core, module, node, out_of, run, sampler_net
from loras import put
from safetensors.torch import load_file
from training import Subject, as_file, is_newer, sampled, subjects, train

SUBJECTS = ("class", "text", "pixelhdm", "gray")  # the last has convolutions


def patches(model, name):
    """The MODEL with a file, by ComfyUI's node and by ours; and what ours found in it."""
    theirs = run("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)[0]
    ours, found = module("nodes.host.lora").add_lora(model, module("nodes.host.folders").find_lora(name), 1.0)
    return theirs, ours, found


def test_every_algorithm_is_read_back_in_full():
    kinds = {"LoRA": "lora_up", "LoHa": "hada_w1_a", "LoKr": "lokr_w1", "OFT": "oft_blocks"}
    for subject_name in SUBJECTS:
        subject = subjects()[subject_name]()
        before = sampled(subject)
        for algorithm, part in kinds.items():
            lora = train(subject, steps=3, algorithm=algorithm).lora
            modules = {key.rsplit(".", 2 if key.endswith(".weight") else 1)[0] for key in lora}
            assert any(part in key for key in lora) and any(key.endswith(".diff_b") for key in lora)
            wanted = sampled(subject, run("LoraModelLoader", model=subject.model, lora=lora, strength_model=1.0)[0])
            assert (wanted - before).abs().max() > 1e-2, (subject_name, algorithm)
            theirs, ours, found = patches(subject.model, as_file(f"{subject_name}-{algorithm}.safetensors", lora))
            assert (found.applied, found.total, found.unknown) == (len(modules), len(modules), ())
            close(sampled(subject, theirs), wanted, 0.0)
            close(sampled(subject, ours), wanted, 1e-6)


def test_save_lora_writes_a_file_for_our_node_and_the_core():
    subject = subjects()["class"]()
    trained = train(subject, steps=4)
    save = "SaveLoRA" if is_newer() else "SaveLoRANode"
    run(save, lora=trained.lora, prefix="loras/pixeldit", steps=trained.steps)
    (path,) = (out_of("output") / "loras").glob("pixeldit_4_steps_*.safetensors")
    model = run("PixelDiTLoRA", model=subject.model, lora_name=put("saved.safetensors", load_file(path)))[0]
    wanted = run("LoraModelLoader", model=subject.model, lora=trained.lora, strength_model=1.0)[0]
    close(sampled(subject, model), sampled(subject, wanted), 1e-6)
    merged = core().load_checkpoint(sampler_net())
    assert core().apply_lora(merged, path) == len(model.patches)
    saved = run("PixelDiTLoader", checkpoint=_as_checkpoint(merged, "merged.safetensors"), weight_dtype="fp32")[0]
    close(sampled(Subject(saved, *subject[1:])), sampled(subject, wanted), 1e-4)


def _as_checkpoint(model, name):
    import folder_paths

    core().save_checkpoint(model, out_of("models") / "diffusion_models" / name)
    folder_paths.filename_list_cache.clear()
    return name


def test_a_lora_of_ours_fits_comfyuis_own_network_and_the_other_way_round():
    """Its pixel modulation is in halves, bias and all. It needs checkpointing: it changes activations in place."""
    ours, native = subjects()["text"](), tiny_t2i.native()
    native.cached_patcher_init = (lambda disable_dynamic: tiny_t2i.native(), ())
    theirs = Subject(native, *ours[1:])
    for name, source, other in (("ours", ours, theirs), ("theirs", theirs, ours)):
        file = as_file(f"{name}.safetensors", train(source, steps=4, gradient_checkpointing=True).lora)
        path = module("nodes.host.folders").find_lora(file)
        patched = [module("nodes.host.lora").add_lora(subject.model, path, 1.0) for subject in (source, other)]
        assert patched[0][1] == patched[1][1] and not patched[0][1].unknown
        wanted = sampled(source, patched[0][0])
        assert (wanted - sampled(source)).abs().max() > 1e-2
        close(sampled(other, patched[1][0]), wanted, 1e-4)


def test_the_loss_graph_is_drawn():
    losses = {"loss": train(subjects()["dit-r1-layernorm-noape"](), steps=4).losses}
    kind = node("LossGraphNode")
    before = set(Path(out_of("temp")).glob("*.png"))
    if is_newer():
        shown = kind.PREPARE_CLASS_CLONE({}).execute(loss=losses, filename_prefix="loss").ui
        shown = shown if isinstance(shown, dict) else shown.as_dict()
        assert shown["images"]
    else:
        kind().plot_loss(losses, "loss")
    assert len(set(Path(out_of("temp")).glob("*.png")) - before) == 1


def test_a_lora_of_another_dtype_is_applied_to_a_model_of_this():
    subject = subjects()["class"]()
    lora = train(subject, steps=4, lora_dtype="bf16").lora
    model = run("PixelDiTLoRA", model=subject.model, lora_name=as_file("bf16.safetensors", lora))[0]
    wanted = run("LoraModelLoader", model=subject.model, lora=lora, strength_model=1.0)[0]
    assert {value.dtype for value in lora.values()} == {torch.bfloat16}
    close(sampled(subject, model), sampled(subject, wanted), 1e-6)
