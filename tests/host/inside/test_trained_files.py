"""Files as trainers write them, through the loader node: which weights it took, and what Save Model writes of them."""

import pytest
import torch
from kit import core, module, put, run, sampler_net


def trained(tmp_path, **sets):
    """A pickled file of several sets of weights: scale of each by its name."""
    state = core().load_checkpoint(sampler_net()).network.state_dict()
    torch.save({name: {f"net.{key}": scale * of for key, of in state.items()} for name, scale in sets.items()},
               tmp_path / "run.pt")  # fmt: skip
    return put(tmp_path / "run.pt", "run.pt")


def first_weight(model):
    return next(iter(model.model.diffusion_model.state_dict().values())).float()


def test_the_average_is_taken_and_said(tmp_path):
    name = trained(tmp_path, model=1.0, model_ema1=2.0, model_ema2=3.0)
    taken = {}
    for weights in ("auto", "ema", "raw"):
        model = run("PixelDiTLoader", checkpoint=name, weights=weights, weight_dtype="fp32")[0]
        taken[weights] = (first_weight(model), model.model.loaded)
    assert torch.equal(taken["auto"][0], taken["ema"][0]) and torch.equal(taken["auto"][0], 2 * taken["raw"][0])
    assert "ema weights (also in the file: model.net, model_ema2.net)" in taken["auto"][1], taken["auto"][1]
    assert "layout model.net., raw weights (also in" in taken["raw"][1], taken["raw"][1]


def test_raw_never_gives_an_average(tmp_path):
    name = trained(tmp_path, ema_state_dict=2.0)
    with pytest.raises(ValueError, match="has no raw weights, only ema"):
        run("PixelDiTLoader", checkpoint=name, weights="raw")


def test_a_saved_average_stays_one(tmp_path):
    model = run("PixelDiTLoader", checkpoint=trained(tmp_path, model=1.0, ema=2.0), weight_dtype="fp32")[0]
    path = module("nodes.host.save").save_model(model, "average", "canonical", None, True)
    assert core().inspect_checkpoint(path).weights == ("ema",)
