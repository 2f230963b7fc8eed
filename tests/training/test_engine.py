"""One step of the engine: micro-batches, memory, values that are not finite, and states in files."""

import errno
import math
import shutil

import pytest
import torch
from training_runs import config_of, gradients_of, notes_of, same_state, state_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.training import engine as engine_module
from pixeldit_core.training.loss import Loss
from pixeldit_core.training.recipe import read_recipe
from pixeldit_core.training.run_folder import RunFolder

_ENGINE = {"steps": 12, "batch_size": 8, "save_every": 4, "log_every": 1, "seed": 5}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    return train(config_of(images, engine=_ENGINE), tmp_path_factory.mktemp("runs") / "whole")


def change_loss(monkeypatch, change):
    """Pass each result of the loss through `change(parts, batch, step)`."""
    original = Loss.forward
    monkeypatch.setattr(Loss, "forward", lambda self, batch, draws, step=0: change(original, self, batch, draws, step))


@pytest.mark.parametrize("size", [1, 3, 4])
def test_micro_batches_give_the_gradients_of_the_batch(images, size):
    expected, _ = gradients_of(config_of(images, engine=_ENGINE), 2)
    found, _ = gradients_of(config_of(images, engine=_ENGINE | {"micro_batch": size}), 2)
    scale = max(gradient.abs().max() for gradient in expected.values()).item()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6 * scale, rtol=1e-5)


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_batch(images, whole, tmp_path, monkeypatch, caplog):
    def limited(original, self, batch, draws, step):
        if len(batch.image) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
        return original(self, batch, draws, step)

    change_loss(monkeypatch, limited)
    run = train(config_of(images, engine=_ENGINE), tmp_path)
    assert "micro-batches of 8 images: going on with 4; the batch stays at 8" in caplog.text
    assert "micro-batches of 4 images: going on with 2" in caplog.text
    assert notes_of(run, 12)["micro_batch"] == 2
    expected = state_of(whole, 12)
    for name, tensor in state_of(run, 12).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-4, rtol=1e-3)


def test_one_image_that_does_not_fit_is_an_error(images, tmp_path, monkeypatch):
    def never(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    change_loss(monkeypatch, never)
    with pytest.raises(torch.OutOfMemoryError):
        train(config_of(images, engine=_ENGINE), tmp_path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(images, tmp_path, monkeypatch, bad):
    seen = {}

    def spoil(original, self, batch, draws, step):
        parts = original(self, batch, draws, step)
        seen[step] = {name: tensor.detach().clone() for name, tensor in self.weights().items()}
        return {name: value * bad if step == 5 else value for name, value in parts.items()}

    change_loss(monkeypatch, spoil)
    run = train(config_of(images, engine=_ENGINE), tmp_path)
    assert all(torch.equal(seen[5][name], seen[6][name]) for name in seen[5])
    assert not all(torch.equal(seen[6][name], seen[7][name]) for name in seen[5])
    assert all(tensor.isfinite().all() for tensor in state_of(run, 12).values())
    rows = run.log.read_text("utf-8").splitlines()
    assert rows[0].split(",").index("skipped") and ",1," in rows[-1]
    pc.load_checkpoint(run.model)


def test_many_such_steps_in_a_row_stop_the_run_with_the_last_state_in_place(images, whole, tmp_path, monkeypatch):
    def spoil(original, self, batch, draws, step):
        return {
            name: value * (math.nan if step >= 6 else 1) for name, value in original(self, batch, draws, step).items()
        }

    change_loss(monkeypatch, spoil)
    config = config_of(images, engine=_ENGINE | {"max_skipped": 3})
    with pytest.raises(
        ValueError, match=r"in 3 steps in a row, up to step 9; .* state after step 8 is in .* Lower optim"
    ):
        train(config, tmp_path)
    state = state_of(RunFolder(tmp_path), 8)
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_learning_rate_that_diverges_ends_in_an_error_that_names_it(images, tmp_path):
    config = config_of(
        images, engine=_ENGINE | {"steps": 400, "max_skipped": 3}, optim={"learning_rate": 1e30, "max_grad_norm": None}
    )
    with pytest.raises(ValueError, match="not finite .* Lower optim.learning_rate"):
        train(config, tmp_path)


def test_weights_that_are_not_finite_are_never_saved(images, tmp_path, monkeypatch):
    def spoil(original, self, batch, draws, step):
        parts = original(self, batch, draws, step)
        if step == 5:  # after the gradients' values are decided
            self.network.final_layer.linear.bias.data.fill_(math.inf)
        return parts

    change_loss(monkeypatch, spoil)
    with pytest.raises(ValueError, match=r"weights are not finite .* after step 6; .* The state after step 4 is in"):
        train(config_of(images, engine=_ENGINE), tmp_path)
    assert RunFolder(tmp_path).steps() == [4]
    assert all(tensor.isfinite().all() for tensor in state_of(RunFolder(tmp_path), 4).values())


def test_weights_beyond_fp16_are_no_fault_of_the_disk(images, tmp_path, monkeypatch):
    def spoil(original, self, batch, draws, step):
        parts = original(self, batch, draws, step)
        if step == 3:
            self.network.final_layer.linear.bias.data.fill_(1e6)
        return parts

    change_loss(monkeypatch, spoil)
    config = config_of(images, engine=_ENGINE | {"save_dtype": "fp16"})
    with pytest.raises(ValueError, match=r"after step 4: final_layer.linear.bias has values up to .*=bf16") as raised:
        train(config, tmp_path)
    assert "Free space" not in str(raised.value) and "The state after step 4 is in place" in str(raised.value)
    assert RunFolder(tmp_path).steps() == [4] and not list(tmp_path.rglob("*.part"))


def test_a_full_disk_leaves_the_state_before(images, whole, tmp_path, monkeypatch):
    original = engine_module.save_file

    def full(tensors, path):
        if "step-000008" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(tensors, path)

    config = config_of(images, engine=_ENGINE)
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "save_file", full)
        with pytest.raises(ValueError, match=r"the disk is full. The state after step 4 is in place. Free space"):
            train(config, tmp_path)
    run = RunFolder(tmp_path)
    assert run.steps() == [4] and not list(run.checkpoints.glob(".*"))
    train(config, tmp_path, resume=True)
    assert same_state(state_of(run, 12), state_of(whole, 12))
    assert not list(run.checkpoints.glob(".*"))


def test_accumulation_makes_one_update_of_the_average_per_step(images, tmp_path):
    run = train(
        config_of(images, engine=_ENGINE | {"micro_batch": 2, "steps": 4, "save_every": 1, "keep": 9}), tmp_path
    )
    raw = [state_of(run, step)["network.final_layer.linear.weight"] for step in (1, 2, 3, 4)]
    expected = torch.zeros_like(raw[0])
    for value in raw:
        expected = 0.9 * expected + 0.1 * value
    average = pc.load_checkpoint(run.model).network.final_layer.linear.weight
    torch.testing.assert_close(average, expected)


def test_a_state_of_another_network_is_refused(images, whole, tmp_path):
    shutil.copytree(whole.path, tmp_path / "run")
    text = (tmp_path / "run" / "recipe.yaml").read_text("utf-8").replace("hidden_size: 16", "hidden_size: 32")
    (tmp_path / "run" / "recipe.yaml").write_text(text, "utf-8")
    with pytest.raises(ValueError, match="step-000012 does not fit this run"):
        train(read_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True)
