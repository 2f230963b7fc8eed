"""The loss and four steps of the trainer of the x-prediction networks, against golden data."""

import pytest
import torch
from helpers import close
from objective_cases import batch, given, part_of
from xpred_cases import case_params, family_of, find, weights_of

import pixeldit_core as pc
from pixeldit_core.training.config import ObjectiveConfig
from pixeldit_core.training.loss import Loss

# The published trainer puts uniform numbers where normal ones belong (spec: xpred, 5), so the test does, too.
CONFIG = ObjectiveConfig(time_mean=-0.8, time_std=0.8, min_noise_level=0.05, dropout=0.1)


def build(case):
    params = case_params(case.case)
    model = pc.build_model(family_of(params), params, device="cpu")
    model.network.requires_grad_(True).load_state_dict(weights_of(case))
    return model


def loss_of(loss, inputs):
    rows = batch(inputs["x1"], inputs["y"])
    return loss(rows, given(inputs["x0"], inputs["u"], inputs["drop_mask"]))["flow"].mean()


@pytest.mark.parametrize("name", ["loss_a", "loss_b"])
def test_the_loss(golden, name):
    case = find("flow-loss")
    inputs, expected = part_of(case.inputs, f"{name}."), part_of(case.outputs, f"{name}.")
    model = build(case)
    calls = []
    model.network.register_forward_hook(lambda _, arguments, output: calls.append((*arguments, output)))
    value = loss_of(Loss(model, CONFIG), inputs)
    ((x, t, labels, prediction),) = calls
    assert torch.equal(labels, expected["y_used"])
    close(t, expected["t"], 1e-6)
    close(x, expected["x_t"], 1e-6)
    close(prediction, expected["pred_x1"], 2e-5)
    close(value, expected["loss"].squeeze(), 2e-5)


def test_four_steps(golden):
    case = find("train-trace")
    (trace,) = case.case["tests"]
    loss = Loss(build(case), CONFIG)
    average = {name: tensor.clone() for name, tensor in loss.weights().items()}
    optimizer = torch.optim.AdamW(loss.parameters(), trace["lr"], weight_decay=0.01)
    for step in range(trace["steps"]):
        value = loss_of(loss, part_of(case.inputs, f"s{step}."))
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(loss.parameters(), trace["clip_max_norm"])
        optimizer.step()
        for name, tensor in loss.weights().items():
            average[name] = average[name] * trace["ema_decay"] + tensor.detach() * (1 - trace["ema_decay"])
        close(value, case.outputs["losses"][step], 2e-5)
        close(norm, case.outputs["grad_norms"][step], 1e-4)
    for prefix, tensors in (("final_model.", loss.weights()), ("final_ema.", average)):
        expected = part_of(case.outputs, prefix)
        assert set(expected) == set(tensors)
        for name, tensor in tensors.items():
            close(tensor, expected[name], 2e-5, name)
