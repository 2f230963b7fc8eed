"""The classifier: its training, its file, and the extractor that torch-fidelity uses."""

import json
import pickle

import pytest
import torch
from helpers import MODELS
from safetensors.torch import load_file, save_file
from torch_fidelity import calculate_metrics
from torch_fidelity.utils import create_feature_extractor

from pixeldit_core.evaluation import (
    Classifier,
    accuracy,
    confusion_matrix,
    load_classifier,
    match_labels,
    register_classifier,
    report,
    save_classifier,
    train_classifier,
)

NAMES = ("cat", "dog", "owl")


def stripes(count, channels=3, size=16, seed=0):
    """Noisy images with horizontal stripes, vertical ones or a checkerboard of both, and which of them."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, channels, size, size), generator=rng, dtype=torch.uint8)
    across, down = (torch.arange(size) // 2 % 2).expand(size, size), (torch.arange(size) // 2 % 2)[:, None]
    patterns = torch.stack([down.expand(size, size), across, across ^ down]).to(torch.uint8)
    labels = torch.arange(count) % 3
    return images + 150 * patterns[labels][:, None], labels


@pytest.fixture(scope="module")
def trained():
    return train_classifier(*stripes(300), 3, epochs=8, batch_size=16)


@pytest.fixture
def file(trained, tmp_path):
    return save_classifier(trained, tmp_path / "judge.safetensors", NAMES, {"held_out_accuracy": 1.0})


@pytest.fixture
def gray(tmp_path):
    torch.manual_seed(0)
    return save_classifier(Classifier(3, 1, (16, 16)).eval(), tmp_path / "gray.safetensors", NAMES)


def rewritten(file, change, metadata=None):
    """A copy of a classifier with other tensors or metadata."""
    tensors = load_file(file)
    change(tensors)
    declared = {"format": "pixeldit-classifier", "class_names": json.dumps(NAMES), "channels": "3", **(metadata or {})}
    save_file(tensors, file, {"image_size": "[16, 16]", **declared})
    return file


# training and accuracy


def test_it_learns_what_separates_the_classes(trained):
    images, labels = stripes(90, seed=1)
    assert accuracy(trained.predict(images), labels) == 1.0
    assert not trained.training


def test_training_repeats_and_leaves_torch_s_generator_alone():
    state = torch.get_rng_state()
    images, labels = stripes(12)
    first, second = (train_classifier(images, labels, 3, epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_takes_bytes_and_floats_and_means_over_the_image(trained):
    images, _ = stripes(4)
    floats = images.float() / 127.5 - 1
    assert torch.equal(trained(images), trained(floats))
    features = trained.features(images)
    assert features.shape == (4, 128) and features.dtype == torch.float32
    assert torch.equal(features, trained.convolutions(floats).mean((2, 3)))
    assert torch.equal(trained.logits(features), trained(images))


def test_every_image_is_counted_once():
    logits = torch.randn(300, 3)
    labels = torch.arange(300) % 3
    matrix = confusion_matrix(labels, logits.argmax(1), 3)
    assert matrix.sum() == 300 and matrix.sum(1).tolist() == [100] * 3
    assert accuracy(logits, labels) == pytest.approx(matrix.trace().item() / 300)
    assert confusion_matrix(torch.tensor([1]), torch.tensor([2]), 3).nonzero().tolist() == [[1, 2]]


def test_the_report_names_what_was_confused():
    matrix = torch.tensor([[8, 0, 2], [0, 10, 0], [0, 0, 0]])
    text = report(matrix, NAMES)
    assert "| cat | 10 | 80.0% | owl 2 |" in text and "| owl | 0 | 0.0% |  |" in text
    assert "| all | 20 | 90.0% | |" in text


def test_labels_are_matched_by_name():
    labels = torch.tensor([2, 0, 0, 1])
    assert match_labels(labels, [("owl",), ("hound", "dog"), ("cat",)], NAMES).tolist() == [0, 2, 2, 1]
    assert match_labels(labels, None, NAMES).tolist() == [2, 0, 0, 1]
    with pytest.raises(
        ValueError, match=r"class 1 of the model \(cow\) is not a class of the classifier, which has cat"
    ):
        match_labels(labels, [("owl",), ("cow",), ("cat",)], NAMES)
    with pytest.raises(ValueError, match=r"class 3 of the model \(without a name\)"):
        match_labels(torch.tensor([3]), None, NAMES)


# the file


def test_a_file_gives_the_same_classifier(trained, file):
    loaded, names = load_classifier(file)
    images, _ = stripes(5, seed=2)
    assert names == NAMES and loaded.image_size == (16, 16) and not loaded.training
    assert torch.equal(loaded(images), trained(images))
    file.unlink()  # the weights are not those of a mapped file
    assert torch.equal(loaded(images), trained(images))


def test_the_file_says_what_it_is(file):
    length = int.from_bytes(file.read_bytes()[:8], "little")
    metadata = json.loads(file.read_bytes()[8 : 8 + length])["__metadata__"]
    assert metadata["format"] == "pixeldit-classifier" and json.loads(metadata["class_names"]) == list(NAMES)
    assert json.loads(metadata["held_out_accuracy"]) == 1.0 and json.loads(metadata["image_size"]) == [16, 16]


def test_a_target_of_another_kind_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match=r"judge.pt: only .safetensors is written"):
        save_classifier(trained, tmp_path / "judge.pt", NAMES)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00" * 100, pickle.dumps({"head.weight": 1})])
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "some.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"some.safetensors is not a .safetensors file .* toy_data/classifier.py"):
        load_classifier(path)


def test_a_file_of_torch_is_not_unpickled(trained, tmp_path):
    path = tmp_path / "judge.pt"
    torch.save(trained.state_dict(), path)
    with pytest.raises(ValueError, match=r"judge.pt is not a .safetensors file"):
        load_classifier(path)


def test_other_weights_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ValueError, match="emoji-96.safetensors is a PixelDiT checkpoint, not a classifier"):
        load_classifier(MODELS / "pixeldit-emoji-96.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is weights of something else, not a classifier"):
        load_classifier(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        load_classifier(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        load_classifier(tmp_path)


@pytest.mark.parametrize("change", [
    lambda tensors: tensors.pop("head.bias"),
    lambda tensors: tensors.update(extra=torch.zeros(1)),
    lambda tensors: tensors.update({"head.weight": torch.zeros(4, 128)}),
    lambda tensors: tensors.update({"head.bias": torch.zeros(3, dtype=torch.float16)}),
    lambda tensors: tensors["head.weight"].fill_(torch.nan),
])  # fmt: skip
def test_damaged_tensors_are_refused(file, change):
    with pytest.raises(ValueError, match=r"judge.safetensors is a damaged classifier: \w+.* \(1 such tensors\)"):
        load_classifier(rewritten(file, change))


@pytest.mark.parametrize("metadata", [
    {"class_names": "[1, 2, 3]"}, {"class_names": '"cat"'}, {"class_names": "[]"}, {"class_names": "[" * 100_000},
    {"channels": "2"}, {"channels": "x"}, {"image_size": "[16]"}, {"image_size": "[0, 16]"}, {"image_size": "7"},
])  # fmt: skip
def test_damaged_metadata_is_refused(file, metadata):
    with pytest.raises(ValueError, match="class names, channels or image size are not readable"):
        load_classifier(rewritten(file, lambda tensors: None, metadata))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(file, share):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"judge.safetensors is damaged or truncated"):
        load_classifier(file)


# the extractor


def extractor(weights, *features):
    name = register_classifier()
    return create_feature_extractor(
        name, list(features), cuda=False, feature_extractor_weights_path=weights, verbose=False
    )


def test_it_is_registered_once_and_gives_features_in_the_order_asked_for(file, trained):
    assert register_classifier() == register_classifier() == "classifier"
    images, _ = stripes(4)
    for order in (("features", "logits"), ("logits", "features"), ("logits",)):
        values = extractor(str(file), *order)(images)
        expected = {"features": trained.features(images), "logits": trained(images)}
        assert isinstance(values, tuple) and len(values) == len(order)
        assert all(torch.equal(value, expected[name]) for value, name in zip(values, order, strict=True))
        assert all(value.dtype == torch.float32 and not value.requires_grad for value in values)


def test_a_classifier_of_gray_images_takes_one_channel(gray):
    images, _ = stripes(4, channels=1)
    (logits,) = extractor(gray, "logits")(images.repeat(1, 3, 1, 1))
    assert torch.equal(logits, load_classifier(gray)[0](images))
    with pytest.raises(ValueError, match=r"the images have colors, and gray.safetensors was trained on gray ones"):
        extractor(gray, "logits")(stripes(4)[0])


def test_images_of_another_size_are_refused(file):
    with pytest.raises(ValueError, match=r"the images are 16 x 20 .* judge.safetensors was trained at 16 x 16"):
        extractor(file, "features")(torch.zeros(1, 3, 16, 20, dtype=torch.uint8))


def test_what_it_cannot_do_is_refused(file):
    with pytest.raises(ValueError, match="needs its weights: name the file .* --extractor-weights"):
        extractor(None, "features")
    with pytest.raises(ValueError, match=r"Requested features \('2048',\) are not"):
        extractor(file, "2048")


class Images(torch.utils.data.Dataset):
    """Images as torch-fidelity takes them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def test_torch_fidelity_computes_its_metrics_with_it(file):
    known, same = (Images(stripes(30, seed=seed)[0]) for seed in (3, 4))
    one_class = Images(known.images[::3])
    options = {
        "feature_extractor": register_classifier(), "feature_extractor_weights_path": str(file), "cuda": False,
        "isc": True, "fid": True, "prc": True, "isc_splits": 1, "cache": False, "verbose": False, "save_cpu_ram": True,
    }  # fmt: skip
    balanced = calculate_metrics(input1=same, input2=known, **options)
    collapsed = calculate_metrics(input1=one_class, input2=known, **options)
    assert balanced["frechet_inception_distance"] < collapsed["frechet_inception_distance"] / 10
    assert balanced["inception_score_mean"] > 2 > 1.2 > collapsed["inception_score_mean"]
    assert balanced["recall"] > collapsed["recall"]
