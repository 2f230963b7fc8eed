"""The losses of PixelDiT2's trainer, alignment with an encoder included, against golden data."""

import pytest
import torch
from helpers import record_output
from objective_cases import FixedFeatures, batch, given, part_of
from pixeldit2_cases import case_params, find

import pixeldit_core as pc
from pixeldit_core.training.config import ObjectiveConfig, RepaConfig
from pixeldit_core.training.draws import GROUNDING
from pixeldit_core.training.frozen import set_trainable
from pixeldit_core.training.loss import Loss

RELATIVE = 1e-5  # spec: pixeldit2, 13


def near(actual, expected):
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=RELATIVE)


def near_loss(actual, expected):
    torch.testing.assert_close(actual, expected.reshape(actual.shape), atol=0, rtol=RELATIVE)


def model_of(case, tensors):
    """The raw weights of a training run, the encoder inside."""
    params = case_params(case.case, noise_scale=case.case["trainer"]["noise_scale"])
    model = pc.build_model("pixeldit2", params, device="cpu")
    model.network.load_state_dict(part_of(tensors, "denoiser."))
    set_trainable(model)
    return model


@pytest.mark.parametrize("name", ["training_loss_plain", "training_loss_repa"])
def test_the_loss(name):
    case = find(name)
    trainer, inputs, expected = case.case["trainer"], case.inputs, case.outputs
    tensors, _ = pc.read_checkpoint(case.checkpoint)
    model, repa, features = model_of(case, tensors), None, None
    if trainer["repa_weight"]:
        repa = RepaConfig(
            block=trainer["repa_align_layer"], weight=trainer["repa_weight"], hidden_size=trainer["proj_hidden_dim"]
        )
        features = FixedFeatures(inputs["repa_target"], (2, 2))
    config = ObjectiveConfig(
        time_mean=trainer["p_mean"],
        time_std=trainer["p_std"],
        min_noise_level=trainer["t_eps"],
        dropout=0.0,
        grounding_dropout=0.5,
        repa=repa,
    )
    loss = Loss(model, config, features)
    draws = given(inputs["noise"], inputs["time_normal"])
    draws.uniform[:, GROUNDING] = 1 - inputs["grounding_drop_mask"].float()
    calls, aligned = [], {}
    model.network.register_forward_hook(lambda _, arguments, output: calls.append((*arguments, output)))
    if repa is not None:
        loss.projector.load_state_dict(part_of(tensors, "diffusion_trainer.proj."))
        record_output(aligned, "in", loss.projector, lambda arguments, _: arguments[0])
        record_output(aligned, "out", loss.projector)
    parts = loss(batch(inputs["x"], inputs["labels"]), draws)

    rows = len(inputs["x"])  # of a batch without any grounding, one more that counts nothing
    ((x, t, labels, skip, prediction),) = calls
    near(t[:rows], expected["t"])
    near(x[:rows], expected["x_t"])
    assert torch.equal(labels[:rows], inputs["labels"])
    assert torch.equal(skip[:rows], inputs["grounding_drop_mask"])
    near(prediction[:rows], expected["x_pred"])
    near_loss(parts["flow"].mean(), expected["fm_loss"])
    near_loss(sum(parts.values()).mean(), expected["loss"])
    if repa is not None:
        near(aligned["in"][:rows], expected["repa_in"])
        near(aligned["out"][:rows], expected["repa_tokens"])
        near_loss(parts["repa"].mean(), trainer["repa_weight"] * expected["cos_loss"])
