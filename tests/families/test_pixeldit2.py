"""PixelDiT2: which rows are grounded, what a call costs, mixed classes, sizes, precision, mistakes."""

import dataclasses

import pytest
import torch
from helpers import close, max_distance, randn
from pixeldit2_cases import TINY, count_rows, tiny

import pixeldit_core as pc
from pixeldit_core.families.pixeldit2.from_shapes import default_params
from pixeldit_core.layers.attention import scaled_dot_product

NULL = TINY.num_classes


def batch(rows=3, height=8, width=12, seed=1):
    """A noisy batch and its times."""
    return randn(rows, 3, height, width, seed=seed), torch.linspace(0.2, 0.8, rows)


def test_rows_of_the_null_class_are_not_grounded_and_all_others_are():
    model, (x, time) = tiny(), batch()
    rows = count_rows(model)
    given = torch.tensor([2, NULL, 0])
    skip = torch.tensor([False, True, False])
    assert torch.equal(model.network(x, time, given), model.network(x, time, given, skip))
    assert rows == {"network": [3, 3], "encoder": [2, 2]}


@pytest.mark.parametrize("label, skip, grounded", [
    ([2, 1, 0], None, 3),
    ([2, NULL, 0], None, 2),
    ([NULL, NULL, NULL], None, 0),
    ([2, 1, 0], [True, True, False], 1),
    ([2, 1, 0], [True, True, True], 0),
    ([NULL, 1, NULL], [False, True, False], 2),
])  # fmt: skip
def test_the_encoder_runs_once_on_grounded_rows_only(label, skip, grounded):
    model, (x, time) = tiny(), batch()
    rows = count_rows(model)
    mask = None if skip is None else torch.tensor(skip)
    out = model.network(x, time, torch.tensor(label), mask)
    assert rows["encoder"] == ([grounded] if grounded else [])
    for row in range(3):  # and the result is that of each row alone
        alone = None if mask is None else mask[row : row + 1]
        expected = model.network(x[row : row + 1], time[row], torch.tensor(label[row : row + 1]), alone)
        close(out[row : row + 1], expected, 1e-5, f"row {row}")


def test_all_four_combinations_of_class_and_grounding_differ():
    model, (x, time) = tiny(), batch(1)
    outputs = [
        model.network(x, time, torch.tensor([label]), torch.tensor([skip]))
        for label in (1, NULL)
        for skip in (False, True)
    ]
    for i, first in enumerate(outputs):
        for second in outputs[i + 1 :]:
            assert max_distance(first, second) > 1e-3


def test_guidance_is_one_call_and_an_unguided_step_one_row_per_image():
    model = tiny()
    rows = count_rows(model)
    pc.sample(model, torch.tensor([1, 2]), size=(8, 8), steps=4, solver="euler", cfg=2.0, cfg_interval=(0.3, 0.6))
    assert rows == {"network": [2, 2, 4, 2], "encoder": [2, 2, 2, 2]}
    rows["network"].clear(), rows["encoder"].clear()
    pc.sample(model, pc.null_condition(model, 2), size=(8, 8), steps=2, solver="euler", cfg=1.0)
    assert rows == {"network": [2, 2], "encoder": []}


def test_conditions_with_skip_are_sampled():
    model, skip = tiny(), torch.tensor([False])
    settings = {"size": (8, 8), "steps": 3, "solver": "euler", "cfg": 2.0, "cfg_interval": (0.0, 1.0)}
    label, null = torch.tensor([1]), pc.null_condition(model, 1)
    plain = pc.sample(model, label, **settings)
    close(pc.sample(model, (label, skip), (null, ~skip), **settings), plain, 1e-5)
    rows = count_rows(model)
    grounded_null = pc.sample(model, (label, skip), (null, skip), **settings)
    assert rows == {"network": [1, 2, 2], "encoder": [1, 2, 2]}
    assert max_distance(grounded_null, plain) > 1e-3
    assert max_distance(pc.sample(model, (label, ~skip), **settings), plain) > 1e-3


def test_mixed_classes():
    model, (x, time) = tiny(), batch(4)
    rows, weights = count_rows(model), torch.zeros(4, NULL + 1)
    weights[0, 2] = weights[1, NULL] = 1.0
    weights[2, 0] = weights[2, 3] = 0.5
    weights[3, 1] = weights[3, NULL] = 0.5
    mixed = model.network(x, time, weights)
    assert rows["encoder"] == [3]  # a class, two classes, a class and the null class: grounded
    whole = model.network(x[:2], time[:2], torch.tensor([2, NULL]))
    close(mixed[:2], whole, 1e-5)
    for other in (0, 3):
        assert max_distance(mixed[2:3], model.network(x[2:3], time[2], torch.tensor([other]))) > 1e-3


def test_a_zero_row_of_weights_is_not_grounded():
    model, (x, time) = tiny(), batch(1)
    rows = count_rows(model)
    model.network(x, time, torch.zeros(1, NULL + 1))
    assert rows["encoder"] == []


@pytest.mark.parametrize(
    "params", [TINY, dataclasses.replace(TINY, patch_size=32), dataclasses.replace(TINY, patch_size=16)]
)
def test_every_size_of_whole_patches(params):
    model, p = tiny(params), params.patch_size
    for rows, columns in ((1, 1), (1, 3), (3, 1), (2, 3)):
        x = randn(2, 3, rows * p, columns * p)
        for label in ([1, NULL], [1, 2], [NULL, NULL]):
            out = model.network(x, torch.tensor(0.5), torch.tensor(label))
            assert out.shape == x.shape and torch.isfinite(out).all()
    with pytest.raises(ValueError, match=f"patches of {p} x {p}"):
        pc.sample(model, torch.tensor([1]), size=(p, p + 1), steps=1)


def test_a_time_for_all_rows():
    model, (x, _) = tiny(), batch()
    label = torch.tensor([1, NULL, 2])
    for time in (torch.tensor(0.3), torch.tensor([0.3])):
        assert torch.equal(model.network(x, time, label), model.network(x, torch.full((3,), 0.3), label))


def test_the_image_reaches_the_encoder_unclamped():
    model, seen = tiny(dataclasses.replace(TINY, patch_size=16, noise_scale=2.0)), []
    model.network.dino_conditioner.encoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    x = 8 * randn(1, 3, 16, 32)
    model.network(x, torch.tensor(0.1), torch.tensor([1]))
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    close(seen[0], ((x + 1) / 2 - mean) / std, 1e-5)


def test_an_encoder_keeps_a_dtype_of_its_own():
    model, seen = tiny(dtype=torch.bfloat16), []
    encoder = model.network.dino_conditioner.encoder.float()
    encoder.register_forward_hook(lambda _, arguments, result: seen.extend((arguments[0].dtype, result.dtype)))
    x, time = batch()
    out = model.network(x.bfloat16(), time, torch.tensor([1, NULL, 2]))
    assert seen == [torch.float32, torch.float32] and out.dtype == torch.bfloat16


def test_every_attention_goes_through_the_function_with_the_options():
    seen = []

    def attention(q, k, v, **options):
        seen.append((q.shape[1], q.shape[2], options))
        return scaled_dot_product(q, k, v)

    model, (x, time) = tiny(attention=attention), batch()
    model.network(x, time, torch.tensor([1, NULL, 2]), note=7)
    tokens = [11, 11, 6, 6, 9, 9]  # the encoder's two blocks, the projection's, and three with 3 context tokens from 1
    assert [length for _, length, _ in seen] == tokens
    assert all(options == {"note": 7} for *_, options in seen)


@pytest.mark.slow
def test_it_compiles():
    model, (x, time) = tiny(), batch()
    compiled = torch.compile(model.network, backend="eager")
    for label in ([1, NULL, 2], [1, 2, 3], [NULL, NULL, NULL], [1, NULL, NULL]):
        label = torch.tensor(label)
        close(compiled(x, time, label), model.network(x, time, label), 1e-5)
    torch.compiler.reset()


def test_gradients_reach_everything_but_unused_rows_and_the_encoder():
    model, (x, time) = tiny(), batch()
    network = model.network.requires_grad_(True)
    with torch.enable_grad():
        network(x, time, torch.tensor([1, NULL, 2])).square().sum().backward()
    missing = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert missing == {name for name, _ in network.named_parameters() if name.startswith("dino_conditioner.encoder.")}
    table = network.y_embedder.embedding_table.weight.grad
    assert [bool(row.any()) for row in table] == [False, True, True, False, False, True]


def test_without_an_encoder_only_ungrounded_rows_run():
    params = dataclasses.replace(TINY, encoder_depth=0, encoder_dim=384, encoder_num_heads=6)
    model, (x, time) = tiny(params), batch()
    assert not [key for key in model.network.state_dict() if "encoder" in key]
    null, label = torch.full((3,), NULL), torch.tensor([1, NULL, NULL])
    assert torch.isfinite(model.network(x, time, null)).all()
    assert torch.isfinite(model.network(x, time, label, torch.ones(3, dtype=torch.bool))).all()
    with pytest.raises(ValueError, match="384 channels.*DINOv3 ViT-S/16.*DINOv3 License"):
        model.network(x, time, label)


@pytest.mark.parametrize("change, words", [
    ({"in_context_start": 3}, "in_context_start is 3; it must be one of the 3 patch blocks, 0 to 2"),
    ({"in_context_start": -1}, "in_context_start is -1"),
    ({"num_heads": 3}, "num_heads is 3; hidden_size 16 must divide"),
    ({"num_heads": 8}, "num_heads is 8; hidden_size 16 must divide into heads of a multiple of 4"),
    ({"grounding_proj_heads": 0}, "grounding_proj_heads is 0"),
    ({"encoder_num_heads": 3}, "encoder_num_heads is 3; encoder_dim 16"),
    ({"in_channels": 1}, "in_channels is 1; it must be 3"),
    ({"noise_scale": 0.0}, "noise_scale is 0.0; it must be greater than 0"),
    ({"noise_scale": float("nan")}, "noise_scale is nan"),
    ({"depth": 0}, "depth is 0; it must be at least 1"),
    ({"in_context_len": -1}, "in_context_len is -1; it must be at least 0"),
    ({"image_std": (0.0,)}, "image_std"),
])  # fmt: skip
def test_sizes_that_no_network_has(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(TINY, **change)


def test_the_default_heads_of_the_projection_are_the_network_s():
    params = dataclasses.replace(TINY, grounding_proj_heads=None, mlp_hidden_size=None)
    assert params.proj_heads == 2 and params.mlp_width == 42


@pytest.mark.parametrize("depth, start", [(1, 0), (2, 1), (4, 3), (5, 4), (12, 4), (13, 8), (32, 8)])
def test_the_guessed_start_of_context_tokens(depth, start):
    shapes = {
        "s_embedder.proj.weight": (16, 48),
        "dino_conditioner.dino_proj.input_proj.weight": (16, 384),
        "patch_blocks.0.mlp.w1.weight": (42, 16),
        **{f"patch_blocks.{i}.norm1.weight": (16,) for i in range(depth)},
    }
    expected = {"in_context_start": start, "encoder_num_heads": 6, "single_silu_cond": False, "noise_scale": 1.0}
    assert default_params(shapes) == expected
    large = {"single_silu_cond": True, "noise_scale": 2.0}
    assert default_params(shapes | {"patch_blocks.0.mlp.w1.weight": (48, 16)}) == expected | large
    wide = {"dino_conditioner.dino_proj.input_proj.weight": (16, 768)}
    assert default_params(shapes | wide) == expected | large | {"encoder_num_heads": 12}


@pytest.mark.parametrize("variant, name, side", [("H/16", "pixeldit2-256", 256), ("H/16-512", "pixeldit2-512", 512)])
def test_published_settings_and_sizes(variant, name, side):
    spec = pc.build_model("pixeldit2", f"PixelDiT2-{variant}").spec
    assert spec.settings_for(None) == spec.settings_for((64, 64)) == pc.SETTINGS[name]
    assert spec.default_size == (side, side) and spec.trained_sizes == ((side, side),)
    assert spec.class_names is not None
    assert spec.family.default_settings(None, (side, side)) == pc.SETTINGS[name]


def test_the_noise_scale_is_that_of_the_start_and_of_the_path():
    params = dataclasses.replace(TINY, noise_scale=2.0)
    model, seen = tiny(params), []
    model.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    noise, image = randn(1, 3, 8, 8, seed=3), randn(1, 3, 8, 8, seed=4)
    settings = {"steps": 2, "solver": "euler", "cfg": 1.0}
    pc.sample(model, torch.tensor([1]), noise=noise, **settings)
    close(seen[0], 2 * noise, 1e-6)
    seen.clear()
    pc.sample(model, torch.tensor([1]), noise=noise, image=image, denoise=0.5, **settings)
    close(seen[0], 0.5 * image + 0.5 * 2 * noise, 1e-6)
    seen.clear()
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    out = pc.sample(model, torch.tensor([1]), noise=noise, image=image, mask=mask, **settings)
    assert torch.equal(out[..., 4:], image[..., 4:])
    close(seen[1][..., 4:], (0.5 * image + 0.5 * 2 * noise)[..., 4:], 1e-6)
