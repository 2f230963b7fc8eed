"""Draws the icon, the banner and the diagrams of the help pages: `python tools/make_images.py`.

The letters are Noto Sans CJK, which must be installed.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).parents[1]
INK, PAPER, GREY, PALE, LIGHT = "#1f2340", "#fbfaf7", "#7d819c", "#d9dbe6", "#c9cce0"
BLUE, ORANGE, BROWN, VIOLET, SKY = "#4458d6", "#f28a30", "#a85510", "#9a7df0", "#4ba3e3"
Point = tuple[float, float]


# --- icon and banner: noise, then large pixels, then an image


def scene(width: int, height: int) -> Image.Image:
    """An evening landscape, smooth."""
    over = 3
    w, h = width * over, height * over
    unit = h
    stops = np.array([(40, 36, 92), (98, 58, 136), (222, 92, 122), (255, 158, 98), (255, 208, 134)], np.float32)
    rows = np.linspace(0, 1.18, h).clip(0, 1) * (len(stops) - 1)
    low = rows.astype(int).clip(0, len(stops) - 2)
    sky = stops[low] + (stops[low + 1] - stops[low]) * (rows - low)[:, None]
    image = Image.fromarray(np.broadcast_to(sky[:, None], (h, w, 3)).astype(np.uint8).copy())
    pen = ImageDraw.Draw(image)

    sun = (w - 0.44 * unit, 0.40 * unit)
    glow = Image.new("L", (w, h))
    disc(ImageDraw.Draw(glow), sun, 0.24 * unit, 150)
    image.paste((255, 226, 160), mask=glow.filter(ImageFilter.GaussianBlur(0.07 * unit)))
    disc(pen, sun, 0.155 * unit, (255, 240, 190))

    def ridge(points: list[Point], color: str) -> None:
        line = [(w - x * unit, y * unit) for x, y in points]
        pen.polygon([(w, h), *line, (line[-1][0], h)], fill=color)

    far, reach = [(0, 0.62)], w / unit + 0.2
    for number, x in enumerate(np.arange(0.13, reach, 0.19)):
        far.append((x, (0.50, 0.66, 0.46, 0.60)[number % 4]))
    ridge(far, "#8a4a86")
    near = [(0, 0.74)]
    for number, x in enumerate(np.arange(0.20, reach, 0.27)):
        near.append((x, (0.58, 0.80, 0.66, 0.84)[number % 4]))
    ridge(near, "#4d3478")
    curve = np.linspace(0, reach, 200)
    ridge([(x, 0.855 + 0.035 * np.sin(3.6 * x + 0.6)) for x in curve], "#27264f")
    for x, size in ((0.13, 0.15), (0.26, 0.10), (0.74, 0.12), (0.86, 0.17)):
        base = (w - x * unit, (0.865 + 0.035 * np.sin(3.6 * x + 0.6)) * unit)
        for level in range(3):
            top, half = base[1] - size * unit * (0.55 + 0.32 * level), size * unit * (0.34 - 0.08 * level)
            foot = base[1] - size * unit * 0.30 * level
            pen.polygon([(base[0] - half, foot), (base[0], top), (base[0] + half, foot)], fill="#1b1c3d")
    return image.resize((width, height), Image.Resampling.LANCZOS)


def disc(pen: ImageDraw.ImageDraw, center: Point, radius: float, fill: object) -> None:
    x, y = center
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=fill)


def grow(scenery: Image.Image, coarse: int, edge: float, slope: float, seed: int = 5) -> Image.Image:
    """From noise in large pixels at the upper left to the finished image: the pixels halve in size along the way."""
    random = Random(seed)
    width, height = scenery.size
    mean = {}
    for factor in (1, 2, 4):
        side = coarse // factor
        mean[side] = scenery.resize((width // side, height // side), Image.Resampling.BOX)
    out = scenery.copy()
    pen = ImageDraw.Draw(out)

    def fill(x: int, y: int, side: int) -> None:
        place = ((x + side / 2) / width + slope * (y + side / 2) / height) / (1 + slope)
        place += random.uniform(-0.03, 0.03)
        amount = min(1.0, max(0.0, (place - edge + 0.34) / 0.34))  # 0 = noise, 1 = image
        if side > coarse // 4 and amount > (0.45 if side == coarse else 0.78):
            half = side // 2
            for dx, dy in ((0, 0), (half, 0), (0, half), (half, half)):
                fill(x + dx, y + dy, half)
            return
        if amount >= 1.0:
            return
        color = np.array(mean[side].getpixel((min(x // side, width // side - 1), min(y // side, height // side - 1))))
        hue = np.array(random.choice(((52, 48, 110), (84, 58, 132), (36, 36, 84), (122, 74, 140), (190, 92, 128))))
        mix = (1 - amount) ** 0.8
        shade = color * (1 - mix) + (hue * random.uniform(0.6, 1.12)) * mix
        pen.rectangle([x, y, x + side - 1, y + side - 1], fill=tuple(int(min(255, v)) for v in shade))

    for y in range(0, height, coarse):
        for x in range(0, width, coarse):
            fill(x, y, coarse)
    return out


def rounded(image: Image.Image, radius: int) -> Image.Image:
    mask = Image.new("L", (image.width * 4, image.height * 4))
    ImageDraw.Draw(mask).rounded_rectangle([0, 0, mask.width - 1, mask.height - 1], radius * 4, fill=255)
    image = image.convert("RGBA")
    image.putalpha(mask.resize(image.size, Image.Resampling.LANCZOS))
    return image


def icon() -> Image.Image:
    return rounded(grow(scene(400, 400), 50, 0.50, 0.55), 72)


def banner() -> Image.Image:
    image = grow(scene(1680, 720), 80, 0.60, 0.22)
    shade = Image.new("L", image.size)
    width = image.width
    ramp = (np.linspace(1, 0, width) * 1.9 - 0.75).clip(0, 0.62) * 255
    shade = Image.fromarray(np.broadcast_to(ramp.astype(np.uint8), (image.height, width)).copy())
    image.paste((18, 18, 46), mask=shade)
    pen = ImageDraw.Draw(image)
    pen.text((100, 176), "PixelDiT", "#ffffff", ImageFont.truetype("NotoSansCJK-Bold.ttc", 168))
    pen.text((108, 424), "for ComfyUI: straight to pixels, no VAE", "#ffe3c2", face(40))
    return image


# --- diagrams


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
    icon().save(ROOT / "docs" / "images" / "icon.png", optimize=True)
    banner().save(ROOT / "docs" / "images" / "banner.png", optimize=True)
    for draw in (timeshift, interval, wiring):
        small = draw().quantize(128, dither=Image.Dither.NONE)
        small.save(ROOT / "web" / "docs" / "images" / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
