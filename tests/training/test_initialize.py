"""The weights that training starts from."""

import dataclasses

import pytest
import torch
from factories import TINY_T2I
from pixeldit2_cases import TINY as TINY_PIXELDIT2

import pixeldit_core as pc
from pixeldit_core.training.initialize import INITIALIZERS, initialize

TINY_XPRED = pc.XPredParams(dim=16, depth=1, in_channels=1, heads=2, dim_head=8, image_size=28)
PIXELS = {"pixel_dim": 4, "pixel_depth": 1, "compress_ratio": 4}
TINY_HDM = pc.PixelHDMParams(
    hidden_dim=32, pixel_dim=4, patch_size=4, patch_layers=2, pixel_layers=1, num_heads=4, num_kv_heads=2,
    time_embed_dim=32, mrope_text_dim=4, mrope_img_h_dim=2, mrope_img_w_dim=2, gate_bias=True,
)  # fmt: skip


def zero_tensors(network):
    return {name for name, parameter in network.named_parameters() if not parameter.any()}


def test_every_family_can_be_trained():
    assert set(INITIALIZERS) == set(pc.FAMILIES)


def test_initial_network_predicts_zero_and_only_the_right_tensors_are_zero(build_tiny):
    network = build_tiny().network
    expected = {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    assert zero_tensors(network) == expected
    assert not network(torch.randn(1, 3, 16, 16), torch.rand(1), torch.tensor([12])).any()


def test_initialize_fills_unfilled_memory_the_same_way_each_time(build_tiny):
    first, second = build_tiny(3), build_tiny(4)
    with torch.no_grad():
        for parameter in second.network.parameters():
            parameter.fill_(float("nan"))
    for model in (second, first):
        torch.manual_seed(3)
        initialize(model)
    for a, b in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    table = torch.cat([build_tiny(s).network.y_embedder.embedding_table.weight.flatten() for s in range(8)])
    assert table.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    "family, changes, checksum",
    [
        ("pixeldit", None, 2641.295261812167),
        ("xpred_dit", {}, 1626.9470734855254),
        ("xpred_mmdit", {"num_registers": 2}, 1451.6487003681066),
        ("xpred_pixeldit", PIXELS, 2239.8213256027066),
        ("xpred_mmpixeldit", {"num_registers": 2, **PIXELS}, 2027.3356549493035),
    ],
)
def test_the_bundled_models_still_start_from_the_same_weights(build_tiny, family, changes, checksum):
    params = None if changes is None else dataclasses.replace(TINY_XPRED, **changes)
    weights = enumerate(build_tiny(5, family, params).network.parameters(), start=1)
    total = sum(number * weight.double().sum() + weight.double().square().sum() for number, weight in weights)
    assert total.item() == pytest.approx(checksum, rel=1e-7)


@pytest.mark.parametrize("family", [name for name in pc.FAMILIES if name.startswith("xpred")])
def test_x_prediction_networks_start_from_zero(build_tiny, family):
    variant = next(variant for variant in pc.VARIANTS.values() if variant.family == family)
    model = build_tiny(0, family, variant.params)
    size, channels = variant.params.image_size, variant.params.in_channels
    assert not model.network(torch.randn(1, channels, size, size), torch.zeros(1), torch.zeros(1).long()).any()


def test_norms_of_an_x_prediction_network_change_nothing_at_first(build_tiny):
    params = dataclasses.replace(TINY_XPRED, qk_norm="layernorm")
    norm = build_tiny(0, "xpred_dit", params).network.blocks[0].attn.q_norm
    assert norm.weight.eq(1).all() and norm.bias.eq(0).all()


def test_the_text_network_starts_as_the_class_network(build_tiny):
    network = build_tiny(0, "pixeldit_t2i", TINY_T2I).network
    assert zero_tensors(network) == {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    assert not network(torch.randn(1, 3, 16, 16), torch.rand(1), torch.randn(1, 4, 12)).any()
    wide = dataclasses.replace(TINY_T2I, txt_max_length=200, txt_embed_dim=200)
    network = build_tiny(0, "pixeldit_t2i", wide).network
    for table in (network.y_pos_embedding, network.y_embedder.proj.weight, network.t_embedder.mlp[0].weight):
        assert table.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.patch_blocks[0].norm_y1.weight.eq(1).all() and network.y_embedder.norm.weight.eq(1).all()


def test_pixeldit2_starts_as_published_and_leaves_its_encoder_alone(build_tiny):
    """Modulation and output zero, tables and time N(0, 0.02) (spec: pixeldit2, 10)."""
    params = dataclasses.replace(TINY_PIXELDIT2, hidden_size=64, in_context_len=64)
    model = pc.build_model("pixeldit2", params, device="cpu")
    for parameter in model.network.dino_conditioner.encoder.parameters():
        parameter.fill_(0.3)
    torch.manual_seed(0)
    initialize(model)
    network = model.network
    assert all(p.eq(0.3).all() for p in network.dino_conditioner.encoder.parameters())
    assert zero_tensors(network) == {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    time, projection = network.t_embedder, network.dino_conditioner.dino_proj
    for table in (network.in_context_posemb, time.mlp[0].weight, projection.t_embedder.mlp[2].weight):
        assert table.std().item() == pytest.approx(0.02, rel=0.1)
    bound = (6 / sum(network.s_embedder.proj.weight.shape)) ** 0.5
    assert 0.9 * bound < network.s_embedder.proj.weight.abs().max() <= bound
    assert network.patch_blocks[0].norm1.weight.eq(1).all() and projection.blocks[0].attn.q_norm.weight.eq(1).all()
    assert not network(torch.randn(1, 3, 8, 8), torch.rand(1), torch.tensor([2])).any()


def test_pixelhdm_starts_as_published(build_tiny):
    """Xavier everywhere, biases 0 but for gammas and alphas (spec: pixelhdm, 5)."""
    network = build_tiny(0, "pixelhdm", TINY_HDM).network
    patch, pixel = network.patch_blocks[1].adaln.proj[1], network.pixel_blocks[0].adaln
    assert patch.bias.view(6, 32).eq(1).all(1).tolist() == [True, False, True, True, False, True]
    assert pixel.param_gen[1].bias.view(6, 4).eq(1).all(1).tolist() == [False, False, True, False, False, True]
    assert patch.weight.std().item() == pytest.approx(0.02, rel=0.1)
    for name, weight in network.named_parameters():
        if weight.ndim == 2 and "adaln.proj" not in name:
            bound = (6 / sum(weight.shape)) ** 0.5
            assert 0.7 * bound < weight.abs().max() <= bound, name
        elif "norm" in name:
            assert weight.eq(1).all(), name
        elif weight.ndim == 1 and "adaln" not in name:
            assert weight.eq(0).all(), name
    text = (torch.randn(1, 5, 32), torch.ones(1, 5), torch.randn(1, 32))
    assert network(torch.randn(1, 3, 8, 8), torch.rand(1), *text).abs().mean() > 0.01
