"""A toy data set: handwritten digits, white on black, 28 x 28, as an image folder, OUT/<digit>/<number>.png.

python toy_data/digits.py data/digits --count 60000 --seed 28

A digit is a few strokes through control points. The points are jittered, the whole is slanted and stretched and drawn
with a pen; then, as in MNIST, it is scaled to 20 x 20 pixels and its center of mass is moved to about the middle.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

SIZE = 28
EXTENT = 20.0  # the longer side of a digit with its ink, in pixels
CHUNK = 256  # digits drawn at a time: fits the cache
INK = 0.6  # std of the ink's blur, in pixels: rounds corners and fills narrow angles

# The hands: "x,y x,y ..." with y downwards, 100 high; "|" ends a smooth stroke (a corner, or the pen is lifted).
HANDS: tuple[tuple[str, ...], ...] = (
    (
        "50,3 22,14 5,50 18,88 42,98 68,82 76,46 64,12 42,3",
        "58,8 36,2 12,24 4,62 24,96 54,92 74,60 72,24 56,6 44,8",
        "44,2 12,18 2,52 16,88 46,99 78,84 90,50 78,16 44,2",
        "34,10 14,34 6,70 22,98 48,88 66,54 64,18 46,2 30,14 28,22",
    ),
    (
        "12,0 10,50 8,100",
        "10,0 10,100",
        "14,0 9,30 8,68 10,100",
        "0,26 18,14 30,0 | 30,0 29,50 28,100",
        "0,24 30,0 | 30,0 30,100 | 6,100 54,99",
        "22,0 18,40 0,100",
    ),
    (
        "6,24 18,6 44,2 64,18 58,44 34,72 4,97 | 4,97 40,96 78,95",
        "6,26 22,5 48,2 64,20 54,50 34,80 14,95 4,86 14,76 34,82 56,94 82,90",
        "4,20 28,3 56,6 66,26 52,56 6,96 | 6,96 28,88 52,94 70,99 84,92",
        "10,14 40,2 62,14 60,38 42,68 22,92 8,98 3,88 12,78 32,82 80,84",
        "2,6 34,2 60,10 62,32 40,64 4,96 | 4,96 74,98",
    ),
    (
        "8,14 30,2 56,8 60,28 44,42 26,47 | 26,47 54,52 68,72 54,93 28,99 2,88",
        "6,5 34,4 62,4 | 62,4 46,22 28,42 | 28,42 54,48 66,70 52,92 26,98 2,90",
        "4,18 26,3 52,6 60,24 46,42 24,50 28,46 54,52 66,74 50,96 24,98 2,84",
        "10,8 42,2 60,16 50,36 30,44 | 30,44 56,46 72,64 66,86 42,99 8,96",
    ),
    (
        "14,4 6,36 14,54 40,56 72,50 | 68,2 64,50 60,100",
        "58,0 34,32 2,66 | 2,66 40,66 82,65 | 58,0 57,50 56,100",
        "12,6 8,50 | 8,50 40,52 70,48 | 66,4 62,52 58,100",
        "8,8 4,30 12,48 36,50 64,38 | 70,0 62,44 50,100",
        "48,0 26,32 4,60 | 4,60 44,60 82,56 | 66,22 60,60 54,100",
    ),
    (
        "18,4 12,24 10,44 | 10,44 36,36 62,52 64,78 42,97 4,94 | 18,4 44,5 70,2",
        "68,3 44,6 22,6 | 22,6 16,24 12,44 | 12,44 40,42 60,58 60,82 38,98 2,92",
        "72,2 40,6 22,18 22,34 44,48 62,66 56,88 30,98 2,90",
        "24,2 16,46 | 16,46 42,46 56,62 50,86 28,98 2,90 | 26,4 54,8 80,2",
    ),
    (
        "50,2 26,22 8,52 8,82 28,98 52,90 58,70 42,58 22,64 8,78",
        "36,0 18,30 6,66 14,94 38,98 56,84 54,66 38,58 18,68 10,84",
        "66,6 44,4 20,26 6,60 14,90 38,99 62,86 62,62 42,52 18,62 8,74",
        "22,0 10,36 4,76 22,98 46,92 54,74 40,62 20,70 10,88",
    ),
    (
        "4,8 34,8 68,4 | 68,4 46,46 30,100",
        "4,8 36,8 70,4 | 70,4 50,44 34,100 | 22,54 44,52 66,50",
        "2,24 4,8 | 4,8 38,10 74,3 | 74,3 54,28 38,60 30,100",
        "0,22 14,5 42,5 70,9 64,36 44,66 32,100",
        "6,24 8,6 | 8,6 40,8 72,4 | 72,4 52,38 36,100 | 20,50 62,48",
    ),
    (
        "60,14 38,2 16,12 18,32 40,48 60,70 52,92 30,99 10,86 16,64 40,46 60,28 58,10",
        "34,47 14,36 14,14 34,2 54,12 54,34 34,47 | 34,47 8,60 6,84 34,99 62,84 58,58 34,47",
        "68,8 44,2 20,10 18,28 38,46 54,66 48,90 26,99 8,86 14,66 38,48 62,26 72,6",
        "56,20 46,4 24,4 18,24 34,42 58,62 60,86 36,99 10,90 12,68 30,50 52,36 56,18",
    ),
    (
        "58,14 38,2 14,12 6,34 20,50 42,44 58,14 | 58,14 56,56 52,100",
        "58,16 36,2 12,14 6,36 22,50 46,40 58,16 | 58,16 64,48 58,80 40,97 14,94",
        "56,8 28,4 8,24 12,46 34,48 56,30 62,10 | 62,10 48,56 32,100",
        "62,24 48,4 22,6 8,26 20,46 44,42 60,22 58,52 44,84 28,100",
    ),
)


def _spline(stroke: Sequence[tuple[float, ...]], names: list[int], width: int) -> tuple[Tensor, Tensor]:
    """Centripetal Catmull-Rom through a stroke, as matrices [S,width]: from control points to points and to steps."""
    points = torch.tensor(stroke)
    chords = (points[1:] - points[:-1]).norm(dim=1)
    eye = torch.eye(width)[names]
    knots = chords.sqrt()[:, None]
    slopes = (eye[1:] - eye[:-1]) / knots
    inner = (slopes[:-1] * knots[1:] + slopes[1:] * knots[:-1]) / (knots[:-1] + knots[1:])
    first, last = (inner[0], inner[-1]) if len(inner) else (slopes[0], slopes[0])
    tangents = torch.cat((1.5 * slopes[:1] - 0.5 * first, inner, 1.5 * slopes[-1:] - 0.5 * last))
    curve, steps = [], []
    for i, chord in enumerate(chords.tolist()):
        count = math.ceil(chord * 0.4)  # about half a pixel apart
        t = ((torch.arange(count) + 0.5) / count)[:, None]
        a, b, p, q = eye[i], eye[i + 1], tangents[i] * knots[i], tangents[i + 1] * knots[i]
        u, v = 3 * (b - a) - 2 * p - q, 2 * (a - b) + p + q
        curve.append(a + p * t + u * t**2 + v * t**3)
        steps.append((p + 2 * u * t + 3 * v * t**2) / count)
    return torch.cat(curve), torch.cat(steps)


def _hand(text: str) -> tuple[Tensor, Tensor, Tensor]:
    """Control points [C,2] (0..1), and the matrices of the curve's points and steps [S,C]; shared points are one."""
    strokes = [[tuple(map(float, point.split(","))) for point in part.split()] for part in text.split("|")]
    points = list(dict.fromkeys(point for stroke in strokes for point in stroke))
    parts = [_spline(stroke, [points.index(point) for point in stroke], len(points)) for stroke in strokes]
    curve, steps = (torch.cat(matrices) for matrices in zip(*parts, strict=True))
    return torch.tensor(points) / 100, curve, steps


def _stack(matrices: Sequence[Tensor], repeat: bool = False) -> Tensor:
    """Matrices of several sizes in one tensor, padded with zeros, or below with their last row."""
    high, wide = (max(sizes) for sizes in zip(*(m.shape for m in matrices), strict=True))
    stack = torch.zeros(len(matrices), high, wide)
    for rows, m in zip(stack, matrices, strict=True):
        rows[: len(m), : m.shape[1]] = m
        if repeat:
            rows[len(m) :, : m.shape[1]] = m[-1]
    return stack


def _write(hands: tuple[Tensor, ...], which: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The curves [N,S,2] in pixels, their steps' lengths [N,S], and the radii of the pen [N,S]."""
    n = len(which)

    def normal(scale: float, *shape: int) -> Tensor:
        return torch.randn(n, *shape, generator=rng) * scale

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, 1, generator=rng) * (high - low) + low

    controls, curve, steps = (part[which] for part in hands)
    controls = controls ** normal(0.13, 1, 2).exp()  # larger upper or lower, left or right parts
    x, y = (controls + normal(1.0, controls.shape[1], 2) * uniform(0.012, 0.043)[..., None]).unbind(2)
    x = (x + normal(0.12, 1) * y * (1 - y)) * normal(0.13, 1).exp() - (0.14 + normal(0.18, 1)) * y
    turn = normal(0.07, 1)
    x, y = x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()
    controls = torch.stack((x, y), 2)
    curve, lengths = curve @ controls, (steps @ controls).norm(dim=2)

    radius = uniform(0.85, 1.65)
    way = lengths.cumsum(1)
    pressure = uniform(0.0, 0.16) * (way * uniform(1.0, 4.0) + uniform(0, math.tau)).sin()
    sides = curve.amax(1) - curve.amin(1)
    scale = (EXTENT * uniform(0.92, 1.0) - 2 * radius) / sides.amax(1, keepdim=True)
    curve, lengths = curve * scale[..., None], lengths * scale
    mass = (curve * lengths[..., None]).sum(1) / lengths.sum(1, keepdim=True)
    shift = SIZE / 2 - mass + normal(0.35, 2)
    rim = 1.2 * radius + 1.5  # including pressure and the soft edge
    shift = shift.clamp(rim - curve.amin(1), SIZE - rim - curve.amax(1))
    return curve + shift[:, None], lengths, radius * (1 + pressure)


def _render(curve: Tensor, lengths: Tensor, radii: Tensor, softness: Tensor) -> Tensor:
    """Images [N, 28, 28] in [0, 1]; the distance to the curve is a soft minimum, so that it is a matrix product."""
    pixels = torch.arange(SIZE) + 0.5
    across, down = ((-((curve[..., k, None] - pixels) ** 2) / (2 * INK**2)).exp() for k in (0, 1))  # [N,S,28]
    radius = radii.mean(1)[:, None, None]
    weight = lengths * ((radii**2 - radius[:, 0] ** 2) / (2 * INK**2)).exp() / (INK * math.sqrt(math.tau))
    ink = (down * weight[..., None]).mT @ across
    distance = (-2 * INK**2 * ink.clamp(min=1e-30).log()).clamp(min=0).sqrt()
    return ((radius - distance) / softness[..., None] + 0.5).clamp(0, 1)


def draw_digits(seed: int | torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 28, 28] uint8 and labels [count] int64; image i shows i modulo 10, all decided by the seed."""
    rng = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
    points, curves, steps = zip(*(_hand(text) for hands in HANDS for text in hands), strict=True)
    hands = _stack(points), _stack(curves, repeat=True), _stack(steps)
    numbers = torch.tensor([len(hands) for hands in HANDS])
    first = numbers.cumsum(0) - numbers
    labels = torch.arange(count) % 10
    images = torch.empty(count, 1, SIZE, SIZE, dtype=torch.uint8)
    for part, label in zip(images.split(CHUNK), labels.split(CHUNK), strict=True):
        which = first[label] + (torch.rand(len(label), generator=rng) * numbers[label]).long()
        curve, lengths, radii = _write(hands, which, rng)
        softness = 1.1 + 0.7 * torch.rand(len(label), 1, generator=rng)
        part[:, 0] = (_render(curve, lengths, radii, softness) * 255).round().to(torch.uint8)
    return images, labels


def save_digits(out: Path, count: int, seed: int) -> None:
    """Write `count` digits below `out`."""
    for digit in range(10):
        (out / str(digit)).mkdir(parents=True, exist_ok=True)
    images, labels = draw_digits(seed, count)
    for number, (image, digit) in enumerate(zip(images, labels.tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(out / str(digit) / f"{number:06}.png", compress_level=1)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--count", type=int, default=60_000, help="number of digits (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=28, help="decides all digits (%(default)s)")
    options = parser.parse_args(argv)
    save_digits(options.out, options.count, options.seed)


if __name__ == "__main__":
    main()
