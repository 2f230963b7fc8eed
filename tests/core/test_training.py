"""The objective against golden data, time sampling, the average, initialization and short runs."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from xpred_cases import case_params, weights_of

import pixeldit_core as pc
from pixeldit_core.families.pixeldit.class_to_image import PixelDiT, PixelDiTParams
from pixeldit_core.families.xpred.network import network_class
from pixeldit_core.flow.path import FlowPath
from pixeldit_core.flow.times import shift_time
from pixeldit_core.training import trainer
from pixeldit_core.training.image_folder import read_image_folder
from pixeldit_core.training.initialize import initialize
from pixeldit_core.training.objective import drop_labels, flow_matching_loss, logit_normal_times
from pixeldit_core.training.trainer import TrainingSettings, build_optimizers, learning_rate_at, split_parameters, train

ROOT = Path(__file__).parents[2]
CASE = ROOT / "tests" / "golden" / "official" / "c2i_training_loss"
TINY = PixelDiTParams(
    hidden_size=24, num_groups=2, patch_depth=1, pixel_depth=1, patch_size=8, pixel_hidden_size=4, num_classes=12
)
TINY_XPRED = pc.XPredParams(
    dim=16, depth=1, in_channels=1, heads=2, dim_head=8, image_size=28, pixel_dim=4, pixel_depth=1, compress_ratio=4
)


def tiny_model(seed=0, family="pixeldit", params=TINY):
    model = pc.build_model(family, params, device="cpu")
    torch.manual_seed(seed)
    initialize(model)
    return model


def stripes(count, size=16, channels=3, classes=12):
    """Images that a few steps can learn something from: one brightness per class, and a dark stripe."""
    labels = torch.arange(count) % classes
    images = (20 * labels).byte().view(-1, 1, 1, 1).repeat(1, size, size, channels)
    images[:, size // 4 : size // 2] = 0
    return images, labels


def test_loss_reproduces_the_published_trainer():
    if not CASE.exists():
        pytest.skip(f"golden data is not here: {CASE}")
    inputs, outputs = load_file(CASE / "inputs.safetensors"), load_file(CASE / "outputs.safetensors")
    network = PixelDiT(
        PixelDiTParams(
            hidden_size=24,
            num_groups=2,
            patch_depth=2,
            pixel_depth=1,
            patch_size=4,
            pixel_hidden_size=4,
            num_classes=10,
        )
    )
    weights = load_file(CASE / "checkpoint.safetensors")
    network.load_state_dict({k.removeprefix("denoiser."): v for k, v in weights.items() if k.startswith("denoiser.")})
    path = pc.FAMILIES["pixeldit"].path(network.params)
    times = logit_normal_times(inputs["normal_for_t"], timeshift=1.0)
    torch.testing.assert_close(times, outputs["t"], atol=1e-6, rtol=0)
    x_t = path.interpolate(inputs["image"], inputs["noise"], times)
    torch.testing.assert_close(x_t, outputs["x_t"], atol=1e-6, rtol=0)
    loss = flow_matching_loss(network, path, inputs["image"], inputs["noise"], times, inputs["labels_after_dropout"])
    torch.testing.assert_close(loss, outputs["fm_loss"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["loss_a", "loss_b"])
def test_loss_reproduces_the_trainer_of_the_x_prediction_networks(golden, name):
    case = golden("flow-loss", "xpred")
    given, expected = (
        {key.removeprefix(f"{name}."): value for key, value in part.items()} for part in (case.inputs, case.outputs)
    )
    params = case_params(case.case)
    network = network_class(params)(params)
    network.load_state_dict(weights_of(case))
    path = FlowPath("image", min_noise_level=0.05)
    times, labels = (
        expected["t"],
        drop_labels(given["y"], (~given["drop_mask"].bool()).float(), 0.5, params.num_classes),
    )
    assert torch.equal(labels, expected["y_used"])
    loss = flow_matching_loss(network, path, given["x1"], given["x0"], times, labels)
    torch.testing.assert_close(loss, expected["loss"].squeeze(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("predicts", ["velocity", "negative_velocity", "image"])
def test_the_loss_of_a_perfect_prediction_is_zero_at_all_times(predicts):
    path = FlowPath(predicts, time_scale=1000.0, counts_noise=True, noise_scale=2.0, min_noise_level=0.05)
    image, noise = torch.randn(2, 4, 3, 4, 4)
    t = torch.tensor([0.0, 0.5, 0.98, 1.0])

    def perfect(x, time):
        assert torch.equal(x[0], 2 * noise[0]) and torch.equal(x[3], image[3])
        torch.testing.assert_close(time, 1000 * (1 - t))
        return path.target(image, noise)

    assert flow_matching_loss(perfect, path, image, noise, t) == 0
    assert flow_matching_loss(lambda *arguments: perfect(*arguments) + 1, path, image, noise, t) >= 1


def test_times_are_logit_normal():
    times = logit_normal_times(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert 0 < times.min() and times.max() < 1
    assert times.mean().item() == pytest.approx(0.5, abs=0.003)
    assert times.std().item() == pytest.approx(0.2083, abs=0.003)  # of sigmoid(N(0,1))
    assert (times < 1 / (1 + math.e)).float().mean().item() == pytest.approx(0.1587, abs=0.005)  # one sigma


def test_timeshift_moves_towards_noise_and_keeps_the_ends():
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shift_time(t, 3.0), torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(shift_time(t, 1.0), t)


def test_labels_drop_to_the_null_class():
    labels = drop_labels(torch.arange(4), torch.tensor([0.05, 0.1, 0.5, 0.09]), 0.1, 12)
    assert labels.tolist() == [12, 1, 2, 12]


def test_initial_network_predicts_zero_and_only_the_right_tensors_are_zero():
    network = tiny_model().network
    zero = {name for name, p in network.named_parameters() if not p.any()}
    expected = {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    assert zero == expected
    assert not network(torch.randn(1, 3, 16, 16), torch.rand(1), torch.tensor([12])).any()


def test_initialize_fills_unfilled_memory_the_same_way_each_time():
    first, second = tiny_model(3), pc.build_model("pixeldit", TINY, device="cpu")
    with torch.no_grad():
        for parameter in second.network.parameters():
            parameter.fill_(float("nan"))
    for model in (second, first):
        torch.manual_seed(3)
        initialize(model)
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    table = torch.cat([tiny_model(s).network.y_embedder.embedding_table.weight.flatten() for s in range(8)])
    assert table.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("family", [name for name in pc.FAMILIES if name.startswith("xpred")])
def test_x_prediction_networks_start_from_zero(family):
    variant = next(variant for variant in pc.VARIANTS.values() if variant.family == family)
    model = tiny_model(0, family, variant.params)
    size, channels = variant.params.image_size, variant.params.in_channels
    assert not model.network(torch.randn(1, channels, size, size), torch.zeros(1), torch.zeros(1).long()).any()


def test_other_families_are_refused_by_name(tiny_t2i):
    with pytest.raises(ValueError, match="pixeldit_t2i cannot be trained; families that can are pixeldit, xpred_dit"):
        initialize(tiny_t2i())


def test_learning_rate_rises_and_falls():
    settings = TrainingSettings(steps=100, warmup=10, decay=0.4, learning_rate=1.0)
    rates = [learning_rate_at(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9:61] == [1.0] * 52
    assert rates[80] == pytest.approx(0.5) and rates[100] == 0


def test_only_matrices_of_blocks_are_muons():
    network = tiny_model().network
    matrices, others = split_parameters(network)
    assert len(matrices) == 6 + 7 and all(p.ndim == 2 for p in matrices)
    assert len(matrices) + len(others) == len(list(network.parameters()))


@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (32, 32)])
def test_muon_takes_an_orthogonal_step_of_adamw_s_size(shape):
    """Three steps against the formulas in float64; torch iterates in bfloat16, which leaves up to 2 % of a step."""
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Module()
    network.patch_blocks = torch.nn.Linear(*reversed(shape))
    weight = network.patch_blocks.weight
    muon, _ = build_optimizers(network, TrainingSettings(learning_rate=0.1))
    average, expected = torch.zeros(shape).double(), weight.detach().double().clone()
    for _ in range(3):
        weight.grad = torch.randn(shape, generator=generator)
        gradient = weight.grad.double()
        average.lerp_(gradient, 0.05)
        x = gradient.lerp(average, 0.95)  # Nesterov
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.mT
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        expected -= 0.1 * 0.2 * max(shape) ** 0.5 * x
        before = weight.detach().clone()
        muon.step()
        size = (weight.detach() - before).square().mean().sqrt()
        assert 0.1 < size / 0.1 < 0.25
    assert (weight.detach() - expected).norm() < 0.02 * (3 * size * weight.numel() ** 0.5)


def test_an_older_torch_is_refused_by_its_version(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match="torch>=2.9"):
        build_optimizers(tiny_model().network, TrainingSettings())


def test_twenty_steps_lower_the_loss_and_repeat_exactly():
    settings = TrainingSettings(steps=20, batch_size=16, warmup=2, learning_rate=1e-2, compile=False, bfloat16=False)

    def run():
        model, losses = tiny_model(), []
        average = train(model, *stripes(48), settings, lambda step, loss, _: losses.append(loss))
        return losses, average.module.state_dict()

    losses, average = run()
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    again, same = run()
    assert losses == again
    assert all(torch.equal(average[name], same[name]) for name in average)


def test_the_average_is_exponential_from_the_first_step():
    model, seen = tiny_model(), []
    settings = TrainingSettings(steps=6, batch_size=4, warmup=1, ema_decay=0.8, compile=False, bfloat16=False)
    weight = model.network.final_layer.linear.weight
    average = train(model, *stripes(12), settings, lambda *_: seen.append(weight.detach().clone()))
    expected = seen[0]
    for value in seen[1:]:
        expected = 0.8 * expected + 0.2 * value
    torch.testing.assert_close(average.module.final_layer.linear.weight, expected)


def test_a_few_steps_teach_an_x_prediction_network():
    model = tiny_model(0, "xpred_pixeldit", TINY_XPRED)
    losses = []
    settings = TrainingSettings(steps=60, batch_size=16, warmup=2, flip=False, compile=False, bfloat16=False)
    train(model, *stripes(64, 28, 1, 10), settings, lambda step, loss, average: losses.append(loss))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_batches_are_in_the_model_s_range_and_epochs_complete():
    images, labels = stripes(12)
    settings = TrainingSettings(batch_size=4, label_dropout=0.5)
    batches = trainer._batches(tiny_model(), images, labels, settings)
    image, noise, t, label = next(batches)
    assert image.shape == noise.shape == (4, 3, 16, 16) and image.min() == -1 and image.max() <= 1
    assert t.shape == label.shape == (4,)
    brightness = [image[:, 0, 0, 0]] + [next(batches)[0][:, 0, 0, 0] for _ in range(2)]
    assert sorted(((torch.cat(brightness) + 1) * 127.5 / 20).round().int().tolist()) == list(range(12))


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="12 images"):
        train(tiny_model(), *stripes(12), TrainingSettings(steps=1, batch_size=16, compile=False))


def write_folder(folder, names, size=8, mode="RGB"):
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new(mode, (size, size), (label,) * len(mode)).save(folder / name / f"{number}.png")


def test_an_image_folder_is_read_class_by_class(tmp_path):
    write_folder(tmp_path, ["b", "a"])
    images, labels = read_image_folder(tmp_path, ["b", "a"])
    assert images.shape == (4, 8, 8, 3) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 1, 1] and images[:, 0, 0, 0].tolist() == [0, 0, 1, 1]
    assert read_image_folder(tmp_path, ["b", "a"], channels=1)[0].shape == (4, 8, 8, 1)


@pytest.mark.parametrize(
    "names, message",
    [
        (["a", "b", "c"], "lacks class folders: c"),
        (["a"], "has unexpected class folders: b"),
    ],
)
def test_an_image_folder_of_other_classes_is_refused(tmp_path, names, message):
    write_folder(tmp_path, ["a", "b"])
    with pytest.raises(ValueError, match=message):
        read_image_folder(tmp_path, names)


def test_an_image_folder_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_image_folder(tmp_path / "nowhere", ["a"])
    write_folder(tmp_path, ["a"])
    Image.new("RGB", (9, 8)).save(tmp_path / "a" / "odd.png")
    with pytest.raises(ValueError, match="several sizes .8 x 8, 9 x 8"):
        read_image_folder(tmp_path, ["a"])
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="has no images"):
        read_image_folder(tmp_path, ["a"])


def test_sampling_does_not_import_training():
    code = "import sys, pixeldit_core.cli; print([name for name in sys.modules if 'training' in name])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
