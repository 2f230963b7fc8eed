"""Palettes, a pen in local coordinates and the backdrops that the drawings share.

Everything is a filled polygon on a canvas four times larger than the image; reducing it is the anti-aliasing.
"""

import math
from dataclasses import dataclass, field, replace
from random import Random

from PIL import Image, ImageColor, ImageDraw

Color = tuple[int, ...]  # red, green, blue: 0 to 255
Point = tuple[float, float]

SUPERSAMPLE = 4


def _rgb(text: str) -> Color:
    return ImageColor.getrgb(text)[:3]


def mix(a: Color, b: Color, amount: float) -> Color:
    """The color `amount` of the way from a to b."""
    return tuple(round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))


@dataclass(frozen=True)
class Palette:
    """Colors of one mood that go together."""

    name: str
    sky: tuple[Color, ...]  # top, horizon
    land: tuple[Color, ...]  # far, middle, near
    sea: tuple[Color, ...]  # horizon, near
    accents: tuple[Color, ...]  # what the subject wears
    light: Color  # sun, snow, sails, petals
    dark: Color  # trunks, stripes, shadows


def _palette(name: str, sky: str, land: str, sea: str, accents: str, light: str, dark: str) -> Palette:
    def many(text: str) -> tuple[Color, ...]:
        return tuple(_rgb("#" + code) for code in text.split())

    return Palette(name, many(sky), many(land), many(sea), many(accents), _rgb("#" + light), _rgb("#" + dark))


PALETTES = (
    _palette(
        "dawn",
        "f2918c fde2b8",
        "d98a8f a8627f 6b4468",
        "f0a9a0 8a5a83",
        "e4475b f5b841 2f7f86 fff1dc",
        "fff4dc",
        "46294a",
    ),
    _palette(
        "noon",
        "3f9fe0 d3f1f5",
        "8fcba5 57a773 2e7d5b",
        "6cc5dd 1f78b4",
        "f0503f ffc83d ff8a3c f6f3ea",
        "fffdf2",
        "1f3a52",
    ),
    _palette(
        "dusk",
        "3b2a6b f58f7c",
        "8c4f86 5c3a78 33235a",
        "c7708c 46307a",
        "ff6b5e ffbe5c 4fc0c0 ffe3cf",
        "ffe9c9",
        "241546",
    ),
    _palette(
        "mint",
        "7fd1c2 f3f7dc",
        "a6d3a0 5fb08f 2d7f78",
        "8ed6cb 2b8f9e",
        "f2726b f8c55b 3b6fb0 fffaf0",
        "fffbea",
        "204b57",
    ),
    _palette(
        "lavender",
        "8d8be0 fbd9ea",
        "b9a4de 8a78c4 57509c",
        "b3b2ee 5f62b8",
        "f25f8a ffcb6b 3cb6b0 fdf3ff",
        "fff5fb",
        "352f66",
    ),
    _palette(
        "ember",
        "f57f4b ffe29a",
        "e59a5b c0673f 7d3d35",
        "f2b27a b5584b",
        "c8323c f9c440 1f8a84 fff0d2",
        "fff3cf",
        "4a2230",
    ),
    _palette(
        "night",
        "101c4a 4a6fb0",
        "3d5f99 294680 18295c",
        "4774b5 142257",
        "ff7a6b ffd166 58c9c0 eef3ff",
        "fff6d6",
        "0c1333",
    ),
)


@dataclass(frozen=True)
class Pen:
    """Draws polygons given in the local coordinates of a subject: y downwards, the subject within about -1..1.

    `x, y` is the position of the local origin in the image, itself -1..1; `size` and `turn` scale and rotate.
    """

    image: Image.Image
    x: float = 0.0
    y: float = 0.0
    size: float = 1.0
    turn: float = 0.0
    squeeze: float = 1.0  # horizontal stretch; -1 mirrors
    _draw: ImageDraw.ImageDraw | None = field(default=None, repr=False)

    def at(self, x: float = 0.0, y: float = 0.0, size: float = 1.0, turn: float = 0.0, squeeze: float = 1.0) -> "Pen":
        """A pen whose local origin lies at x, y of this one."""
        px, py = self._place((x, y))
        half = self.image.width / 2
        return replace(
            self,
            x=px / half - 1,
            y=py / half - 1,
            size=self.size * size,
            turn=self.turn + math.radians(turn),
            squeeze=self.squeeze * squeeze,
        )

    def _place(self, point: Point) -> Point:
        px, py = point[0] * self.squeeze * self.size, point[1] * self.size
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        half = self.image.width / 2
        return (self.x + px * cos - py * sin + 1) * half, (self.y + px * sin + py * cos + 1) * half

    def polygon(self, points: list[Point], color: Color, alpha: float = 1.0) -> None:
        """Fills a polygon; alpha 1 is opaque."""
        draw = self._draw or ImageDraw.Draw(self.image, "RGBA")
        draw.polygon([self._place(point) for point in points], fill=(*color, round(255 * alpha)))

    def blob(self, points: list[Point], color: Color, alpha: float = 1.0) -> None:
        """Fills the smooth closed curve (Catmull-Rom) through the points."""
        self.polygon(_smooth(points), color, alpha)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        alpha: float = 1.0,
        arc: tuple[float, float] = (0, 360),
    ) -> None:
        """Fills an ellipse, or the segment of it between two angles (0 = right, 90 = down)."""
        self.polygon(ellipse_points(x, y, rx, ry, arc), color, alpha)

    def line(self, a: Point, b: Point, width: float, color: Color) -> None:
        """A straight bar from a to b."""
        dx, dy = b[0] - a[0], b[1] - a[1]
        nx, ny = -dy / math.hypot(dx, dy) * width / 2, dx / math.hypot(dx, dy) * width / 2
        self.polygon(
            [(a[0] + nx, a[1] + ny), (b[0] + nx, b[1] + ny), (b[0] - nx, b[1] - ny), (a[0] - nx, a[1] - ny)], color
        )


def ellipse_points(x: float, y: float, rx: float, ry: float, arc: tuple[float, float] = (0, 360)) -> list[Point]:
    """Points on an ellipse's rim, for shapes that are put together from arcs."""
    angles = [math.radians(arc[0] + (arc[1] - arc[0]) * i / 40) for i in range(41)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def _smooth(points: list[Point], pieces: int = 8) -> list[Point]:
    out = []
    for i in range(len(points)):
        p0, p1, p2, p3 = (points[(i + k) % len(points)] for k in (-1, 0, 1, 2))
        for k in range(pieces):
            t = k / pieces
            out.append(
                tuple(
                    0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
                    for a, b, c, d in zip(p0, p1, p2, p3, strict=True)
                )
            )
    return out


def canvas(size: int, top: Color, bottom: Color) -> Pen:
    """A fresh canvas with a vertical gradient and the pen for it."""
    pixels = size * SUPERSAMPLE
    strip = Image.new("RGB", (1, 16))
    for i in range(16):
        strip.putpixel((0, i), mix(top, bottom, i / 15))
    return Pen(strip.resize((pixels, pixels), Image.Resampling.BICUBIC))


def clouds(pen: Pen, palette: Palette, rng: Random, count: int) -> None:
    """Flat-bottomed clouds, high up and half transparent."""
    for _ in range(count):
        cloud = pen.at(rng.uniform(-0.95, 0.95), rng.uniform(-0.9, -0.35), rng.uniform(0.16, 0.26))
        for x, y, r in ((-0.8, 0.0, 0.5), (0.0, -0.25, 0.75), (0.85, 0.05, 0.45)):
            cloud.polygon(ellipse_points(x, y + 0.3, r * 1.25, r, (180, 360)), palette.light, 0.6)


def sun(pen: Pen, palette: Palette, rng: Random) -> None:
    """A low disc with a soft halo."""
    x, y, r = rng.choice((-1, 1)) * rng.uniform(0.45, 0.75), rng.uniform(-0.75, -0.4), rng.uniform(0.14, 0.2)
    pen.ellipse(x, y, r * 1.7, r * 1.7, palette.light, 0.25)
    pen.ellipse(x, y, r, r, palette.light, 0.95)


def stars(pen: Pen, palette: Palette, rng: Random, count: int) -> None:
    """Small four-pointed stars."""
    for _ in range(count):
        s = pen.at(rng.uniform(-0.95, 0.95), rng.uniform(-0.95, 0.3), rng.uniform(0.04, 0.075))
        s.polygon([(0, -1), (0.3, -0.3), (1, 0), (0.3, 0.3), (0, 1), (-0.3, 0.3), (-1, 0), (-0.3, -0.3)], palette.light)


def hills(pen: Pen, palette: Palette, rng: Random, level: float) -> None:
    """Three rolling layers; `level` is where the front one begins."""
    for layer, color in enumerate(palette.land):
        top = level - 0.22 * (2 - layer)
        phase, swing = rng.uniform(0, math.tau), rng.uniform(0.04, 0.1)
        ridge = [(x / 10, top + swing * math.sin(phase + x * 0.27)) for x in range(-11, 12)]
        pen.polygon([*ridge, (1.1, 1.1), (-1.1, 1.1)], color)


def water(pen: Pen, palette: Palette, level: float) -> None:
    """A sea in four bands, darker towards us."""
    for i in range(4):
        top = level + (1 - level) * (i / 4) ** 1.3
        pen.polygon([(-1.1, top), (1.1, top), (1.1, 1.1), (-1.1, 1.1)], mix(palette.sea[0], palette.sea[1], i / 3))


def backdrop(size: int, palette: Palette, rng: Random) -> Pen:
    """A sky with, by chance, a sun, clouds or stars."""
    pen = canvas(size, *palette.sky)
    if palette.name in ("night", "dusk"):
        stars(pen, palette, rng, rng.randint(3, 7))
    elif rng.random() < 0.5:
        sun(pen, palette, rng)
    else:
        clouds(pen, palette, rng, rng.randint(1, 3))
    return pen
