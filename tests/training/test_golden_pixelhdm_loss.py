"""The losses of PixelHDM's trainer and three of its steps, against golden data.

The reference's frequency loss transforms a block X to M X M (spec: pixelhdm, 11): these tests put that in place of the
DCT. Tolerances are the recommended ones of the cases.
"""

import math

import pytest
import torch
from helpers import relative_l2
from objective_cases import FixedFeatures, batch, given, part_of
from pixelhdm_cases import find, first, params_of
from torch import nn

import pixeldit_core as pc
from pixeldit_core.model import Model, ModelSpec
from pixeldit_core.training import frequency
from pixeldit_core.training.config import FrequencyConfig, ObjectiveConfig, RepaConfig
from pixeldit_core.training.frequency import block_dct, dct_matrix, frequency_loss, jpeg_weights, to_ycbcr
from pixeldit_core.training.loss import Loss
from pixeldit_core.training.objective import noisy, squared_error
from pixeldit_core.training.repa import ConvProjector, alignment_loss, spatially_normalized

SIZES = ("40", "41_oddsize")
FAMILY = pc.FAMILIES["pixelhdm"]
# Of a gradient's largest element; what is smaller may be rounding. AdamW's first step divides a gradient by its own
# size, so there the order in which a processor adds decides how far a weight moves, up to the learning rate.
ROUNDING = 1e-5


@pytest.fixture
def reference_transform(monkeypatch):
    """M X M in place of M X M^T."""

    def transform(x):
        height, width = x.shape[-2:]
        x = nn.functional.pad(x, (0, -width % 8, 0, -height % 8), mode="reflect")
        blocks = x.unfold(2, 8, 8).unfold(3, 8, 8)  # [B, C, rows, columns, 8, 8]
        blocks = dct_matrix() @ blocks @ dct_matrix()
        return blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)[:, :, :height, :width]

    monkeypatch.setattr(frequency, "block_dct", transform)
    return transform


def near(actual, expected, tolerance=2e-5):
    assert relative_l2(actual, expected.view_as(actual)) < tolerance


@pytest.mark.parametrize("size", SIZES)
def test_the_velocity_loss(golden, size):
    case = find(f"{size}_loss_v")
    inputs, expected = case.inputs, case.outputs
    rows = len(inputs["noise"])
    _, target = noisy(FAMILY.path(None), inputs["x_clean"], inputs["noise"], torch.rand(rows))
    near(target, expected["v_target"])
    prediction = inputs["v_pred"].requires_grad_()
    error = squared_error(prediction, target)
    near(error, expected["loss_none"].mean((1, 2, 3)))
    near(error.mean(), expected["loss_mean"])
    error.mean().backward()
    near(prediction.grad, expected["grad_v_pred"])


@pytest.mark.parametrize("size", SIZES)
def test_the_frequency_loss(golden, size, reference_transform):
    case = find(f"{size}_loss_freq")
    inputs, expected = case.inputs, case.outputs
    clean = find(f"{size}_loss_v").inputs["x_clean"]
    near(dct_matrix(), expected["dct_matrix"])
    near(to_ycbcr(clean), expected["ycbcr_of_x"])
    near(reference_transform(clean), expected["dct_of_x"])
    assert relative_l2(block_dct(clean), expected["dct_of_x"]) > 0.1
    for variant in case.case["variants"]:
        config = FrequencyConfig(weight=variant["weight"], quality=variant["quality"], ycbcr=variant["use_ycbcr"])
        values = part_of(expected, f"{variant['key']}.")
        near(jpeg_weights(config.quality), values["weights_y"])
        near(jpeg_weights(config.quality, chroma=True), values["weights_c"])
        prediction = inputs["v_pred"].clone().requires_grad_()
        loss = frequency_loss(prediction, inputs["v_target"], config)
        near(loss.mean(), values["loss"])
        loss.mean().backward()
        near(prediction.grad, values["grad_v_pred"])


@pytest.mark.parametrize("size", SIZES)
def test_the_alignment(golden, size):
    case = find(f"{size}_loss_irepa")
    inputs, expected, grid = case.inputs, case.outputs, tuple(case.case["grid_hw"])
    near(spatially_normalized(inputs["dino_features"]), expected["features_spatial_norm"])
    projector = projector_of(inputs)
    tokens = inputs["h_t"].requires_grad_()
    projected = projector(tokens, grid)
    near(projected, expected["h_projected"])
    config = RepaConfig(projector="conv", weight=case.case["lambda_repa"])
    loss = alignment_loss(projected, grid, inputs["dino_features"], grid, config).mean()
    near(loss, expected["loss"])
    loss.backward()
    near(tokens.grad, expected["grad_h_t"])
    near(projector.weight.grad, expected["grad_projector.weight"])


def projector_of(inputs):
    width, outputs = inputs["h_t"].shape[-1], inputs["dino_features"].shape[-1]
    projector = ConvProjector(width, outputs)
    projector.load_state_dict(part_of(inputs, "projector."))
    return projector


class Recorded(nn.Module):
    """In place of a network: returns a recorded velocity, patches and scales of the pixel block."""

    def __init__(self, velocity, patches, gamma_l2):
        super().__init__()
        self.velocity, self.patches = nn.Parameter(velocity), nn.Parameter(patches)
        maps = torch.zeros(patches.shape[0] * patches.shape[1], 1, 6, 1)
        maps[:, :, 0], maps[:, :, 3] = 1.0, math.sqrt(gamma_l2 - 1)
        self.maps = maps.flatten(2)
        self.patch_blocks = nn.ModuleList([nn.Identity()])
        self.pixel_blocks = nn.ModuleList([nn.ModuleDict({"adaln": nn.Identity()})])

    def forward(self, x, time):
        self.patch_blocks[0](self.patches)
        self.pixel_blocks[0].adaln(self.maps)
        return self.velocity


@pytest.mark.parametrize("size", SIZES)
def test_the_whole_loss(golden, size, reference_transform):
    case = find(f"{size}_loss_combined")
    inputs, expected, config = case.inputs, case.outputs, case.case
    network = Recorded(inputs["v_pred"], inputs["h_t"], inputs["gamma_l2"].item())
    width = inputs["h_t"].shape[-1]
    dims = {"mrope_text_dim": width - 4, "mrope_img_h_dim": 2, "mrope_img_w_dim": 2}
    params = pc.PixelHDMParams(hidden_dim=width, patch_size=4, num_heads=1, num_kv_heads=1, **dims)
    objective = ObjectiveConfig(
        dropout=0.0,
        repa=RepaConfig(projector="conv", block=1, weight=config["lambda_repa"], until=100),
        frequency=FrequencyConfig(weight=config["lambda_freq"], quality=config["freq_quality"]),
        gamma_penalty=config["lambda_gamma_l2"],
    )
    image = first(inputs["x_clean"])
    grid = (image.shape[2] // 4, image.shape[3] // 4)
    model = Model(ModelSpec(FAMILY, params), network)
    loss = Loss(model, objective, FixedFeatures(inputs["dino_features"], grid))
    loss.projector.load_state_dict(part_of(inputs, "projector."))
    parts = loss(batch(image), given(first(inputs["noise"])), step=99)
    names = {"flow": "vloss", "repa": "repa_loss", "frequency": "freq_loss", "gamma": "gamma_l2"}
    assert list(parts) == list(names)
    for part, name in names.items():
        near(parts[part].mean(), expected[name])
    total = sum(parts.values()).mean()
    near(total, expected["total"])
    total.backward()
    near(network.velocity.grad, expected["grad_v_pred"])
    near(network.patches.grad, expected["grad_h_t"])
    assert not loss(batch(image), given(first(inputs["noise"])), step=100)["repa"].any()


def test_three_steps(golden, reference_transform):
    """Losses, gradient norms, weights and average; the reference never trains the projector, so neither is it here."""
    case = find("01_trainer_checkpoint")
    config, inputs = case.case["config"], case.inputs
    model = pc.build_model("pixelhdm", params_of(config), device="cpu")
    model.network.requires_grad_(True).load_state_dict(part_of(inputs, "init."))
    objective = ObjectiveConfig(
        dropout=0.0,
        repa=RepaConfig(projector="conv", block=config["repa_align_layer"], weight=config["repa_lambda"]),
        frequency=FrequencyConfig(weight=config["freq_loss_lambda"], quality=config["freq_loss_quality"]),
        gamma_penalty=config["pixel_gamma_l2_lambda"],
    )
    encoder = FixedFeatures(inputs["step0.dino_features"], (3, 4))
    loss = Loss(model, objective, encoder)
    loss.projector.load_state_dict(part_of(inputs, "projector."))
    decayed, others = [], []
    for name, parameter in model.network.named_parameters():
        (others if any(part in name for part in ("bias", "norm", "embeddings")) else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100, 1e-5)
    average = {name: tensor.clone() for name, tensor in loss.weights().items()}
    decided = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in average.items()}
    for step, metrics in enumerate(case.case["metrics"]):
        given_here = part_of(inputs, f"step{step}.")
        encoder.features = given_here["dino_features"]
        eps = config["time_eps"]
        normal = torch.logit((given_here["t"].double() - eps) / (1 - 2 * eps)).float()
        text = ("text_embeddings", "text_mask", "pooled_text_embed")
        rows = batch(given_here["images"], *(given_here[name] for name in text))
        parts = loss(rows, given(given_here["noise"], normal))
        total = sum(parts.values()).mean()
        optimizer.zero_grad()
        total.backward()
        for name, parameter in model.network.named_parameters():
            decided[name] &= parameter.grad.abs() > ROUNDING * parameter.grad.abs().max()
        norm = nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for name, tensor in loss.weights().items():
            average[name] = 0.9 * average[name] + 0.1 * tensor.detach()
        names = {"flow": "vloss", "repa": "repa", "frequency": "freq", "gamma": "gamma_l2"}
        for part, name in names.items():
            assert parts[part].mean().item() == pytest.approx(metrics[f"loss_{name}"], rel=1e-4), part
        assert total.item() == pytest.approx(metrics["loss"], rel=1e-4)
        assert norm.item() == pytest.approx(metrics["grad_norm"], rel=1e-4)
        assert schedule.get_last_lr()[0] == pytest.approx(metrics["learning_rate"], rel=1e-6)
    stored = torch.load(case.checkpoint, weights_only=True)
    undecided = sum((~mask).sum().item() for mask in decided.values())
    assert undecided < 1e-3 * sum(mask.numel() for mask in decided.values())
    for tensors, expected in ((loss.weights(), stored["model"]), (average, stored["ema"]["shadow"])):
        for name, tensor in tensors.items():
            reach = torch.where(decided[name], 1e-3, 2 * 3 * 1e-3)  # 3 steps there instead of 3 back
            assert ((tensor - expected[name]).abs() <= reach).all(), name
            near(tensor[decided[name]], expected[name][decided[name]], 2e-4)
