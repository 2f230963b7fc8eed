"""CFG++ samplers with PixelDiT CFG Interval: outside of it they do without the null pass, as other samplers do."""

import class_model
import text_model
import tiny_t2i
from class_model import guided
from hooks import differ
from kit import close, load_tiny, record_calls, run

SAME_UNGUIDED = {  # the ancestral ones are written otherwise
    "euler_cfg_pp": "euler",
    "dpmpp_2m_cfg_pp": "dpmpp_2m",
    "res_multistep_cfg_pp": "res_multistep",
    "gradient_estimation_cfg_pp": "gradient_estimation",
}


def names():
    import comfy.samplers

    return [name for name in comfy.samplers.KSampler.SAMPLERS if name.endswith("_cfg_pp")]


def test_the_null_pass_is_skipped_outside_of_the_interval():
    assert set(SAME_UNGUIDED) <= {*names()}
    for sample, model in ((class_model.ksampler, load_tiny()), (text_model.ksampler, tiny_t2i.ours())):
        for name in names():
            counted, calls = record_calls(guided(model, 0.3, 0.6))
            sample(counted, sampler_name=name, steps=10)
            rows = [len(call["x"]) for call in calls]
            assert {rows[0], rows[-1]} == {2} and 4 in rows, f"{name}: {rows}"


def test_unguided_they_are_the_samplers_that_they_come_from():
    for sample, model in ((class_model.ksampler, load_tiny()), (text_model.ksampler, tiny_t2i.ours())):
        for name, plain in SAME_UNGUIDED.items():
            never = sample(guided(model, 0.5, 0.500001), sampler_name=name)
            close(never, sample(model, sampler_name=plain, cfg=1.0), 1e-4)
            always = sample(guided(model, 0.0, 1.0), sampler_name=name)
            assert differ(always, never) > 1e-3, name


def test_inside_of_the_interval_and_without_one_nothing_changes():
    model = load_tiny()
    for name in SAME_UNGUIDED:
        counted, calls = record_calls(model)
        class_model.ksampler(counted, sampler_name=name)
        assert {len(call["x"]) for call in calls} == {4}, name
        scheduled = run("PixelDiTCFGSchedule", model=model, curve="linear", end_cfg=1.0)[0]
        counted, calls = record_calls(scheduled)
        class_model.ksampler(counted, sampler_name=name)
        assert {len(call["x"]) for call in calls} == {4}, f"{name} with a schedule"


def test_a_patch_that_needs_both_passes_keeps_them():
    model = load_tiny()
    model.set_model_sampler_post_cfg_function(lambda args: args["denoised"], disable_cfg1_optimization=True)
    for name in ("euler", "euler_cfg_pp"):
        counted, calls = record_calls(guided(model, 0.3, 0.7))
        class_model.ksampler(counted, sampler_name=name)
        assert {len(call["x"]) for call in calls} == {4}, name
