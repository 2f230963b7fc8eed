"""LoRA training: what is trained, what is written, and that it loads everywhere."""

import dataclasses
import json

import pytest
import torch
from factories import fill, tiny_model, tiny_t2i_model
from safetensors import safe_open
from training_runs import PARAMS, config_of, state_of, train, write_images
from xpred_cases import TINY_MM_PIXEL

import pixeldit_core as pc
from pixeldit_core.training.blocks import apply_engine_config
from pixeldit_core.training.config import EngineConfig, LoraConfig, ObjectiveConfig
from pixeldit_core.training.lora import add_lora, target_names, write_lora
from pixeldit_core.training.loss import Loss
from pixeldit_core.training.setup import set_up

TINY_HDM = pc.PixelHDMParams(
    hidden_dim=32, pixel_dim=4, patch_size=4, patch_layers=2, pixel_layers=1, num_heads=4, num_kv_heads=2,
    mrope_text_dim=4, mrope_img_h_dim=2, mrope_img_w_dim=2,
)  # fmt: skip
NAMES = ("circle", "square", "tabby")  # of the twelve classes of the tiny model


def randomize(network):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("build", [tiny_model, tiny_t2i_model], ids=["class", "text"])
def test_the_file_makes_of_the_base_what_was_trained(build, tmp_path):
    model, base = build(), build()
    config = LoraConfig(rank=4, alpha=2.0)
    model.network.requires_grad_(True)
    add_lora(model, config)
    randomize(model.network)
    loss = Loss(model, ObjectiveConfig())
    trained = {name for name, parameter in loss.network.named_parameters() if parameter.requires_grad}
    assert trained == set(loss.weights()) and all("lora_" in name for name in trained)
    path = write_lora(loss.weights(), tmp_path / "new" / "lora.safetensors", config, {"step": 3})
    torch.manual_seed(0)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 0.8])
    condition = (torch.tensor([1, 12]),) if build is tiny_model else (torch.randn(2, 6, 12),)
    before, expected = base.network(x, t, *condition), model.network(x, t, *condition)
    count = pc.apply_lora(base, path)
    assert count == len(target_names(build().network))
    torch.testing.assert_close(base.network(x, t, *condition), expected, atol=1e-5, rtol=1e-5)
    assert (before - expected).abs().max() > 1e-2


def test_keys_are_comfyuis(tmp_path):
    model = tiny_model()
    add_lora(model, LoraConfig(rank=2, alpha=1.0, targets=("qkv",)))
    write_lora(Loss(model, ObjectiveConfig()).weights(), tmp_path / "l.safetensors", LoraConfig(rank=2, alpha=1.0), {})
    with safe_open(tmp_path / "l.safetensors", "pt") as file:
        keys = set(file.keys())
        about = json.loads(file.metadata()["pixeldit_lora"])
    names = [name for name, _ in model.network.named_modules() if name.endswith("qkv")]
    assert names and keys == {
        f"diffusion_model.{name}.{part}" for name in names for part in ("lora_A.weight", "lora_B.weight", "alpha")
    }
    assert about["rank"] == 2 and about["version"] == pc.__version__


def test_targets_that_are_not_there_are_named():
    with pytest.raises(ValueError, match='no matrix is called "to_q"; names end with .*qkv'):
        target_names(tiny_model().network, ("to_q",))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    images = write_images(folder / "images", names=NAMES)
    start = pc.save_checkpoint(tiny_model(), folder / "start.safetensors")
    sections = {
        "model": {"start": str(start), "family": None, "params": {}},
        "lora": {"rank": 4, "alpha": 4.0},
        "optim": {"learning_rate": 1e-2},
        "sample": {"every": 6, "count": 2, "steps": 2},
        "engine": {"steps": 12, "batch_size": 8, "save_every": 6, "log_every": 1, "seed": 5},
    }
    return folder, config_of(images, **sections), start


def test_a_run_trains_pairs_only_and_goes_on_bit_for_bit(parts):
    folder, config, start = parts
    run = train(config, folder / "run")
    base = pc.load_checkpoint(start)
    assert base.class_names[2][0] == "tabby" and len(base.class_names) == 12
    assert pc.apply_lora(base, run.lora) > 0 and run.raw_lora.is_file() and not run.model.exists()
    state = state_of(run, 12)
    for name, tensor in pc.load_checkpoint(start).network.state_dict().items():
        stored = state.get(f"network.{name}", state.get(f"network.{name.rpartition('.')[0]}.base_layer.weight"))
        if stored is not None and stored.shape == tensor.shape:
            assert torch.equal(stored, tensor), name
    run.checkpoint(12).rename(folder / "away")
    again = train(config, run.path, resume=True)
    for name, tensor in state_of(again, 12).items():
        assert torch.equal(tensor, state[name]), name


def test_classes_that_the_start_does_not_have_need_a_full_fine_tune(parts, tmp_path):
    _, config, _ = parts
    images = write_images(tmp_path / "images", names=("circle", "unicorn"))
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(images)))
    with pytest.raises(ValueError, match=r"unicorn.*lora=null"):
        train(other, tmp_path / "run")


def test_a_lora_needs_a_start_whose_classes_stay(parts):
    _, config, start = parts
    model = dataclasses.replace(config.model, start=None, family="pixeldit", params=PARAMS)
    with pytest.raises(ValueError, match=r"needs a checkpoint .* model.start"):
        set_up(dataclasses.replace(config, model=model))
    model = dataclasses.replace(config.model, start=str(start), params={"num_classes": 3})
    with pytest.raises(ValueError, match=r"has 12 classes, and the recipe says 3.*lora=null"):
        set_up(dataclasses.replace(config, model=model))


@pytest.mark.parametrize("family", ["xpred_mmpixeldit", "pixelhdm"])
def test_pairs_of_other_families(family, tmp_path):
    params = {"xpred_mmpixeldit": TINY_MM_PIXEL, "pixelhdm": TINY_HDM}[family]
    model, base = (pc.build_model(family, params, device="cpu") for _ in range(2))
    for entry in (model, base):
        fill(entry.network)
    config = LoraConfig(rank=2, alpha=3.0)
    add_lora(model, config)
    randomize(model.network)
    path = write_lora(Loss(model, ObjectiveConfig()).weights(), tmp_path / "lora.safetensors", config, {})
    torch.manual_seed(0)
    x, t = torch.randn(2, 3, 12, 12), torch.tensor([0.3, 0.8])
    condition = torch.tensor([1, 3])
    if family == "pixelhdm":
        condition = pc.text_condition(model, torch.randn(2, 5, params.hidden_dim))
    before, expected = base.velocity(x, t, condition), model.velocity(x, t, condition)
    assert pc.apply_lora(base, path) == len(target_names(base.network))
    torch.testing.assert_close(base.velocity(x, t, condition), expected, atol=1e-5, rtol=1e-5)
    assert (before - expected).abs().max() > 1e-3


def test_pairs_start_as_the_seed_says_and_leave_the_global_generator_alone():
    def first_matrices(seed):
        model = tiny_model()
        before = torch.get_rng_state()
        add_lora(model, LoraConfig(rank=2), seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.flatten() for name, p in model.network.named_parameters() if "lora_A" in name])

    assert torch.equal(first_matrices(1), first_matrices(1))
    assert not torch.equal(first_matrices(1), first_matrices(2))


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
def test_pairs_get_gradients_with_and_without_checkpointing(checkpointing):
    model = tiny_model()
    add_lora(model, LoraConfig(rank=2))
    randomize(model.network)
    apply_engine_config(model.network, EngineConfig(activation_checkpointing=checkpointing))
    x, t = torch.ones(1, 3, 16, 16), torch.tensor([0.4])
    model.network(x, t, torch.tensor([3])).square().sum().backward()
    for name, parameter in model.network.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ("lora_" in name), name


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="could not be written"):
        write_lora({}, tmp_path / "taken" / "lora.safetensors", LoraConfig(), {})
