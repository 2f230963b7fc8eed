"""PixelDiT2 as a MODEL: grounding, the scale of its noise, classes, and both conventions."""

import pytest
import torch
from kit import close, core, empty, labels, load, module, run
from other_families import sampled, unit
from pixeldit2 import count_rows, of_case, pixeldit2

HEUN = ("sample_heun_256_50", "sample_heun_512_24_noclamp", "sample_heun_512_50", "sample_heun_256_odd7")


def test_recorded_trajectories():
    for name in HEUN:
        case, inputs, outputs, _, path = of_case(name)
        settings, null = case["sampler_settings"], case["null_label"]
        x = sampled(
            load(path),
            labels(case["labels"], null),
            labels([null], null),
            torch.stack(
                [
                    torch.randn(3, case["height"], case["width"], generator=torch.Generator().manual_seed(seed))
                    for seed in case["noise"]["seeds"]
                ]
            ),
            "reference" if settings["t_eps"] else "standard",
            steps=settings["num_steps"],
            solver="heun_exact",
            cfg=settings["guidance"],
            cfg_interval=(settings["guidance_interval_min"], settings["guidance_interval_max"]),
        )
        close(x, outputs["final"], 1e-4)
