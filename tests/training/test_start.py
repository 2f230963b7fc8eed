"""The model that a run starts from, its class table, and what is done to its blocks."""

import copy
import dataclasses

import pytest
import torch
from checkpoints.quantized_files import quantize_state
from factories import NAMES, TINY, fill, tiny_model, tiny_t2i_model
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.training.blocks import apply_engine_config, transformer_blocks
from pixeldit_core.training.class_table import class_tables, find_rows, set_class_count, set_classes
from pixeldit_core.training.config import EngineConfig, ModelConfig
from pixeldit_core.training.operations import RMSNorm
from pixeldit_core.training.params import plain_params
from pixeldit_core.training.start import planned_spec, start_model

CLASSES = tuple(entry[0] for entry in NAMES)
SIZES = {"hidden_size": 24, "num_groups": 2, "patch_depth": 2, "pixel_depth": 1, "patch_size": 4, "num_classes": 12}


def test_a_recipe_s_network_starts_as_published_and_as_its_seed_says():
    config = ModelConfig(family="pixeldit", params=SIZES)
    first, again, other = (start_model(config, CLASSES, seed) for seed in (1, 1, 2))
    assert first.class_names == tuple((name,) for name in CLASSES)
    table = "y_embedder.embedding_table.weight"
    assert torch.equal(first.network.state_dict()[table], again.network.state_dict()[table])
    assert not torch.equal(first.network.state_dict()[table], other.network.state_dict()[table])
    assert not first.network.final_layer.linear.weight.any()


def test_a_variant_and_params_over_it():
    config = ModelConfig(family="xpred_dit", variant="dit-tiny/4-mnist", params={"depth": 1, "image_mean": [0.1]})
    model = start_model(config, tuple("0123456789"), 0)
    assert (model.params.depth, model.params.dim, model.params.image_mean) == (1, 128, (0.1,))


@pytest.mark.parametrize(
    "config, message",
    [
        (ModelConfig(), "does not say which network"),
        (ModelConfig(family="pixeldit"), "does not say which network"),
        (ModelConfig(family="pixeldix", params=SIZES), 'model.family "pixeldix" is not known'),
        (ModelConfig(family="pixeldit", variant="PixelDiT-S"), "not known for pixeldit; there are PixelDiT-B"),
        (ModelConfig(family="pixeldit", params=SIZES | {"hiden_size": 3}), 'the nearest is "hidden_size"'),
        (
            ModelConfig(family="pixeldit", params=SIZES | {"patch_depth": "two"}),
            "patch_depth is 'two'; .* takes a whole number",
        ),
        (ModelConfig(family="pixeldit", params=SIZES | {"patch_depth": True}), "patch_depth is True"),
        (ModelConfig(family="pixeldit", params=SIZES | {"mlp_hidden_size": 1.5}), "takes a whole number or null"),
        (ModelConfig(family="pixeldit", params=SIZES | {"image_mean": 0.5}), "takes a list, each a number"),
        (ModelConfig(family="xpred_dit", params={"qk_norm": "rms"}), 'takes one of "", "rmsnorm", "layernorm"'),
        (ModelConfig(family="pixeldit", params=SIZES | {"num_groups": 5}), "24 does not divide into 5 heads"),
        (ModelConfig(family="pixeldit", params={"hidden_size": 24}), "missing .*num_groups"),
        (
            ModelConfig(family="pixeldit", params=SIZES | {"num_classes": 3}),
            "12 classes .* set model.params.num_classes=12",
        ),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(config, message):
    with pytest.raises(ValueError, match=message):
        start_model(config, CLASSES, 0)


def test_a_start_is_any_checkpoint_and_may_not_be_another_network(tmp_path):
    path = pc.save_checkpoint(tiny_model(), tmp_path / "start.safetensors", dtype=torch.bfloat16)
    model = start_model(ModelConfig(start=str(path)), CLASSES, 0)
    assert model.dtype == torch.float32 and model.class_names[2] == ("tabby", "tabby cat")
    for config, message in (
        (ModelConfig(start=str(path), family="xpred_dit"), "model.family says xpred_dit"),
        (ModelConfig(start=str(path), params={"hidden_size": 48}), "has hidden_size 24, and the recipe says 48"),
        (ModelConfig(start=str(path), variant="PixelDiT-B"), "has hidden_size 24, and the recipe says 768"),
        (ModelConfig(start=str(path), variant="PixelDiT-S"), "PixelDiT-S.* not known for pixeldit"),
        (ModelConfig(start=str(path), variant="PixelDiT-T2I"), "PixelDiT-T2I.* not known for pixeldit"),
        (ModelConfig(start=str(tmp_path / "nowhere.safetensors")), "nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            start_model(config, CLASSES, 0)


def test_a_weighted_average_or_raw_weights_can_be_the_start(golden):
    path = golden("c2i_lightning_ckpt").folder / "checkpoint.ckpt"
    ema, raw = (start_model(ModelConfig(start=str(path), weights=kind), None, 0) for kind in ("ema", "raw"))
    name = "final_layer.linear.weight"
    assert not torch.equal(ema.network.state_dict()[name], raw.network.state_dict()[name])


def test_a_recipe_provides_what_the_tensors_of_its_start_leave_open(tmp_path):
    model = pc.build_model("xpred_dit", XPRED, device="cpu")
    fill(model.network)
    save_file(model.network.state_dict(), tmp_path / "bare.safetensors")
    start = str(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="heads and dim_head .* cannot be determined"):
        start_model(ModelConfig(start=start), None, 0)
    sizes = {"heads": 2, "dim_head": 8, "image_mean": [0.1], "num_classes": 3}
    params = start_model(ModelConfig(start=start, params=sizes), None, 0).params
    assert (params.heads, params.dim_head, params.image_mean[0]) == (2, 8, 0.1)
    assert planned_spec(ModelConfig(start=start, params=sizes)).params == params
    with pytest.raises(ValueError, match="depth = 2, its tensors say 1"):
        start_model(ModelConfig(start=start, params=sizes | {"depth": 2}), None, 0)


@pytest.mark.parametrize("kind", ["fp8", "int8", "mxfp8"])
def test_a_quantized_start_is_dequantized(kind, tmp_path):
    stored, plain = quantize_state(tiny_model().network.state_dict(), kind, lambda key: "blocks." in key)
    save_file(stored, tmp_path / "quantized.safetensors")
    model = start_model(ModelConfig(start=str(tmp_path / "quantized.safetensors")), None, 0)
    for name, value in model.network.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, plain[name])


XPRED = pc.XPredParams(dim=16, depth=1, heads=2, dim_head=8, image_size=16, num_classes=3)
REGISTERS = dataclasses.replace(XPRED, num_registers=2)


@pytest.mark.parametrize(
    "family, params", [("pixeldit", TINY), ("xpred_dit", XPRED), ("xpred_mmdit", REGISTERS)], ids=lambda p: str(p)[:11]
)
def test_a_class_table_keeps_rows_by_name(family, params):
    model = pc.build_model(family, params, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    count = params.num_classes
    names = [f"class {index}" for index in range(count)]
    model.spec = dataclasses.replace(model.spec, class_names=tuple((name,) for name in names))
    wanted = ["new", names[2], names[0]]
    changed = set_classes(model, wanted)
    assert changed.params.num_classes == 3 and changed.class_names == tuple((name,) for name in wanted)
    size = params.patch_size * 4
    x, t = torch.randn(4, 3, size, size), torch.full((4,), 0.4)
    before = model.network(x, t, torch.tensor([2, 0, count, 1]))
    after = changed.network(x, t, torch.tensor([1, 2, 3, 0]))
    torch.testing.assert_close(after[:3], before[:3])
    assert (after[3] - before[3]).abs().max() > 1e-4


def test_rows_are_matched_by_name():
    known = (("a", "alpha"), ("b", "c"), ("a", "again"), ("c", "old c"), ("hot dog",))
    assert find_rows(known, ["b", "alpha", "z", "Again", "Hot_Dog"]) == [1, 0, None, 2, 4]
    assert find_rows(known, ["c"]) == [3]  # its first name, and another's second
    assert find_rows(known, ["a", "b", "a"]) == [0, 1, 2]  # by place where a name is shared
    with pytest.raises(ValueError, match='"a" .* several classes .*0: a / alpha, 2: a / again'):
        find_rows(known, ["b", "a"])
    model = tiny_model()
    assert set_classes(model, CLASSES) is model


def test_without_names_rows_are_matched_by_number():
    model = tiny_model()
    table = "y_embedder.embedding_table.weight"
    rows = model.network.state_dict()[table]
    model.spec = dataclasses.replace(model.spec, class_names=None)
    named = set_classes(model, ["x", "y"])
    assert named.class_names == (("x",), ("y",))
    assert torch.equal(named.network.state_dict()[table], rows[[0, 1, 12]])
    more = set_class_count(tiny_model(), 14)
    assert more.class_names is None and more.params.num_classes == 14
    new, null = rows[:12].mean(dim=0), rows[12]
    assert torch.equal(more.network.state_dict()[table], torch.stack([*rows[:12], new, new, null]))


@pytest.mark.parametrize("family", [name for name, family in pc.FAMILIES.items() if family.condition == "class"])
def test_every_family_of_classes_has_one_table(family):
    params = next(variant.params for variant in pc.VARIANTS.values() if variant.family == family)
    assert len(class_tables(pc.build_model(family, params))) == 1


def test_a_recipe_may_change_the_number_of_classes_of_a_start_unless_it_is_for_a_lora(tiny_file):
    config = ModelConfig(start=str(tiny_file), params={"num_classes": 5})
    assert start_model(config, None, 0).params == planned_spec(config).params
    assert start_model(config, CLASSES[:5], 0).class_names == NAMES[:5]
    with pytest.raises(ValueError, match=r"12 classes .*num_classes=12"):
        start_model(config, CLASSES, 0)
    with pytest.raises(ValueError, match=r"has 12 classes, and the recipe says 5.*lora=null"):
        start_model(config, None, 0, keep_classes=True)


def test_plain_values_of_yaml_become_params():
    family = pc.FAMILIES["xpred_dit"]
    assert plain_params(family, {"image_mean": [0.5], "mlp_hidden_dim": None}) == {
        "image_mean": (0.5,),
        "mlp_hidden_dim": None,
    }


def test_norms_in_training_are_torch_s():
    x = torch.randn(4, 8)
    ours, theirs = RMSNorm(8, eps=1e-6), torch.nn.RMSNorm(8, eps=1e-6)
    weight = torch.randn(8)
    for norm in (ours, theirs):
        norm.weight.data.copy_(weight)
    assert torch.equal(ours(x), theirs(x))
    assert ours(x.bfloat16()).dtype == torch.bfloat16


# blocks


@pytest.mark.parametrize("build, count", [(tiny_model, 3), (tiny_t2i_model, 4)], ids=["class", "text"])
def test_the_blocks_of_a_network_are_found(build, count):
    blocks = transformer_blocks(build().network)
    assert len(blocks) == count and set(blocks) == {f"{n.rpartition('.')[0]}.{n.rpartition('.')[2]}" for n in blocks}


def gradients(network):
    network.requires_grad_(True).zero_grad()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 16, 16, generator=generator)
    network(x, torch.tensor([0.2, 0.7]), torch.tensor([1, 5])).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    "config",
    [
        EngineConfig(activation_checkpointing=True),
        EngineConfig(compile="blocks"),
        EngineConfig(compile="whole"),
        EngineConfig(compile="blocks", activation_checkpointing=True),
    ],
    ids=["checkpointing", "blocks", "whole", "both"],
)
def test_neither_names_nor_gradients_change(config):
    expected, network = gradients(tiny_model().network), tiny_model().network
    names = set(network.state_dict())
    apply_engine_config(network, config, backend="eager")
    found = gradients(network)
    assert set(network.state_dict()) == names and found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)


def test_a_copy_of_a_network_checkpoints_blocks_of_its_own():
    network = tiny_model().network
    apply_engine_config(network, EngineConfig(activation_checkpointing=True))
    other, expected = copy.deepcopy(network), gradients(network)
    for parameter in network.parameters():
        parameter.data.zero_()
    for name, gradient in gradients(other).items():
        assert torch.equal(gradient, expected[name]), name


def test_checkpointing_keeps_less():
    kept = []
    for checkpointing in (False, True):
        network, saved = tiny_model().network.requires_grad_(True), []
        apply_engine_config(network, EngineConfig(activation_checkpointing=checkpointing))
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            network(torch.randn(1, 3, 16, 16), torch.tensor([0.5]), torch.tensor([1]))
        kept.append(sum(saved))
    assert kept[1] < 0.7 * kept[0]
