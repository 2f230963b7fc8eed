"""ComfyUI's Train LoRA on our MODELs: every family learns, and the MODEL stays as it was, whatever happens."""

import re

import pytest
import torch
from kit import close, labels, run
from training import STILL, Subject, as_file, mean, sampled, subjects, target, train


def end(trained):
    return mean(trained.losses[-5:])


def test_every_family_learns():
    for name, make in subjects().items():
        subject = make()
        untrained = train(subject, learning_rate=STILL)
        for dtype, checkpointing in (("fp32", False), ("bf16", True)):
            options = {"training_dtype": dtype, "lora_dtype": dtype, "gradient_checkpointing": checkpointing}
            trained = train(subject, **options)
            assert abs(trained.losses[0] - untrained.losses[0]) < 2e-2 * untrained.losses[0], name
            assert end(trained) < 0.8 * end(untrained), (name, dtype, trained.losses, untrained.losses)
            assert {str(value.dtype) for key, value in trained.lora.items() if not key.endswith("alpha")} == {
                "torch.float32" if dtype == "fp32" else "torch.bfloat16"
            }


def test_gradient_checkpointing_changes_no_gradient():
    for name in ("class", "text", "pixelhdm", "gray", "pixeldit2"):
        subject = subjects()[name]()
        train(subject, steps=1)  # the first call of a process may choose other kernels
        plain, checkpointed = (train(subject, steps=4, gradient_checkpointing=on) for on in (False, True))
        for key, value in plain.lora.items():
            close(checkpointed.lora[key], value, 1e-4)


def test_every_part_of_a_network_learns():
    """All weights, norms and biases; but for the end of text-to-image's text stream, which leads nowhere, and for
    PixelDiT2's frozen encoder.
    """
    unused = {"text": r"patch_blocks\.1\..*_y", "pixeldit2": r"dino_conditioner\.encoder\."}
    for name in ("class", "text", "pixelhdm", "mmdit-r2", "gray", "pixeldit2"):
        still = {key for key, value in train(subjects()[name](), steps=4).lora.items() if not value.any()}
        assert all(name in unused and re.search(unused[name], key) for key in still), (name, still)


def test_the_lora_changes_the_image_towards_the_images_it_saw():
    for name in ("class", "text", "pixelhdm", "gray", "pixeldit2"):
        subject = subjects()[name]()
        before = sampled(subject)
        trained = train(subject, steps=20)
        patched = run("LoraModelLoader", model=subject.model, lora=trained.lora, strength_model=1.0)[0]
        after, wanted = sampled(subject, patched), target(subject)["samples"][:1]
        assert (after - wanted).abs().mean() < 0.8 * (before - wanted).abs().mean(), name
        again = train(Subject(patched, *subject[1:]), learning_rate=STILL, steps=8)
        untrained = train(subject, learning_rate=STILL, steps=8)
        assert end(again) < 0.7 * end(untrained), name  # what was trained is what is loaded
        close(sampled(subject), before, 0.0)


class Stop(Exception):
    pass


def stopping(model, stop, calls):
    """A clone whose third network call is stopped, and counts its calls."""

    def wrapper(apply_model, arguments):
        calls.append(1)
        if len(calls) == 3:
            stop()
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def fail():
    raise Stop


def test_a_model_is_unharmed_by_training_that_ends_midway():
    import comfy.model_management as mm

    ways = ((fail, Stop), (mm.interrupt_current_processing, mm.InterruptProcessingException))  # the button in the page
    for name in ("class", "pixelhdm"):
        subject = subjects()[name]()
        network = subject.model.model.diffusion_model
        before, state = sampled(subject), {key: value.clone() for key, value in network.state_dict().items()}
        first = train(subject, steps=4)
        for stop, error in ways:
            for checkpointing in (False, True):
                calls = []
                broken = Subject(stopping(subject.model, stop, calls), *subject[1:])
                with pytest.raises(error):
                    train(broken, gradient_checkpointing=checkpointing)
                assert len(calls) == 3
                close(sampled(subject), before, 0.0)
                assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
                assert not any(hasattr(module, "org_forward") for module in network.modules())
        again = train(subject, steps=4)  # and trains as the first time
        assert again.losses == pytest.approx(first.losses, rel=1e-5)
        assert not subject.model.patches and not torch.is_inference_mode_enabled()


def test_training_goes_on_from_a_saved_lora():
    subject = subjects()["class"]()
    for algorithm in ("LoRA", "LoHa", "LoKr", "OFT"):
        first = train(subject, steps=20, algorithm=algorithm)
        name = as_file(f"{algorithm}_20_steps_00001_.safetensors", first.lora)
        second = train(subject, steps=3, algorithm=algorithm, existing_lora=name)
        untrained = train(subject, steps=3, learning_rate=STILL)
        assert second.steps == 23 and second.losses[0] < 0.9 * untrained.losses[0], algorithm


def recorded(subject, rows):
    def wrapper(apply_model, arguments):
        rows.append(arguments["c"]["pixeldit_class"].tolist())
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = subject.model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return Subject(model, *subject[1:])


def test_each_image_is_trained_with_its_own_class():
    rows = []
    subject = recorded(subjects()["class"](), rows)
    several = [labels([index])[0] for index in (1, 2, 3, 4)]  # as Conditioning (Combine) joins them
    train(subject, target(subject, 4), several, steps=12)
    assert {len(row) for row in rows} == {1} and {row[0] for row in rows} == {1, 2, 3, 4}
    rows.clear()
    train(subject, target(subject, 4), steps=3, grad_accumulation_steps=2)
    assert rows == [[3]] * 6
    with pytest.raises(ValueError, match="4 classes, and Train LoRA cannot tell which image has which"):
        train(subject, target(subject, 4), labels([1, 2, 3, 4]), steps=3)


def test_a_batch_of_images_of_one_class():
    """ComfyUI calls the network with batch x batch rows, and averages them: the same gradient, at a higher price."""
    rows = []
    subject = recorded(subjects()["class"](), rows)
    trained = train(subject, target(subject, 4), batch_size=2)
    assert rows == [[3] * 4] * 16 and end(trained) < 0.8 * trained.losses[0]
    with pytest.raises(ValueError, match="cannot tell which image has which"):
        train(subject, target(subject, 2), labels([1, 2]), batch_size=2)
