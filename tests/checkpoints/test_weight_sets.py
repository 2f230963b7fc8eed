"""Raw weights and averages, under the names that trainers give them: which is which, and which is taken."""

import re
from dataclasses import asdict

import pytest
import torch
from checkpoints.files import prefixed, same
from factories import TINY_T2I, fill
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.checkpoints.weight_sets import find_groups, role_of


@pytest.fixture
def both(tiny):
    """Raw weights and their average."""
    return tiny(seed=1).network.state_dict(), tiny(seed=2).network.state_dict()


def averaged(state):
    """As torch's AveragedModel saves it."""
    return {"n_averaged": torch.tensor(900), **prefixed("module.", state)}


def without_dots(state):
    """As LDM's LitEma saves it, of a network in `model.diffusion_model`."""
    average = {"model_ema.diffusion_model" + key.replace(".", ""): value for key, value in state.items()}
    return {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(9), **average}


def wrapped(piece, state):
    """As of a network whose blocks were wrapped one by one."""
    return {re.sub(r"(_blocks\.\d+\.)", rf"\1{piece}.", key): value for key, value in state.items()}


def ema_pytorch(state):
    """As the package of that name saves it."""
    return {"initted": torch.tensor(True), "step": torch.tensor(9), **prefixed("ema_model.", state)}


FILES = {
    "JiT": lambda a, b: {
        "model": prefixed("net.", a), "model_ema1": prefixed("net.", b), "model_ema2": prefixed("net.", a),
    },
    "ema_state_dict": lambda a, b: {"model_state_dict": a, "ema_state_dict": b, "epoch": 4},
    "net_model": lambda a, b: {"net_model": a, "ema_model": b, "sched": {}, "optim": {}, "step": 400},
    "net and ema": lambda a, b: {"net": a, "ema": b},
    "timm": lambda a, b: {"state_dict": a, "state_dict_ema": b},
    "upper case": lambda a, b: {"model": a, "EMA": b},
    "hyphens": lambda a, b: {"model": a, "model-ema": b},
    "one word": lambda a, b: {"model": a, "modelema": b, "netema": b},
    "camel case": lambda a, b: {"model": a, "modelEMA": b},
    "StyleGAN": lambda a, b: {"G": a, "D": a, "G_ema": b},
    "swa": lambda a, b: {"model": a, "swa_model": averaged(b)},
    "AveragedModel": lambda a, b: {"model": prefixed("module.", a), "averaged": averaged(b)},
    "AveragedModel called model": lambda a, b: {"raw": a, "model": averaged(b)},
    "ema-pytorch": lambda a, b: {"model": a, "ema": ema_pytorch(b)},
    "ema-pytorch with its raw model": lambda a, b: {"ema": prefixed("online_model.", a) | ema_pytorch(b)},
    "an EMA module with its model": lambda a, b: {"ema": prefixed("model.", a) | prefixed("ema_model.", b)},
    "shadow": lambda a, b: {"model": a, "ema": {"decay": 0.999, "shadow": b}},
    "shadow_params": lambda a, b: {"model": a, "ema": {"num_updates": 9, "shadow_params": b}},
    "shadow_params without names": lambda a, b: {
        "model": a,
        "ema": {"decay": 0.999, "shadow_params": list(b.values()), "collected_params": list(a.values())},
    },
    "a tuple without names": lambda a, b: {"state_dict": prefixed("core.", a), "ema_weights": tuple(b.values())},
    "state_dict in ema": lambda a, b: {"model": a, "ema": {"state_dict": b, "updates": 9}},
    "callback of Lightning": lambda a, b: {
        "state_dict": prefixed("denoiser.", a),
        "callbacks": {"EMACallback": {"ema_state_dict": prefixed("denoiser.", b)}},
    },
    "weight averaging of Lightning": lambda a, b: {
        "state_dict": prefixed("model.", b), "current_model_state": prefixed("model.", a),
        "averaging_state": {"n_averaged": torch.tensor(9)},
    },
    "by decay": lambda a, b: {"model": a, "ema": {0.9999: b, 0.999: a}},
    "by decay in the name": lambda a, b: {"model": a, "ema_0.9999": b},
    "in a checkpoint": lambda a, b: {"checkpoint": {"model": a, "ema": b, "optimizer": {}}, "version": 2},
    "a distillation": lambda a, b: {"critic": b, "fake_score": b, "generator": a, "generator_ema": b, "teacher": b},
    "not the average": lambda a, b: {"model_non_ema": a, "model_ema": b},
    "compiled and checkpointed": lambda a, b: {
        "model": prefixed("_orig_mod.", a),
        "ema": wrapped("_checkpoint_wrapped_module", b),
    },
    "EDM2": lambda a, b: {"net": a, "ema": {"stds": [0.05, 0.1], "emas": [b, a]}, "optimizer_state": {"state": {}}},
    "list of averages": lambda a, b: {"model": a, "ema_models": [b]},
    "pairs of decay and average": lambda a, b: {"model": a, "ema": [(0.9999, b), (0.999, a)]},
    "Composer": lambda a, b: {
        "state": {
            "model": prefixed("model.", a),
            "algorithms": [("EMA", {"ema_model": {"named_parameters_dict": prefixed("model.", b)}})],
        },
        "rng": [{"python": (3, (1, 2), None), "torch": torch.zeros(8, dtype=torch.uint8)}],
    },
    "lists of tensors in a list": lambda a, b: {"model": a, "ema_params": [list(b.values()), list(a.values())]},
    "lists by decay": lambda a, b: {"model": a, "ema_params": {0.9999: list(b.values())}},
    "by number": lambda a, b: {"model": a, "ema": {0: b, 1: a}},
    "NeMo": lambda a, b: {
        "state_dict": prefixed("model.", a),
        "optimizer_states": [{"opt": {"state": {0: {"exp_avg": a}}}, "ema": tuple(b.values())}],
    },
    "student": lambda a, b: {"student_ema": b, "student": a, "teacher": b},
    "student in an average": lambda a, b: {"student": a, "ema": {"student": b}},
    "online": lambda a, b: {"online": a, "online_ema": b},
    "moving average": lambda a, b: {"model": a, "model_ma": b},
    "BasicSR": lambda a, b: {"params": a, "params_ema": b},
    "mmengine, which exchanges them": lambda a, b: {
        "state_dict": b, "ema_state_dict": {"steps": torch.tensor(9), **prefixed("module.", a)}, "meta": {},
    },
    "mmengine with a discriminator": lambda a, b: {
        "state_dict": prefixed("generator.", b) | prefixed("discriminator.", b),
        "ema_state_dict": {"steps": torch.tensor(9)} | prefixed("module.generator.", a),
    },
    "weight averaging within a container": lambda a, b: {
        "checkpoint": {"state_dict": prefixed("net.", b), "current_model_state": prefixed("net.", a)},
    },
    "LitEma beside": lambda a, b: {
        "state_dict": a,
        "ema": {"decay": torch.tensor(0.9)} | {key.replace(".", ""): value for key, value in b.items()},
    },
    "LitEma within": lambda a, b: {
        "model": prefixed("net.", a) | {"model_ema1." + key.replace(".", ""): value for key, value in b.items()}
    },
    "hyphens for dots": lambda a, b: {
        "model": prefixed("net.", a) | {"net_ema." + key.replace(".", "-"): value for key, value in b.items()}
    },
    "unknown words around both": lambda a, b: {"zeta": {"eta": {"model": a, "ema": b}}},
    "moments under names": lambda a, b: {
        "model": a,
        "ema": b,
        "optimizer": {"exp_avg": a, "exp_avg_sq": a, "state": {k: {"step": v} for k, v in a.items()}},
    },
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
@pytest.mark.parametrize("name", FILES)
def test_trainers(both, tmp_path, name, zipped):
    raw, average = both
    path = tmp_path / "run.pt"
    torch.save(FILES[name](raw, average), path, _use_new_zipfile_serialization=zipped)
    for choice, state, label in (("auto", average, "ema"), ("ema", average, "ema"), ("raw", raw, "raw")):
        model = pc.load_checkpoint(path, weights=choice)
        assert same(model, state) and model.spec.weights == label
    assert pc.inspect_checkpoint(path).weights == ("ema", "raw")


FLAT = {
    "ema-pytorch": lambda a, b: prefixed("online_model.", a) | ema_pytorch(b),
    "LDM": lambda a, b: prefixed("model.diffusion_model.", a) | without_dots(b),
    "AveragedModel": lambda a, b: prefixed("net.", a) | prefixed("net_avg.", averaged(b)),
    "JiT": lambda a, b: prefixed("model.net.", a) | prefixed("model_ema1.net.", b) | prefixed("model_ema2.net.", a),
    "networks beside it": lambda a, b: prefixed("student.", a) | prefixed("discriminator.", b) | prefixed("ema.", b),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", FLAT)
def test_names_of_both_in_one_state_dict(both, tmp_path, name, suffix):
    raw, average = both
    path, stored = tmp_path / f"run{suffix}", FLAT[name](raw, average)
    stored = {key: value.clone() for key, value in stored.items()}
    save_file(stored, path) if suffix == ".safetensors" else torch.save({"state_dict": stored}, path)
    for choice, state, label in (("auto", average, "ema"), ("ema", average, "ema"), ("raw", raw, "raw")):
        model = pc.load_checkpoint(path, weights=choice)
        assert same(model, state) and model.spec.weights == label


OTHERS = {
    "pixeldit_t2i": TINY_T2I,
    "xpred_dit": pc.XPredParams(dim=16, depth=1, heads=2, dim_head=8, image_size=8, num_classes=3),
    "pixelhdm": pc.PixelHDMParams(
        hidden_dim=32, patch_layers=2, pixel_layers=1, num_heads=2, num_kv_heads=1, patch_size=4, pixel_dim=4,
        mrope_text_dim=4, mrope_img_h_dim=6, mrope_img_w_dim=6, text_max_length=5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize(
    "name", ["JiT", "AveragedModel", "ema-pytorch", "shadow_params without names", "a distillation"]
)
def test_other_families(tmp_path, name, family):
    states = []
    for seed in (1, 2):
        model = pc.build_model(family, OTHERS[family], device="cpu")
        fill(model.network, seed)
        states.append(model.network.state_dict())
    raw, average = states
    path = tmp_path / "run.pt"
    torch.save(FILES[name](raw, average), path)
    given = asdict(pc.load_checkpoint(pc.save_checkpoint(model, tmp_path / "source.safetensors")).params)
    for choice, state in {"auto": average if model.family.prefers_ema else raw, "ema": average, "raw": raw}.items():
        assert same(pc.load_checkpoint(path, weights=choice, params=given), state)


ALONE = {
    "AveragedModel": averaged,
    "within a core": lambda state: averaged(prefixed("core.", state)),
    "ema-pytorch": lambda state: prefixed("ema_model.", state),
    "shadow": lambda state: prefixed("shadow.", state),
    "by decay": lambda state: prefixed("ema.0.9999.", state),
}


@pytest.mark.parametrize("name", ALONE)
def test_an_average_alone_is_never_called_raw(tiny, tmp_path, name):
    state = tiny().network.state_dict()
    path = tmp_path / "file.safetensors"
    save_file({key: value.clone() for key, value in ALONE[name](state).items()}, path)
    model = pc.load_checkpoint(path)
    assert same(model, state) and model.spec.weights == "ema" and same(pc.load_checkpoint(path, weights="ema"), state)
    with pytest.raises(ValueError, match="has no raw weights, only ema"):
        pc.load_checkpoint(path, weights="raw")


@pytest.mark.parametrize("name", [
    "ema_0.9999_050000.pt", "last-EMA.ckpt", "pixeldit_averaged.pt", "edm2-phema-0000100.pt", "v1-pruned-emaonly.ckpt",
    "transformer_ema/diffusion_pytorch_model.bin", "EMA/pixeldit.pt",
])  # fmt: skip
def test_the_name_of_a_file_says_what_its_keys_do_not(tiny, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    others = {"discriminator": tiny(seed=2).network.state_dict()}
    torch.save({"state_dict": prefixed("denoiser.", tiny().network.state_dict())} | others, tmp_path / name)
    assert pc.load_checkpoint(tmp_path / name).spec.weights == "ema"
    torch.save({"net": tiny().network.state_dict(), "critic": tiny().network.state_dict()}, tmp_path / "schema.pt")
    assert pc.load_checkpoint(tmp_path / "schema.pt").spec.weights == "raw"


def test_our_own_files_say_it(tiny, tmp_path):
    torch.save(
        {"model": tiny(seed=1).network.state_dict(), "ema": tiny(seed=2).network.state_dict()}, tmp_path / "a.pt"
    )
    for weights in ("ema", "raw"):
        for layout in ("canonical", "comfyui"):
            path = pc.save_checkpoint(tmp_path / "a.pt", tmp_path / "b.safetensors", layout, weights=weights)
            assert pc.load_checkpoint(path).spec.weights == weights
            assert pc.inspect_checkpoint(path).weights == (weights,)
    assert pc.load_checkpoint(pc.save_checkpoint(tiny(), tmp_path / "c.safetensors")).spec.weights == "raw"


def test_sets_are_chosen_by_name(both, tmp_path, caplog):
    raw, average = both
    path = tmp_path / "run.pt"
    torch.save(FILES["JiT"](raw, average), path)
    sets = {"model.net": "raw", "model_ema1.net": "ema", "model_ema2.net": "ema"}
    assert pc.inspect_checkpoint(path).sets == sets
    assert same(pc.load_checkpoint(path, weights="model_ema2.net"), raw)
    with caplog.at_level("INFO"):
        pc.load_checkpoint(path)
    assert "run.pt: took model_ema1.net, ema weights; also in it: model.net, model_ema2.net." in caplog.text
    with pytest.raises(
        ValueError, match='weights "model_ema3" is not a choice; take "auto", "ema" or "raw", or one of m'
    ):
        pc.load_checkpoint(path, weights="model_ema3")


def test_a_list_that_fits_no_network_is_said(both, tmp_path, caplog):
    raw, average = both
    path = tmp_path / "run.pt"
    torch.save({"model": raw, "ema": {"shadow_params": list(average.values())[1:]}}, path)
    assert same(pc.load_checkpoint(path), raw)
    assert "its ema.shadow_params is a list of 52 tensors without names" in caplog.text


def test_unknown_words(both, tmp_path):
    first, second = both
    path = tmp_path / "run.pt"
    torch.save({"zeta": first}, path)
    assert same(pc.load_checkpoint(path), first)
    torch.save({"zeta": first, "model": second}, path)
    assert same(pc.load_checkpoint(path), second)  # and the log names the other
    torch.save({"zeta": first, "eta": second}, path)
    with pytest.raises(ValueError, match="holds 2 networks, zeta, eta, and their names do not say which"):
        pc.load_checkpoint(path)
    assert same(pc.load_checkpoint(path, weights="eta"), second)
    torch.save({"critic": first, "teacher": second}, path)
    with pytest.raises(
        ValueError, match="no weights to generate images with, only those of a training's other networks"
    ):
        pc.load_checkpoint(path)


@pytest.mark.parametrize("prefix, role", [
    ("", "raw"), ("model.", "raw"), ("module.core.", "raw"), ("ema.", "ema"), ("model_ema2.net.", "ema"),
    ("EMA.", "ema"),
    ("ema_0.9999.", "ema"), ("emaModel.", "ema"), ("ema.online_model.", "raw"), ("no_ema.", "raw"), ("nonema.", "raw"),
    ("cinema.", "unknown"), ("critic_ema.", "other"), ("optimizer.exp_avg.", "other"), ("zeta.", "unknown"),
    ("student.", "raw"), ("shadow.", "ema"), ("student_ema.", "ema"), ("ema.live_model.", "raw"), ("model2d.", "raw"),
    ("optimizer_states.0.ema.", "ema"), ("optimizer.ema_grad.", "other"), ("optimizer_critic.ema.", "other"),
    ("critic.ema.", "other"), ("model_wo_ema.", "raw"),
    ("swa_model.module.", "ema"), ("callbacks.EMACallback.state_dict.", "ema"),
])  # fmt: skip
def test_words(prefix, role):
    assert role_of(prefix) == role


def test_half_an_average_is_none(tiny, tmp_path):
    state = tiny().network.state_dict()
    few = dict(list(prefixed("net_ema.", state).items())[:3])
    assert [group.role for group in find_groups(prefixed("net.", state) | few)] == ["raw"]


@pytest.mark.parametrize(
    "name", ["EMA/model-noema.pt", "my_ema_runs_2/pixeldit.pt", "without_ema.pt", "target_domain.pt"]
)
def test_names_of_files_that_do_not_say_it(tiny, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    torch.save({"model": tiny().network.state_dict()}, tmp_path / name)
    for weights in ("auto", "raw"):
        assert pc.load_checkpoint(tmp_path / name, weights=weights).spec.weights == "raw"


PARTS = {
    "ema": lambda part: {"ema": part},
    "shadow": lambda part: {"ema": {"decay": 0.9, "shadow": part}},
    "of Lightning": lambda part: {"callbacks": {"EMA": {"ema_state_dict": part}}},
    "in a list": lambda part: {"averages": [part]},
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_an_average_are_said(both, tmp_path, caplog, name):
    raw, average = both
    path = tmp_path / "run.pt"
    blocks = {key: value for key, value in average.items() if "blocks" in key}  # only these were trained
    torch.save({"model": raw} | PARTS[name](blocks), path)
    assert same(pc.load_checkpoint(path), raw)
    assert "only a part of an average is in it" in caplog.text
    with pytest.raises(ValueError, match="has no ema weights, only raw"):
        pc.load_checkpoint(path, weights="ema")
    few = {key: value for key, value in average.items() if "norm" not in key}
    torch.save({"model": raw} | PARTS[name](few), path)
    for weights in ("auto", "ema"):
        with pytest.raises(ValueError, match="has not all tensors of the network; .* Choose the raw weights"):
            pc.load_checkpoint(path, weights=weights)
    assert same(pc.load_checkpoint(path, weights="raw"), raw)


@pytest.mark.parametrize("change, loads", [
    (lambda part: part, True),
    (lambda part: part | {"net_ema.gain": torch.zeros(3)}, False),  # another variant of the network
    (lambda part: {key: torch.zeros(2, 3) for key in part}, False),
    (lambda part: dict(list(part.items())[:3]), False),
])  # fmt: skip
def test_parts_of_an_average_in_one_state_dict(both, tmp_path, caplog, change, loads):
    raw, average = both
    path = tmp_path / "run.safetensors"
    part = prefixed("net_ema.", {key: value for key, value in average.items() if "blocks" in key})
    save_file({key: value.clone() for key, value in (prefixed("net.", raw) | change(part)).items()}, path)
    if loads:
        assert same(pc.load_checkpoint(path), raw) and "part of an average" in caplog.text
    else:
        with pytest.raises(ValueError, match="do not belong"):
            pc.load_checkpoint(path)


def test_an_average_without_names_and_a_network(both, tmp_path):
    torch.save({"decay": 0.9, "shadow_params": list(both[0].values())}, tmp_path / "ema.pt")
    with pytest.raises(ValueError, match="a list without names, as averages"):
        pc.load_checkpoint(tmp_path / "ema.pt")


def test_raw_weights_of_an_unknown_word(both, tmp_path):
    raw, average = both
    for unknown, ema in (("zeta", "ema"), ("unicorn", "unicorn_ema")):
        torch.save({unknown: raw, ema: average}, tmp_path / "run.pt")
        assert same(pc.load_checkpoint(tmp_path / "run.pt", weights="raw"), raw)
        assert same(pc.load_checkpoint(tmp_path / "run.pt"), average)
