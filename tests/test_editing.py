"""FlowEdit: the recorded edit, what it costs, what it leaves alone, other families, mistakes."""

import pytest
import torch
from helpers import close, max_distance, randn
from pixeldit2_cases import count_rows, find, load
from pixeldit2_cases import tiny as tiny_pixeldit2

import pixeldit_core as pc


@pytest.mark.golden
def test_the_recorded_edit():
    case = find("flowedit_prior")
    model, recorded, states = load(case), case.case["settings"], [case.inputs["source_image"]]
    source, target = case.inputs["source"], case.inputs["target"]
    unknown = source < 0
    source = torch.where(unknown, model.params.num_classes, source)
    final = pc.edit(
        model,
        case.inputs["source_image"],
        (source, torch.zeros_like(unknown)),  # grounded, without a class, too
        target,
        noise=case.inputs["noise"],
        steps=recorded["num_steps"],
        averages=recorded["n_avg"],
        source_cfg=recorded["source_guidance"],
        target_cfg=recorded["target_guidance"],
        interval=(recorded["edit_t_min"], recorded["edit_t_max"]),
        terminal_steps=recorded["terminal_steps"],
        convention="reference",
        on_step=lambda i, t, x, v: states.append(x.clone()),
    )
    assert max_distance(torch.stack(states), case.outputs["x_traj"]) <= 1e-4
    assert max_distance(final, case.outputs["final"]) <= 1e-4


def edited(model, source, target, **settings):
    image = 0.3 * randn(1, 3, 8, 8, seed=5)
    return image, pc.edit(model, image, source, target, **({"steps": 3} | settings))


def test_the_same_source_and_target_change_nothing():
    model, label = tiny_pixeldit2(), torch.tensor([2])
    image, same = edited(model, label, label, source_cfg=2.0, target_cfg=2.0)
    close(same, image, 1e-5)
    _, other = edited(model, label, torch.tensor([3]))
    assert max_distance(other, image) > 1e-3


def test_an_unknown_source_is_the_null_class_with_grounding():
    model, target = tiny_pixeldit2(), torch.tensor([2])
    null = pc.null_condition(model, 1)
    _, unknown = edited(model, None, target)
    _, grounded = edited(model, (null, torch.tensor([False])), target)
    _, ungrounded = edited(model, null, target)
    assert torch.equal(unknown, grounded) and max_distance(unknown, ungrounded) > 1e-4


def test_a_step_costs_one_call_of_the_target_s_two_branches_and_one_of_the_source():
    model = tiny_pixeldit2()
    rows = count_rows(model)
    edited(model, torch.tensor([1]), torch.tensor([2]), averages=2, terminal_steps=1)
    assert rows == {"network": [2, 1] * 6 + [2], "encoder": [1, 1] * 6 + [1]}


def test_strength_localization_and_interval_matter():
    model, labels = tiny_pixeldit2(), (torch.tensor([1]), torch.tensor([2]))
    image, plain = edited(model, *labels)
    for settings in ({"strength": 0.5}, {"localized": False}, {"interval": (0.5, 0.95)}, {"seeds": 7}, {"averages": 2}):
        assert max_distance(edited(model, *labels, **settings)[1], plain) > 1e-5, settings
    assert torch.equal(edited(model, *labels, strength=0.0)[1], image)


def test_other_families_of_classes_are_edited_too(tiny):
    model, label = tiny(), torch.tensor([2])
    image, other = edited(model, None, label)
    assert max_distance(other, image) > 1e-4
    close(edited(model, label, label, target_cfg=1.0)[1], image, 1e-5)


def test_families_of_text_need_a_source(tiny_t2i):
    model, text = tiny_t2i(), randn(1, 4, 12)
    with pytest.raises(ValueError, match="no condition for an unknown source: encode a text"):
        edited(model, None, text)
    image, other = edited(model, text, randn(1, 4, 12, seed=2), null=randn(1, 4, 12, seed=3))
    assert max_distance(other, image) > 1e-4


@pytest.mark.parametrize("settings, words", [
    ({"interval": (0.9, 0.3)}, "interval of the edit is 0.9 to 0.3; it needs 0 <= start < end <= 1"),
    ({"steps": 0}, "steps is 0; it must be at least 1"),
    ({"averages": 0}, "averages is 0"),
    ({"terminal_steps": -1}, "terminal_steps is -1; it must be at least 0"),
    ({"noise": torch.zeros(1, 3, 8, 12)}, "noise has shape .1, 3, 8, 12.; the image needs .1, 3, 8, 8."),
    ({"noise": torch.full((1, 3, 8, 8), torch.nan)}, "noise is not finite"),
    ({"convention": "other"}, 'convention "other" is not known'),
])  # fmt: skip
def test_mistakes(settings, words):
    with pytest.raises(ValueError, match=words):
        edited(tiny_pixeldit2(), torch.tensor([1]), torch.tensor([2]), **settings)


def test_sizes_that_do_not_divide():
    with pytest.raises(ValueError, match="patches of 4 x 4"):
        pc.edit(tiny_pixeldit2(), torch.zeros(1, 3, 8, 9), torch.tensor([1]), torch.tensor([2]))
