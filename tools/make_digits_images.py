"""Generates the images of the bundled digits model: `python tools/make_digits_images.py`."""

from __future__ import annotations

from pathlib import Path

import pixeldit_core as pc

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
PAUSE, HOLD = 100, 2000  # milliseconds


def main() -> None:
    model = pc.load_checkpoint(ROOT / "models" / "xpred-digits-28.safetensors")
    rows = [digit for _ in range(2) for digit in range(10)]
    condition, start = pc.class_condition(model, rows), pc.unit_noise(model, range(4, 24), 28, 28)
    states = [start]
    pc.sample(model, condition, noise=start, on_step=lambda i, t, x, v: states.append(x.clone()))
    frames = [pc.contact_sheet(pc.to_uint8(model, state), 10, gap=2, scale=2) for state in states]
    pauses = [PAUSE] * (len(frames) - 1) + [HOLD]
    first, *others = frames
    first.save(IMAGES / "digits.webp", save_all=True, append_images=others, duration=pauses, loop=0, quality=80)

    seeds = [100 * row + digit for row in range(5) for digit in range(10)]
    sheet = pc.sample(model, pc.class_condition(model, list(range(10)) * 5), seeds=seeds)
    pc.contact_sheet(pc.to_uint8(model, sheet), 10, gap=2, scale=2).save(IMAGES / "digits.png")


if __name__ == "__main__":
    main()
