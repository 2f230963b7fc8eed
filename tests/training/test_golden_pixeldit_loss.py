"""The losses of the official trainers, alignment with an encoder included, against golden data."""

import torch
from helpers import close
from objective_cases import FixedFeatures, batch, given, part_of
from safetensors.torch import load_file

import pixeldit_core as pc
from pixeldit_core.training.config import ObjectiveConfig, RepaConfig
from pixeldit_core.training.loss import Loss
from pixeldit_core.training.objective import integer_table, integer_times, logit_normal_times, noisy

TOLERANCE = 2e-5  # spec: official, 8


def test_the_class_conditional_loss(golden):
    case = golden("c2i_training_loss")
    path = case.folder / "checkpoint.safetensors"
    model, inputs, expected = pc.load_checkpoint(path), case.inputs, case.outputs
    times = logit_normal_times(inputs["normal_for_t"], case.case["timeshift"])
    close(times, expected["t"], 1e-6)
    close(noisy(model.family.path(model.params), inputs["image"], inputs["noise"], times)[0], expected["x_t"], 1e-6)

    repa = RepaConfig(block=case.case["align_layer"], weight=case.case["feat_loss_weight"])
    encoder = FixedFeatures(inputs["encoder_features"], (4, 4))  # more tokens than patches
    loss = Loss(model, ObjectiveConfig(dropout=0.0, repa=repa), encoder)
    loss.projector.load_state_dict(part_of(load_file(path), "diffusion_trainer.proj.0."))
    parts = loss(batch(inputs["image"], inputs["labels_after_dropout"]), given(inputs["noise"], inputs["normal_for_t"]))
    assert list(parts) == ["flow", "repa"] and all(part.shape == (3,) for part in parts.values())
    close(parts["flow"].mean(), expected["fm_loss"], TOLERANCE)
    close(parts["repa"].mean(), 0.5 * expected["cos_loss"], TOLERANCE)
    close(sum(parts.values()).mean(), expected["loss"], TOLERANCE)
    ((clean, grid),) = encoder.seen
    assert grid == (2, 2)
    close(clean, (inputs["image"] + 1) / 2, 1e-6)


def test_the_text_to_image_loss(golden):
    case = golden("t2i_training_loss")
    path = case.folder / "checkpoint.pth"
    model, inputs, expected = pc.load_checkpoint(path), case.inputs, case.outputs
    sigmas, network_times = integer_table(case.case["flow_shift"])
    close(sigmas, expected["sigmas"], 1e-6)
    assert torch.equal(network_times, expected["timestep_map"])
    index = inputs["timestep_index"]
    normal = torch.logit((index + 0.5) / 1000)
    t, time = integer_times(normal, case.case["flow_shift"])
    assert torch.equal(time, expected["net_t"])
    close(noisy(model.family.path(model.params), inputs["image"], inputs["noise"], t)[0], expected["x_t"], 1e-6)

    repa = RepaConfig(
        block=case.case["config"]["repa_encoder_index"],
        hidden_size=32,
        similarity="negative_cosine",
        resample="larger",
        weight=0.5,
    )
    config = ObjectiveConfig(times="integer", timeshift=case.case["flow_shift"], dropout=0.0, repa=repa)
    loss = Loss(model, config, FixedFeatures(inputs["repa_tokens"], (4, 4)))
    stored = pc.read_checkpoint(path)[0]
    loss.projector.load_state_dict(part_of(stored, "_repa_projector."))
    seen = []
    model.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    parts = loss(batch(inputs["image"], pc.text_condition(model, inputs["y"])), given(inputs["noise"], normal))
    assert torch.equal(seen[0], expected["net_t"])
    close(parts["flow"], expected["mse_per_sample"], TOLERANCE)
    close(parts["repa"].mean(), 0.5 * expected["repa_loss"], TOLERANCE)
    close(sum(parts.values()).mean(), expected["total_at_weight_0.5"], TOLERANCE)
