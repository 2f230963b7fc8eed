"""ComfyUI's own nodes on the conditioning of classes: no class, a mix of two, several areas; or an error."""

import itertools

import pytest
import torch
from class_model import CLASSES, ksampler, pixeldit
from hooks import has, load_nodes
from kit import close, core, labels, load_tiny, run, sampler_net
from other_families import xpred
from pixeldit2 import pixeldit2

SAMPLERS = (ksampler, pixeldit)


def models():
    """A network of the official family, and one of the x-prediction networks with registers for its classes."""
    return [(load_tiny(), 10), (xpred("pixeldit-r1"), 5), (pixeldit2(), 5)]


def node(name, **inputs):
    return run(name, **inputs)[0]


def average(to, of, strength):
    return node("ConditioningAverage", conditioning_to=to, conditioning_from=of, conditioning_to_strength=strength)


def velocity(model, conditioning, rows=1):
    """What the MODEL predicts with a conditioning."""
    base = model.model
    params = base.pixeldit.params
    x = torch.randn(rows, params.in_channels, 16, 16, generator=torch.Generator().manual_seed(2))
    ((cross, extra),) = conditioning
    entries = base.extra_conds(cross_attn=cross, noise=x, **extra)
    with torch.no_grad():
        arguments = {key: value.process_cond(rows, area=None).cond for key, value in entries.items()}
        return base.apply_model(x, torch.full((rows,), 0.6), **arguments)


def test_zero_out_is_no_class():
    for model, null in models():
        zeroed = node("ConditioningZeroOut", conditioning=labels([3], null))
        assert torch.equal(velocity(model, zeroed), velocity(model, labels([null], null)))
        assert not torch.equal(velocity(model, zeroed), velocity(model, labels([3], null)))
    for sampler in SAMPLERS:
        model = load_tiny()
        expected = sampler(model, positive=labels(CLASSES), negative=labels([10]))
        zeroed = node("ConditioningZeroOut", conditioning=labels([3]))
        assert torch.equal(sampler(model, positive=labels(CLASSES), negative=zeroed), expected)
        zeroed = node("ConditioningZeroOut", conditioning=labels(CLASSES))
        assert torch.equal(sampler(model, positive=labels(CLASSES), negative=zeroed), expected), "a list"


def test_average_mixes_the_rows_of_the_table():
    for model, null in models():
        one, two = labels([1], null), labels([4], null)
        for strength, same in ((1.0, one), (0.0, two)):
            assert torch.equal(velocity(model, average(one, two, strength)), velocity(model, same))
        mixes = [velocity(model, average(one, two, strength)) for strength in (1.0, 0.7, 0.3, 0.0)]
        gaps = [(a - b).abs().max().item() for a, b in itertools.pairwise(mixes)]
        assert min(gaps) > 1e-4, gaps


def test_an_average_is_that_of_the_embeddings():
    model = core().load_checkpoint(sampler_net())
    table = model.network.y_embedder.embedding_table.weight
    with torch.no_grad():
        table[0] = 0.25 * table[2] + 0.75 * table[7]
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    expected = -model.network(x, torch.tensor([0.4]), torch.tensor([0]))
    mixed = average(labels([2]), labels([7]), 0.25)
    ours = load_tiny()
    ours.model.diffusion_model.eval()
    base = ours.model
    entries = base.extra_conds(cross_attn=mixed[0][0], noise=x, **mixed[0][1])
    found = base.diffusion_model(x, torch.tensor([0.4]), None, **{key: value.cond for key, value in entries.items()})
    close(found, expected, 1e-5)


def test_a_mix_is_sampled_alone_and_in_batches():
    model = load_tiny()
    mixed = average(labels([3]), labels([7]), 0.5)
    for sampler in SAMPLERS:
        made = sampler(model, positive=mixed, negative=labels([10]))
        assert torch.isfinite(made).all()
        for classes in ([3], [7]):
            assert not torch.equal(made, sampler(model, positive=labels(classes), negative=labels([10])))
    rows = average(labels([3, 3]), labels([7, 7]), 0.5)
    close(velocity(model, rows, 2)[:1], velocity(model, rows, 2)[:1], 0.0)
    made = ksampler(model, positive=rows, negative=labels([10]))
    close(made, ksampler(model, positive=mixed, negative=labels([10])), 1e-5)


def test_less_of_a_class_ends_at_no_class():
    for model, null in models():
        one, none = labels([3], null), labels([null], null)
        zeroed = node("ConditioningZeroOut", conditioning=one)
        for strength in (0.5, 0.01):
            expected = velocity(model, average(one, none, strength))
            assert not zeroed[0][0].any(), "what a node has given is not changed"
            close(velocity(model, average(one, zeroed, strength)), expected, 1e-6)
            velocity(model, zeroed)
            scaled = [[strength * one[0][0], one[0][1]]]  # as nodes of other packs do
            close(velocity(model, scaled), expected, 1e-6)
        if model.model.pixeldit.family.name != "pixeldit2":  # grounded as long as something of the class is left
            close(velocity(model, average(one, zeroed, 1e-4)), velocity(model, zeroed), 1e-3)


def test_conditioning_multiply_is_the_strength_of_a_class():
    load_nodes("cond")
    if not has("ConditioningMultiply"):
        pytest.skip("this ComfyUI has no ConditioningMultiply")
    for model, null in models():
        one, none = labels([3], null), labels([null], null)
        for factor, same in ((0.0, none), (0.5, average(one, none, 0.5)), (1.0, one)):
            scaled = node("ConditioningMultiply", conditioning=one, multiplier=factor)
            close(velocity(model, scaled), velocity(model, same), 1e-6)


def test_concat_is_refused_with_the_way_out():
    joined = node("ConditioningConcat", conditioning_to=labels([3]), conditioning_from=labels([7]))
    for sampler in SAMPLERS:
        with pytest.raises(ValueError, match=r"joins 2 classes by Conditioning \(Concat\).*Conditioning \(Average\)"):
            sampler(load_tiny(), positive=joined, negative=labels([10]))


def test_more_classes_than_images_are_refused_with_both_counts():
    with pytest.raises(ValueError, match="has 3 classes, for 3 images, and the latent has 2"):
        ksampler(load_tiny(), positive=labels([1, 2, 3]), negative=labels([10]))
    with pytest.raises(ValueError, match="has 3 classes, for 3 images, and the latent has 1"):
        ksampler(load_tiny(), positive=labels([1, 2, 3]), negative=labels([10]), latent_image={
            "samples": torch.zeros(1, 3, 16, 16)})  # fmt: skip


def test_combine_areas_masks_and_times_act_as_before():
    model = load_tiny()
    one, two = labels([3]), labels([7])
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    changed = {
        "Combine": node("ConditioningCombine", conditioning_1=one, conditioning_2=two),
        "SetAreaPercentage": node(
            "ConditioningSetAreaPercentage", conditioning=one, width=0.5, height=1.0, x=0.0, y=0.0, strength=1.0
        ) + two,
        "SetMask": node(
            "ConditioningSetMask", conditioning=one, mask=mask, strength=1.0, set_cond_area="default"
        ) + two,
        "SetTimestepRange": node("ConditioningSetTimestepRange", conditioning=one, start=0.0, end=0.4)
        + node("ConditioningSetTimestepRange", conditioning=two, start=0.4, end=1.0),
    }  # fmt: skip
    plain = ksampler(model, positive=one, negative=labels([10]))
    for name, conditioning in changed.items():
        made = ksampler(model, positive=conditioning, negative=labels([10]))
        assert torch.isfinite(made).all() and not torch.equal(made, plain), name
