"""Draws the diagrams of the help pages: `python tools/make_diagrams.py`.

The letters are Noto Sans CJK, which must be installed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parents[1]
INK, PAPER, GREY, PALE, LIGHT = "#1f2340", "#fbfaf7", "#7d819c", "#d9dbe6", "#c9cce0"
BLUE, ORANGE, BROWN, VIOLET, SKY = "#4458d6", "#f28a30", "#a85510", "#9a7df0", "#4ba3e3"
Point = tuple[float, float]


def disc(pen: ImageDraw.ImageDraw, center: Point, radius: float, fill: str) -> None:
    x, y = center
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)


def face(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype("NotoSansCJK-Regular.ttc", size)


class Sheet:
    """A diagram drawn at three times its size."""

    over = 3

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * self.over, height * self.over), PAPER)
        self.pen, self.size = ImageDraw.Draw(self.image), (width, height)

    def line(self, points: list[Point], color: str, width: float = 1.5) -> None:
        self.pen.line([self.up(point) for point in points], color, round(width * self.over), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, color: str) -> None:
        self.pen.rounded_rectangle([*self.up((left, top)), *self.up((right, bottom))], 3 * self.over, color)

    def dot(self, x: float, y: float, radius: float, color: str) -> None:
        disc(self.pen, self.up((x, y)), radius * self.over, color)

    def text(self, x: float, y: float, words: str, color: str = INK, size: int = 14, anchor: str = "lm") -> None:
        self.pen.text(self.up((x, y)), words, color, face(size * self.over), anchor=anchor)

    def arrow(self, start: Point, end: Point, color: str) -> None:
        self.line([start, end], color, 2.5)
        along = np.subtract(end, start) / np.hypot(*np.subtract(end, start))
        across = np.array((-along[1], along[0]))
        tip = [np.array(end), np.array(end) - 9 * along + 5 * across, np.array(end) - 9 * along - 5 * across]
        self.pen.polygon([self.up(tuple(corner)) for corner in tip], color)

    def up(self, point: Point) -> Point:
        return point[0] * self.over, point[1] * self.over

    def done(self) -> Image.Image:
        return self.image.resize((self.size[0] * 2, self.size[1] * 2), Image.Resampling.LANCZOS)


def shifted(t: np.ndarray, shift: float) -> np.ndarray:
    return t / (t + (1 - t) * shift)


def timeshift() -> Image.Image:
    """Where the times of 10 steps lie for three timeshifts."""
    sheet = Sheet(360, 232)
    left, right = 22, 338
    grid = np.linspace(0, 1, 11)
    for row, (shift, note) in enumerate(((1, "for 256 x 256"), (2, "for 512 x 512"), (4, "larger still"))):
        y = 46 + 60 * row
        sheet.text(left - 6, y - 22, f"timeshift {shift}", INK, 15)
        sheet.text(right + 6, y - 22, note, GREY, 14, "rm")
        sheet.line([(left, y), (right, y)], PALE, 3)
        for t in shifted(grid, shift):
            sheet.dot(left + (right - left) * t, y, 6, BLUE)
    for t, word, anchor in ((0, "noise, t = 0", "lm"), (1, "image, t = 1", "rm")):
        x = left + (right - left) * t
        sheet.line([(x, 182), (x, 190)], GREY, 1)
        sheet.text(x + (6 if t else -6), 206, word, GREY, 14, anchor)
    return sheet.done()


def interval() -> Image.Image:
    """Which steps are guided, and what they cost."""
    sheet = Sheet(360, 200)
    left, right, y = 22, 338, 84
    start, end = left + 0.1 * (right - left), left + 0.9 * (right - left)
    sheet.box(start, y - 36, end, y + 36, "#ffe9d2")
    for x, word, anchor in ((start, "start 0.1", "lm"), (end, "end 0.9", "rm")):
        sheet.line([(x, y - 40), (x, y + 36)], BROWN, 1.5)
        sheet.text(x, y - 56, word, BROWN, 15, anchor)
    sheet.text((start + end) / 2, y + 20, "guided: two rows each", BROWN, 14, "mm")
    sheet.line([(left, y), (right, y)], PALE, 3)
    for t in np.linspace(0, 1, 21)[:-1]:
        inside = 0.1 + 1e-5 < t < 0.9 - 1e-5
        sheet.dot(left + (right - left) * t, y, 5.5, ORANGE if inside else BLUE)
    sheet.text(left - 6, y + 52, "noise: one row", BLUE, 14)
    sheet.text(right + 6, y + 52, "image: one row", BLUE, 14, "rm")
    sheet.text(180, y + 92, "20 steps: 35 network rows, not 40", INK, 15, "mm")
    return sheet.done()


def wiring() -> Image.Image:
    """The usual graph: loader, class label, sampler, saved image."""
    sheet = Sheet(360, 246)
    for name, box, title in (
        ("PixelDiT Loader", (10, 40, 152, 84), 62),
        ("PixelDiT Class Label", (10, 116, 176, 184), 132),
        ("PixelDiT Sampler", (226, 10, 350, 184), 28),
        ("Save Image", (226, 208, 350, 236), 222),
    ):
        sheet.box(*box, INK)
        sheet.text((box[0] + box[2]) / 2, title, name, "#ffffff", 14, "mm")
    for y, out, into in ((62, "", "model"), (152, "positive", "positive"), (172, "null", "negative")):
        sheet.text(170, y, out, LIGHT, 13, "rm")
        sheet.text(234, y, into, LIGHT, 13)
        sheet.arrow((176 if out else 152, y), (226, y), ORANGE if out else VIOLET)
    sheet.arrow((81, 84), (81, 116), VIOLET)
    sheet.arrow((288, 184), (288, 208), SKY)
    sheet.text(92, 99, "MODEL", GREY, 13)
    sheet.text(280, 195, "IMAGE", GREY, 13, "rm")
    return sheet.done()


def main() -> None:
    for draw in (timeshift, interval, wiring):
        small = draw().quantize(128, dither=Image.Dither.NONE)
        small.save(ROOT / "web" / "docs" / "images" / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
