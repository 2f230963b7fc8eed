"""The frozen encoder in training: what is dropped of it and when, and that it gets no gradient."""

import pytest
import torch
from factories import tiny_model
from helpers import close, randn
from objective_cases import FixedFeatures, batch, given
from pixeldit2_cases import TINY, count_rows, tiny

import pixeldit_core as pc
from pixeldit_core.training.config import ObjectiveConfig, OptimConfig, RepaConfig
from pixeldit_core.training.draws import DROPOUT, GROUNDING, JOINT, draw
from pixeldit_core.training.frozen import has_encoder, set_trainable, trainable
from pixeldit_core.training.lora import target_names
from pixeldit_core.training.loss import Loss
from pixeldit_core.training.optim import build_optimizers

PLACE = "dino_conditioner.encoder."
SIZE = (8, 12)


def model_in_training(params=TINY):
    model = tiny(params)
    set_trainable(model)
    return model


def parts_of(config, draws, step=0):
    """Labels and skip that the network is called with, and the losses."""
    model, seen = model_in_training(), []
    loss = Loss(model, config)
    model.network.register_forward_hook(lambda _, arguments, output: seen.append(arguments[2:]))
    rows = len(draws.noise)
    parts = loss(batch(randn(rows, 3, *SIZE), torch.zeros(rows, dtype=torch.int64)), draws, step)
    return (*seen[0], parts["flow"])


def draws_with(rows, **columns):
    draws = given(randn(rows, 3, *SIZE, seed=2))
    for column, values in columns.items():
        draws.uniform[:, {"label": DROPOUT, "grounding": GROUNDING, "joint": JOINT}[column]] = torch.tensor(values)
    return draws


def test_class_and_grounding_are_dropped_each_on_its_own_and_together():
    draws = draws_with(4, label=[0.05, 0.5, 0.5, 0.05], grounding=[0.5, 0.05, 0.5, 0.05], joint=[0.5, 0.5, 0.04, 0.5])
    labels, skip, _ = parts_of(ObjectiveConfig(joint_dropout=0.05), draws)
    assert labels.tolist() == [5, 0, 5, 5] and skip.tolist() == [
        False,
        True,
        True,
        True,
    ]
    labels, skip, _ = parts_of(ObjectiveConfig(), draws)
    assert labels.tolist() == [5, 0, 0, 5] and skip.tolist() == [False, True, False, True]
    labels, skip, _ = parts_of(ObjectiveConfig(grounding_dropout=0.0, dropout=0.0), draws)
    assert labels.tolist() == [0] * 4 and not skip.any()


def test_nothing_is_dropped_of_the_grounding_before_its_start():
    config = ObjectiveConfig(joint_dropout=0.05, grounding_dropout_start=7)
    draws = draws_with(3, label=[0.05, 0.5, 0.5], grounding=[0.5, 0.05, 0.5], joint=[0.5, 0.5, 0.04])
    labels, skip, _ = parts_of(config, draws, step=6)
    assert labels.tolist() == [5, 0, 0] and not skip.any()
    labels, skip, _ = parts_of(config, draws, step=7)
    assert labels.tolist() == [5, 0, 5] and skip.tolist() == [False, True, True]


def test_shares_are_as_published():
    """Of the numbers that seeds give: independent of each other."""
    uniform = draw(torch.arange(4000), (1, 1, 1), "cpu").uniform
    dropped = uniform[:, [DROPOUT, GROUNDING]] < 0.1
    joint = uniform[:, JOINT] < 0.05
    assert dropped.float().mean(0).tolist() == pytest.approx([0.1, 0.1], abs=0.02)
    assert dropped.all(1).float().mean().item() == pytest.approx(0.01, abs=0.007)
    assert (dropped.all(1) | joint).float().mean().item() == pytest.approx(0.06, abs=0.015)


def test_a_batch_without_grounding_calls_the_whole_network_and_its_loss_is_the_same():
    """So that every weight has a gradient, though zero, in each process of a run."""
    config = ObjectiveConfig(dropout=0.0)
    rows, image = randn(3, 3, *SIZE, seed=2), randn(3, 3, *SIZE)
    draws, labels = draws_with(3, grounding=[0.0, 0.5, 0.0]), torch.tensor([1, 2, 3])
    expected = Loss(model_in_training(), config)(batch(image, labels), draws)["flow"]
    model = model_in_training()
    seen, loss = count_rows(model), Loss(model, config)
    part = given(rows[[0, 2]])
    part.uniform[:, GROUNDING] = 0.0
    found = loss(batch(image[[0, 2]], labels[[0, 2]]), part)["flow"]
    assert seen == {"network": [3], "encoder": [1]}
    close(found, expected[[0, 2]], 1e-5)
    found.sum().backward()
    for name, parameter in trainable(model):
        assert parameter.grad is not None, name
        if name.startswith("dino_conditioner."):
            assert not parameter.grad.any(), name
        elif "k_norm" not in name and "q_norm" not in name:
            assert parameter.grad.any(), name


def test_alignment_leaves_out_the_row_that_counts_nothing():
    model = model_in_training()
    features = FixedFeatures(randn(2, 6, 5), (2, 3))
    loss = Loss(model, ObjectiveConfig(grounding_dropout=1.0, repa=RepaConfig(block=1)), features)
    parts = loss(batch(randn(2, 3, *SIZE), torch.tensor([0, 1])), given(randn(2, 3, *SIZE)))
    assert parts["flow"].shape == parts["repa"].shape == (2,)


def test_the_encoder_is_in_no_optimizer_and_no_average_and_gets_no_gradient():
    model = model_in_training()
    loss = Loss(model, ObjectiveConfig(grounding_dropout=0.0))
    loss(batch(randn(2, 3, *SIZE), torch.tensor([0, 1])), given(randn(2, 3, *SIZE)))["flow"].sum().backward()
    network = model.network
    frozen = {id(parameter) for name, parameter in network.named_parameters() if name.startswith(PLACE)}
    assert frozen and all(p.grad is None for p in network.parameters() if id(p) in frozen)
    assert all(p.grad is not None for p in network.parameters() if id(p) not in frozen)
    for optimizer in ("adamw", "muon"):
        for each in build_optimizers(loss, OptimConfig(optimizer=optimizer, weight_decay=0.1)):
            assert not frozen & {id(p) for group in each.param_groups for p in group["params"]}
    assert not any(name.startswith(PLACE) for name in loss.weights())
    assert {*loss.weights(), *loss.frozen_weights()} == set(network.state_dict())
    assert all(name.startswith(PLACE) for name in loss.frozen_weights())


def test_shares_of_an_encoder_become_whole_again(tmp_path):
    """FSDP's, of blocks and of the rest, with and without gradients."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        model, mesh = model_in_training(), dist.init_device_mesh("cpu", (1,))
        expected = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
        loss = Loss(model, ObjectiveConfig(grounding_dropout=1.0))
        for block in model.network.patch_blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(loss, mesh=mesh)
        loss(batch(randn(2, 3, *SIZE), torch.tensor([0, 1])), given(randn(2, 3, *SIZE)))["flow"].sum().backward()
        whole = {name: tensor.full_tensor() for name, tensor in (loss.weights() | loss.frozen_weights()).items()}
        assert all(torch.equal(whole[name], tensor) for name, tensor in expected.items())
        assert all((p.grad is None) == (PLACE in name) for name, p in model.network.named_parameters())
    finally:
        dist.destroy_process_group()


def test_a_lora_never_targets_the_encoder():
    model = tiny()
    for targets in ((), ("qkv", "proj")):
        names = target_names(model.network, targets, model.family.encoder)
        assert names and not any(name.startswith(PLACE) for name in names)
    with pytest.raises(ValueError, match='no matrix is called "fc1"'):
        target_names(model.network, ("fc1",), model.family.encoder)


def test_networks_without_an_encoder_train_as_before_and_refuse_its_keys():
    model = tiny_model()
    assert not has_encoder(model) and set(dict(trainable(model))) == set(dict(model.network.named_parameters()))
    for key in ("grounding_dropout", "joint_dropout"):
        with pytest.raises(ValueError, match="looks through no encoder: leave them out; they are for PixelDiT2"):
            Loss(model, ObjectiveConfig(**{key: 0.1}))


def test_a_pixeldit2_without_its_encoder_is_refused(tmp_path):
    path = pc.save_checkpoint(tiny(), tmp_path / "bare.safetensors", encoder="none")
    bare = pc.load_checkpoint(path, encoder="none")
    with pytest.raises(ValueError, match="bare.safetensors is PixelDiT2.* has none: set model.encoder to its file"):
        Loss(bare, ObjectiveConfig())
