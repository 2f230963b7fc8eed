"""The weights that training starts from."""

import pytest
import torch

import pixeldit_core as pc
from pixeldit_core.training.initialize import initialize


def test_initial_network_predicts_zero_and_only_the_right_tensors_are_zero(build_tiny):
    network = build_tiny().network
    zero = {name for name, p in network.named_parameters() if not p.any()}
    expected = {
        name
        for name, _ in network.named_parameters()
        if "adaLN_modulation" in name or name.startswith("final_layer.linear")
    } | {"s_embedder.proj.bias"}
    assert zero == expected
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


@pytest.mark.parametrize("family", [name for name in pc.FAMILIES if name.startswith("xpred")])
def test_x_prediction_networks_start_from_zero(build_tiny, family):
    variant = next(variant for variant in pc.VARIANTS.values() if variant.family == family)
    model = build_tiny(0, family, variant.params)
    size, channels = variant.params.image_size, variant.params.in_channels
    assert not model.network(torch.randn(1, channels, size, size), torch.zeros(1), torch.zeros(1).long()).any()


def test_other_families_are_refused_by_name(tiny_t2i):
    with pytest.raises(ValueError, match="pixeldit_t2i cannot be trained; families that can are pixeldit, xpred_dit"):
        initialize(tiny_t2i())
