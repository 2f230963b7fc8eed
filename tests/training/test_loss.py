"""The loss module: its parts, its precision, and what it trains."""

import copy
import dataclasses

import pytest
import torch
from factories import TINY_T2I
from helpers import close, randn
from objective_cases import FixedFeatures, batch
from torch.utils.checkpoint import checkpoint

import pixeldit_core as pc
from pixeldit_core.training.config import FrequencyConfig, ObjectiveConfig, RepaConfig
from pixeldit_core.training.draws import draw
from pixeldit_core.training.loss import Loss

HDM = pc.PixelHDMParams(
    hidden_dim=32, pixel_dim=4, patch_size=4, patch_layers=2, pixel_layers=2, num_heads=4, num_kv_heads=2,
    time_embed_dim=32, mrope_text_dim=4, mrope_img_h_dim=2, mrope_img_w_dim=2,
)  # fmt: skip
CLASS = pc.PixelDiTParams(24, 2, 2, 1, patch_size=4, pixel_hidden_size=4, num_classes=12)
SIZE = (8, 12)
REPA = RepaConfig(block=1, projector="conv")
ALL = ObjectiveConfig(repa=REPA, frequency=FrequencyConfig(), gamma_penalty=1e-4)


def random_model(build_tiny, family, params):
    """A model in which every parameter matters."""
    model = build_tiny(0, family, params)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.network.requires_grad_(True).parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def hdm(build_tiny):
    return random_model(build_tiny, "pixelhdm", HDM)


@pytest.fixture
def classes(build_tiny):
    return random_model(build_tiny, "pixeldit", CLASS)


def features(rows=3):
    return FixedFeatures(randn(rows, 6, 10, seed=9), (2, 3))


def texts(rows=3, width=32):
    text = (randn(rows, 5, width, seed=3), torch.ones(rows, 5, dtype=torch.bool), randn(rows, width, seed=4))
    null = (randn(1, 2, width, seed=5), torch.zeros(1, 2, dtype=torch.bool), randn(1, width, seed=6))
    return batch(randn(rows, 3, *SIZE), *text, null=null)


def labels(rows=3):
    return batch(randn(rows, 3, *SIZE), torch.arange(rows))


def draws(rows=3):
    return draw(torch.arange(rows), (3, *SIZE), "cpu")


def row(rows, number):
    """One row of a batch or of draws."""
    part = copy.copy(rows)
    for field in dataclasses.fields(rows):
        value = getattr(rows, field.name)
        if field.name == "condition":
            value = tuple(tensor[number : number + 1] for tensor in value)
        elif field.name != "null":
            value = value[number : number + 1]
        setattr(part, field.name, value)
    return part


def test_parts_are_of_each_image_and_weighted(hdm):
    loss, rows, numbers = Loss(hdm, ALL, features()), texts(), draws()
    parts = loss(rows, numbers)
    assert list(parts) == ["flow", "repa", "frequency", "gamma"]
    assert all(part.shape == (3,) and part.dtype == torch.float32 for part in parts.values())
    every = features().features
    for number in range(3):
        loss.teacher.features = every[number : number + 1]
        alone = loss(row(rows, number), row(numbers, number))
        for name, part in parts.items():
            close(alone[name], part[number : number + 1], 1e-5, name)
    doubled = ObjectiveConfig(
        repa=dataclasses.replace(REPA, weight=1.0), frequency=FrequencyConfig(weight=2.0), gamma_penalty=2e-4
    )
    other = Loss(hdm, doubled, features())
    other.load_state_dict(loss.state_dict())
    for name, part in other(rows, numbers).items():
        close(part, parts[name] * (1 if name == "flow" else 2), 1e-5, name)


def test_the_projector_is_trained_and_saved_and_the_encoder_is_not(classes):
    encoder = FixedFeatures(randn(3, 6, 10), (2, 3))
    loss = Loss(classes, ObjectiveConfig(repa=REPA), encoder)
    names = {name.split(".")[0] for name in loss.state_dict()}
    assert names == {"network", "projector"}
    torch.stack([*loss(labels(), draws()).values()]).sum().backward()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    assert loss.projector.weight.grad.abs().sum() > 0
    assert set(loss.weights()) == set(classes.network.state_dict())
    with_frozen = {id(parameter) for parameter in loss.parameters()}
    assert id(encoder.features) not in with_frozen


def test_alignment_reaches_the_blocks_before_it_alone(classes):
    loss = Loss(classes, ObjectiveConfig(repa=REPA), features())
    loss(labels(), draws())["repa"].sum().backward()
    blocks = classes.network.patch_blocks
    assert blocks[0].attn.qkv.weight.grad.abs().sum() > 0
    assert blocks[1].attn.qkv.weight.grad is None or not blocks[1].attn.qkv.weight.grad.any()


def test_alignment_ends(classes):
    loss = Loss(classes, ObjectiveConfig(repa=dataclasses.replace(REPA, until=5)), features())
    assert loss(labels(), draws(), 4)["repa"].all() and loss.may_leave_out_parameters
    ended = loss(labels(), draws(), 5)["repa"]
    assert ended.tolist() == [0, 0, 0] and loss.teacher.seen[1:] == []


def test_the_encoder_sees_the_clean_image(build_tiny):
    params = pc.XPredParams(
        dim=16, depth=1, in_channels=3, heads=2, dim_head=8, image_size=8, image_mean=(0.4, 0.5, 0.6), image_std=(0.2,)
    )
    model = random_model(build_tiny, "xpred_dit", params)
    loss = Loss(model, ObjectiveConfig(repa=REPA), features())
    image = torch.rand(3, 3, *SIZE)
    normalized = (image - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / 0.2
    loss(batch(normalized, torch.arange(3)), draws())
    ((seen, grid),) = loss.teacher.seen
    assert grid == (2, 3)
    close(seen, image, 1e-6)


@pytest.mark.parametrize("level, weight", [(0.05, 1 / 0.05), (None, 1 / 0.01)])
def test_image_predictions_have_the_published_floor_or_none(build_tiny, level, weight):
    params = pc.XPredParams(dim=16, depth=1, heads=2, dim_head=8, image_size=8)
    model = build_tiny(0, "xpred_dit", params)  # predicts 0
    rows, numbers = batch(torch.ones(2, 3, 8, 8), torch.arange(2)), draw(torch.arange(2), (3, 8, 8), "cpu")
    numbers.normal[:] = torch.logit(torch.tensor(0.99))
    parts = Loss(model, ObjectiveConfig(min_noise_level=level, dropout=0.0))(rows, numbers)
    assert parts["flow"].tolist() == pytest.approx([weight**2] * 2, rel=1e-3)


def test_dropping_gives_rows_the_null_condition(hdm, classes):
    numbers = draws()
    numbers.uniform[:, 1] = torch.tensor([0.05, 0.5, 0.0])
    seen = []
    for model in (hdm, classes):
        model.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    Loss(classes, ObjectiveConfig(dropout=0.1))(labels(), numbers)
    assert seen[-1][2].tolist() == [12, 1, 12]
    rows = texts()
    Loss(hdm, ObjectiveConfig(dropout=0.1))(rows, numbers)
    _, _, states, mask, pooled = seen[-1]
    assert mask.sum(1).tolist() == [0, 5, 0] and torch.equal(states[1], rows.condition[0][1])
    assert torch.equal(states[0, :2], rows.null[0][0]) and torch.equal(pooled[2], rows.null[2][0])
    Loss(classes, ObjectiveConfig(dropout=0.0))(labels(), numbers)
    assert seen[-1][2].tolist() == [0, 1, 2]


def test_times_of_a_family_and_of_a_config(hdm, classes):
    numbers, seen = draws(), []
    for model in (hdm, classes):
        model.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]))
    numbers.normal[:] = torch.tensor([-50.0, 0.0, 50.0])
    Loss(hdm, ObjectiveConfig())(texts(), numbers)
    assert seen[-1].tolist() == pytest.approx([0.05, 0.5, 0.95])
    Loss(classes, ObjectiveConfig(time_mean=1.0, time_std=0.0, timeshift=3.0))(labels(), numbers)
    close(seen[-1], torch.full((3,), 0.731059 / (0.731059 + 3 * 0.268941)), 1e-6)
    Loss(classes, ObjectiveConfig(times="uniform"))(labels(), numbers)
    assert torch.equal(seen[-1], numbers.uniform[:, 0])


def test_the_math_around_the_network_is_in_float32(hdm):
    """Under autocast the parts are what the network's own outputs give in float32."""
    loss, rows, numbers = Loss(hdm, ALL, features()), texts(), draws()
    outputs = []
    hdm.network.register_forward_hook(lambda _, arguments, output: outputs.append((arguments[0], output)))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss(rows, numbers)
    x, velocity = outputs[0]
    assert x.dtype == torch.float32 and velocity.dtype == torch.bfloat16
    exact = loss(rows, numbers)
    error = (velocity.float().movedim(-1, 1) - (rows.image - numbers.noise)).square().mean((1, 2, 3))
    close(rounded["flow"], error, 1e-6)
    assert all(part.dtype == torch.float32 for part in rounded.values())
    assert all((rounded[name] - exact[name]).abs().max() < 0.03 * exact[name].abs().max() for name in exact)


@pytest.mark.parametrize("how", ["whole", "blocks"])
def test_compiled_networks_give_the_same_parts_and_names(hdm, how):
    """Compiled in place after the loss is built, as the engine does."""
    loss, rows, numbers = Loss(hdm, ALL, features()), texts(), draws()
    expected, names = loss(rows, numbers), set(loss.weights())
    network = hdm.network
    for module in [network] if how == "whole" else [*network.patch_blocks, *network.pixel_blocks]:
        module.compile(backend="eager")
    for _ in range(2):
        parts = loss(rows, numbers)
        for name, part in parts.items():
            close(part, expected[name], 1e-6, name)
    assert set(loss.weights()) == names
    torch.compiler.reset()


def test_activation_checkpointing_gives_the_same_gradients(hdm):
    loss, rows, numbers = Loss(hdm, ALL, features()), texts(), draws()

    def gradients():
        loss.zero_grad()
        torch.stack([*loss(rows, numbers).values()]).sum().backward()
        return [parameter.grad.clone() for parameter in loss.parameters()]

    expected = gradients()
    for blocks in (hdm.network.patch_blocks, hdm.network.pixel_blocks):
        for number, block in enumerate(blocks):
            blocks[number] = Checkpointed(block)
    assert set(loss.weights()) == {name.replace("_checkpoint_wrapped_module.", "") for name in hdm.network.state_dict()}
    for gradient, other in zip(gradients(), expected, strict=True):
        close(gradient, other, 1e-6)


class Checkpointed(torch.nn.Module):
    def __init__(self, block):
        super().__init__()
        self._checkpoint_wrapped_module = block

    def forward(self, *arguments, **options):
        return checkpoint(self._checkpoint_wrapped_module, *arguments, use_reentrant=False, **options)


def test_parameters_that_no_image_depends_on_are_announced(build_tiny, classes):
    model = random_model(build_tiny, "pixeldit_t2i", TINY_T2I)
    loss = Loss(model, ObjectiveConfig(times="integer", dropout=0.0))
    rows = batch(randn(3, 3, *SIZE), randn(3, 5, 12))
    loss(rows, draws())["flow"].sum().backward()
    without = [name for name, parameter in loss.named_parameters() if parameter.grad is None]
    assert without and loss.may_leave_out_parameters
    assert not Loss(classes, ObjectiveConfig()).may_leave_out_parameters


def test_objectives_of_other_families_are_refused(classes):
    with pytest.raises(ValueError, match='times is "integer", and PixelDiT, class-conditional takes times from 0 to 1'):
        Loss(classes, ObjectiveConfig(times="integer"))
    with pytest.raises(ValueError, match="gamma_penalty is 0.1, and PixelDiT, class-conditional has no such scales"):
        Loss(classes, ObjectiveConfig(gamma_penalty=0.1))
    with pytest.raises(ValueError, match="block is 9; the network has patch blocks 1 to 2"):
        Loss(classes, ObjectiveConfig(repa=RepaConfig(block=9)), features())
