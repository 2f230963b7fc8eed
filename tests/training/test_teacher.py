"""The frozen encoder: tiny random ones of transformers, and what stands for timm's interface."""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import close, randn

from pixeldit_core import extras
from pixeldit_core.training import teacher
from pixeldit_core.training.teacher import IMAGENET_MEAN, IMAGENET_STD, load_teacher, timm_teacher

transformers = pytest.importorskip("transformers")
WIDTH = 24
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def config_of(kind):
    if kind == "dinov2":
        return transformers.Dinov2Config(**SIZES, patch_size=14, image_size=42)
    if kind == "registers":
        return transformers.Dinov2WithRegistersConfig(**SIZES, patch_size=14, image_size=42, num_register_tokens=4)
    if kind == "dinov3":
        return transformers.DINOv3ViTConfig(**SIZES, patch_size=16, image_size=48, num_register_tokens=3)
    if kind == "vit":
        return transformers.ViTConfig(**SIZES, patch_size=16, image_size=48)
    vision = {**SIZES, "patch_size": 16, "image_size": 48}
    return transformers.CLIPConfig(text_config={**SIZES, "vocab_size": 50}, vision_config=vision)


PREFIX = {"dinov2": 1, "registers": 5, "dinov3": 4, "vit": 1, "clip": 1}


@pytest.fixture
def folder(tmp_path):
    """A function that saves a tiny random encoder."""

    def save(kind):
        torch.manual_seed(0)
        model = transformers.AutoModel.from_config(config_of(kind))
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
        model.save_pretrained(tmp_path)
        return tmp_path

    return save


@pytest.mark.parametrize("kind", PREFIX)
@pytest.mark.parametrize("grid", [(3, 3), (2, 4)])
def test_features_are_the_patches_of_the_last_states(folder, kind, grid):
    """Also where positions have to be interpolated: the encoders are of 3 x 3 patches."""
    path = folder(kind)
    encoder = load_teacher(str(path), "cpu")
    p, image = encoder.patch_size, randn(2, 3, 8 * grid[0], 8 * grid[1]).sigmoid()
    features, features_grid = encoder(image, grid)
    assert features.shape == (2, grid[0] * grid[1], WIDTH) and features_grid == grid and encoder.width == WIDTH
    assert not features.requires_grad and not encoder.model.training

    reference = transformers.AutoModel.from_pretrained(path).eval()
    reference = getattr(reference, "vision_model", reference)
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    pixels = F.interpolate((image - mean) / std, (p * grid[0], p * grid[1]), mode="bicubic", align_corners=False)
    options = {"interpolate_pos_encoding": True} if kind in ("vit", "clip") else {}
    states = reference(pixel_values=pixels, **options).last_hidden_state
    assert torch.equal(features, states[:, PREFIX[kind] :])


def test_a_patch_s_feature_depends_on_its_place(folder):
    """Rows and columns are in order: without attention to others, a change of one patch is seen at its own token."""
    encoder = load_teacher(str(folder("dinov2")), "cpu")
    image = torch.full((1, 3, 28, 56), 0.5)
    changed = image.clone()
    changed[:, :, 14:, 42:] = 1.0  # row 1, column 3 of 2 x 4
    before, after = (encoder(picture, (2, 4))[0] for picture in (image, changed))
    assert (before - after).norm(dim=-1).argmax() == 7


def test_the_normalization_is_the_encoder_s_own(folder):
    path = folder("dinov3")
    image = torch.rand(1, 3, 48, 48)
    default, _ = load_teacher(str(path), "cpu")(image, (3, 3))
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    own, _ = load_teacher(str(path), "cpu")(image, (3, 3))
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    as_default, _ = load_teacher(str(path), "cpu")((image - mean) / std * 0.5 + 0.5, (3, 3))
    assert not torch.allclose(default, own, atol=1e-2)
    close(as_default, default, 1e-4)


def test_gray_images_and_a_size_of_its_own(folder):
    encoder = load_teacher(str(folder("dinov2")), "cpu", 28)
    gray = torch.rand(2, 1, 30, 50)
    features, grid = encoder(gray, (6, 10))
    assert grid == (2, 2) and torch.equal(features, encoder(gray.repeat(1, 3, 1, 1), (6, 10))[0])


def test_what_cannot_be_loaded_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="encoder is empty"):
        load_teacher("", "cpu")
    with pytest.raises(ValueError, match="nowhere cannot be loaded"):
        load_teacher(str(tmp_path / "nowhere"), "cpu")
    path = str(folder("dinov2"))
    with pytest.raises(ValueError, match="encoder_size is 30; .* has patches of 14"):
        load_teacher(path, "cpu", 30)
    encoder = load_teacher(path, "cpu")
    encoder._prefix = 0
    with pytest.raises(ValueError, match="returned 10 tokens for 9 patches; expected these and at most 0"):
        encoder(torch.rand(1, 3, 42, 42), (3, 3))


def test_encoders_without_patches_are_refused(tmp_path):
    sizes = {"hidden_sizes": [8, 8], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
    transformers.AutoModel.from_config(transformers.ResNetConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no patches of one size: choose a vision transformer"):
        load_teacher(str(tmp_path), "cpu")


@pytest.mark.parametrize("package, name", [("transformers", "some/encoder"), ("timm", "timm:vit_small")])
def test_a_missing_package_is_named(monkeypatch, package, name):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=f"needs the package {package}.*pip install -e"):
        load_teacher(name, "cpu")


class TimmLike(torch.nn.Module):
    """The part of timm's VisionTransformer that is used: 5 tokens before the patches."""

    patch_embed = SimpleNamespace(patch_size=(14, 14))
    num_features, num_prefix_tokens = 6, 5
    pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # noqa: RUF012  # as timm has it

    def forward_features(self, image):
        patches = F.avg_pool2d(image, 14).flatten(2).transpose(1, 2)
        return F.pad(patches.repeat(1, 1, 2), (0, 0, 5, 0))


def test_timm_s_transformers_give_patches(monkeypatch):
    image = torch.rand(2, 3, 28, 42)
    created = []

    def create_model(name, **options):
        created.append((name, options))
        if name == "resnet18":
            raise TypeError("unexpected keyword argument 'dynamic_img_size'")
        return TimmLike()

    monkeypatch.setattr(teacher, "require", lambda name: SimpleNamespace(create_model=create_model))
    encoder = load_teacher("timm:vit_tiny", "cpu")
    assert created == [("vit_tiny", {"pretrained": True, "num_classes": 0, "dynamic_img_size": True})]
    features, grid = encoder(image, (2, 3))
    assert grid == (2, 3) and encoder.width == 6 and encoder.patch_size == 14
    expected = F.avg_pool2d(2 * image - 1, 14).flatten(2).transpose(1, 2)
    close(features[..., :3], expected, 1e-5)
    with pytest.raises(ValueError, match="encoder timm:resnet18 cannot be loaded"):
        load_teacher("timm:resnet18", "cpu")


def test_timm_itself():
    timm = pytest.importorskip("timm")
    options = {"pretrained": False, "num_classes": 0, "dynamic_img_size": True}
    model = timm.create_model("vit_small_patch14_reg4_dinov2", **options, depth=1, embed_dim=24, num_heads=2)
    features, grid = timm_teacher(model)(torch.rand(1, 3, 32, 64), (2, 4))
    assert features.shape == (1, 8, 24) and grid == (2, 4)
