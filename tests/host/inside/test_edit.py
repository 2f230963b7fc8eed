"""PixelDiT Edit: the core's edit, on every family, with its mistakes."""

import pytest
import text_model
import tiny_t2i
import torch
from class_model import noise
from foreign import foreign_model
from hooks import bundled
from kit import close, core, execute, labels, load_tiny, record_calls, run, sampler_net, texts
from pixeldit2 import core_model, count_rows, pixeldit2

SETTINGS = {"seed": 5, "steps": 4, "start": 0.2}


def photograph(height=16, width=16, rows=2):
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (rows, height, width, 3), generator=generator).float() / 255


def expected(network, image, source, target, **settings):
    """The core's levels, from the same noise."""
    pc = core()
    start = noise(shape=(len(image), 3, *image.shape[1:3]))
    x = pc.edit(network, pc.from_image(network, image), source, target, noise=start, **settings)
    return pc.to_uint8(network, x).float() / 255


def edit(model, **options):
    return run("PixelDiTEdit", **{"model": model, "image": photograph(), **SETTINGS, **options})[0]


def test_it_is_the_cores_edit():
    networks = (
        (load_tiny(), core().load_checkpoint(sampler_net()), 10),
        (pixeldit2(), core_model(), 5),
        (pixeldit2(noise_scale=2.0), core_model(noise_scale=2.0), 5),
    )
    plain = {"steps": 4, "interval": (0.2, 0.95)}
    for model, network, null in networks:
        one, two = labels([1, 2], null), labels([4, 3], null)
        source, target = torch.tensor([1, 2]), torch.tensor([4, 3])
        for options, settings in (
            ({}, {}),
            ({"cfg": 1.0}, {"target_cfg": 1.0}),
            ({"localized": False, "averages": 2}, {"localized": False, "averages": 2}),
            ({"source_cfg": 2.0, "strength": 0.5}, {"source_cfg": 2.0, "strength": 0.5}),
            ({"final_steps": 3, "end": 0.8}, {"terminal_steps": 3, "interval": (0.2, 0.8)}),
        ):
            made = edit(model, positive=two, source=one, **options)
            close(made, expected(network, photograph(), source, target, **plain | settings), 1.01 / 255)
        unknown = edit(model, positive=two)
        close(unknown, expected(network, photograph(), None, target, **plain), 1.01 / 255)
        assert not torch.equal(unknown, edit(model, positive=two, source=one))


def test_text_to_image():
    image, network = photograph(32, 48, 1), tiny_t2i.core_model()
    states = [texts(seed=seed)[0][0] for seed in (1, 2, 3)]
    pc = core()
    x = pc.edit(
        network, pc.from_image(network, image), states[0], states[1], states[2], noise=text_model.noise((1, 3, 32, 48)),
        steps=4, interval=(0.2, 0.95),
    )  # fmt: skip
    made = edit(tiny_t2i.ours(), image=image, positive=texts(seed=2), source=texts(seed=1), negative=texts(seed=3))
    close(made, pc.to_uint8(network, x).float() / 255, 1.01 / 255)


def test_the_same_source_and_target_change_nothing():
    for model, null in ((load_tiny(), 10), (pixeldit2(noise_scale=2.0), 5)):
        same = edit(model, positive=labels([3], null), source=labels([3], null), cfg=2.0, source_cfg=2.0)
        close(same, photograph(), 1.01 / 255)


def test_rows_of_a_step_and_of_the_encoder():
    model, calls = record_calls(pixeldit2())
    seen = count_rows(model)
    edit(model, positive=labels([1], 5), source=labels([2], 5), image=photograph(rows=1))
    assert [len(call["x"]) for call in calls] == [2, 1] * 4 and seen["encoder"] == [1] * 8, seen
    for counts in seen.values():
        counts.clear()
    edit(model, positive=labels([1], 5), image=photograph(rows=1))
    assert seen["encoder"] == [1] * 8, "an unknown source is grounded"


def test_each_image_has_its_own_classes():
    model = load_tiny()
    pair = edit(model, positive=labels([3, 7]), source=labels([1, 2]))
    assert pair.shape == (2, 16, 16, 3)
    assert len(edit(model, positive=labels([3, 7, 1]), image=photograph(rows=1))) == 3
    odd = edit(pixeldit2(), positive=labels([1], 5), image=photograph(13, 21))
    assert odd.shape == (2, 13, 21, 3) and torch.isfinite(odd).all()


def test_a_patch_of_the_model_acts_and_the_node_says_what_it_did():
    model, options = bundled(), {"positive": labels([3], 294), "image": photograph(96, 96, 1)}
    patched = run("PixelDiTCFGInterval", model=model, start=0.5, end=0.6)[0]
    assert not torch.equal(edit(patched, **options), edit(model, **options))
    result = execute("PixelDiTEdit", model=model, **SETTINGS, **options)
    assert result.ui["text"] == ["4 steps, cfg 3, source 1, from 0.2 to 0.95, 96 x 96"]


def test_progress_and_interrupt():
    import comfy.model_management as mm
    import comfy.utils

    seen = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, preview, **more: seen.append((value, total)))
    try:
        edit(load_tiny(), positive=labels([3]), final_steps=2)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
    assert seen[0] == (1, 6) and seen[-1] == (6, 6), seen  # newer versions leave out some between

    def stop(value, total, preview, **more):
        if value == 1:  # newer versions leave out some of the later ones
            mm.interrupt_current_processing()
        mm.throw_exception_if_processing_interrupted()

    comfy.utils.set_progress_bar_global_hook(stop)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            edit(load_tiny(), positive=labels([3]))
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


def test_mistakes():
    for words, model, options in (
        ("the interval of the edit is 0.5 to 0.2", load_tiny(), {"positive": labels([3]), "start": 0.5, "end": 0.2}),
        ("the source input is not connected", tiny_t2i.ours(), {"positive": texts(), "negative": texts()}),
        ("the negative input is not connected", tiny_t2i.ours(), {"positive": texts(), "source": texts()}),
        ("is not a PixelDiT", foreign_model(), {"positive": labels([3])}),
        ("less than half a patch", load_tiny(), {"positive": labels([3]), "image": photograph(1, 16)}),
        ("image is not finite", load_tiny(), {"positive": labels([3]), "image": photograph() * float("nan")}),
        ("is a class-conditional model", load_tiny(), {"positive": texts()}),
        ("for a model with 10 classes", pixeldit2(), {"positive": labels([3])}),
    ):
        with pytest.raises(ValueError, match=words):
            edit(model, **options)
