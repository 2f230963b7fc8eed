"""The twelve scenes, each a backdrop with one subject; positions, sizes, angles and colors come from `rng`."""

import math
from random import Random

from brush import Palette, Pen, backdrop, canvas, ellipse_points, hills, mix, stars, water


def balloon(size: int, palette: Palette, rng: Random) -> Pen:
    """A striped hot-air balloon over hills."""
    page = backdrop(size, palette, rng)
    hills(page, palette, rng, rng.uniform(0.72, 0.85))
    main, other = rng.sample(palette.accents, 2)
    pen = page.at(rng.uniform(-0.25, 0.25), rng.uniform(-0.28, -0.1), rng.uniform(0.52, 0.64), rng.uniform(-6, 6))
    for x in (-0.24, 0.24):
        pen.line((x * 1.6, 0.75), (x, 1.2), 0.05, palette.dark)
    pen.polygon([(-0.26, 1.15), (0.26, 1.15), (0.2, 1.5), (-0.2, 1.5)], palette.dark)
    for width, color in ((1.0, main), (0.68, other), (0.3, main)):
        pen.polygon(
            [
                *ellipse_points(0, 0, width, 1.0, (180, 360)),
                (width * 0.85, 0.4),
                (0.3 * width, 1.0),
                (-0.3 * width, 1.0),
                (-width * 0.85, 0.4),
            ],
            color,
        )
    pen.blob([(-0.62, -0.55), (-0.35, -0.72), (-0.5, -0.1), (-0.72, 0.0)], palette.light, 0.35)
    return page


def sailboat(size: int, palette: Palette, rng: Random) -> Pen:
    """A boat with two sails on the sea."""
    page = backdrop(size, palette, rng)
    level = rng.uniform(0.2, 0.35)
    water(page, palette, level)
    hull, flag = rng.sample(palette.accents[:3], 2)
    mirror = rng.choice((-1, 1))
    pen = page.at(rng.uniform(-0.2, 0.2), level + 0.18, rng.uniform(0.62, 0.76), rng.uniform(-6, 6), mirror)
    pen.ellipse(0, 0.33, 0.95, 0.1, palette.light, 0.45)
    pen.line((0, 0.1), (0, -1.45), 0.07, palette.dark)
    pen.polygon([(0.08, -1.35), (0.78, -0.1), (0.08, -0.1)], palette.light)
    pen.polygon([(-0.08, -1.15), (-0.08, -0.1), (-0.62, -0.1)], flag)
    pen.polygon([(-0.85, 0.0), (0.9, 0.0), (0.6, 0.34), (-0.6, 0.34)], hull)
    pen.polygon([(-0.85, 0.0), (0.9, 0.0), (0.83, 0.08), (-0.78, 0.08)], palette.light)
    return page


def mountain(size: int, palette: Palette, rng: Random) -> Pen:
    """Two snow-capped peaks behind a row of hills."""
    page = backdrop(size, palette, rng)
    far, _, near = palette.land
    side = rng.choice((-1, 1))
    peaks = ((-0.6, rng.uniform(0.55, 0.7), mix(far, near, 0.1)), (0.2, rng.uniform(0.9, 1.05), mix(far, near, 0.4)))
    for x, height, color in peaks:
        pen = page.at(side * (x + rng.uniform(-0.12, 0.12)), 0.65, height, squeeze=rng.choice((-1, 1)))
        pen.polygon([(0, -1.25), (0.95, 0.1), (-0.95, 0.1)], color)
        pen.polygon([(0, -1.25), (0.95, 0.1), (0.15, 0.1), (-0.12, -0.6)], palette.dark, 0.28)
        pen.polygon(
            [(0, -1.25), (0.33, -0.78), (0.12, -0.86), (-0.02, -0.62), (-0.16, -0.84), (-0.34, -0.77)], palette.light
        )
    hills(page, palette, rng, rng.uniform(0.78, 0.88))
    return page


def cactus(size: int, palette: Palette, rng: Random) -> Pen:
    """A saguaro with two arms and a flower, on sand."""
    page = backdrop(size, palette, rng)
    sand = mix(palette.light, palette.land[0], 0.55)
    level = rng.uniform(0.5, 0.62)
    page.blob(
        [(-1.6, 1.6), (-1.2, level), (-0.3, level - 0.1), (0.5, level + 0.02), (1.3, level - 0.08), (1.6, 1.6)], sand
    )
    green = mix(palette.land[1], (38, 140, 90), 0.65)
    shade = mix(green, palette.dark, 0.35)
    pen = page.at(rng.uniform(-0.2, 0.2), level + 0.12, rng.uniform(0.8, 0.95), squeeze=rng.choice((-1, 1)))
    pen.ellipse(0.1, 0.06, 0.5, 0.08, palette.dark, 0.3)
    for x, bend, top in ((-0.5, -0.35, rng.uniform(-0.85, -0.7)), (0.5, -0.55, rng.uniform(-1.15, -0.95))):
        pen.line((0, bend), (x, bend), 0.22, green)
        pen.ellipse(x, bend, 0.11, 0.11, green)
        pen.line((x, bend), (x, top), 0.22, green)
        pen.ellipse(x, top, 0.11, 0.11, green)
    pen.line((0, 0.06), (0, -1.25), 0.36, green)
    pen.ellipse(0, -1.25, 0.18, 0.18, green)
    pen.line((0.1, 0.06), (0.1, -1.25), 0.1, shade)
    pen.ellipse(0, -1.42, 0.14, 0.11, palette.accents[0])
    return page


def mushroom(size: int, palette: Palette, rng: Random) -> Pen:
    """A spotted toadstool in the grass."""
    page = backdrop(size, palette, rng)
    hills(page, palette, rng, rng.uniform(0.55, 0.66))
    cap = rng.choice(palette.accents[:2])
    pen = page.at(rng.uniform(-0.18, 0.18), rng.uniform(0.0, 0.1), rng.uniform(0.68, 0.8), rng.uniform(-9, 9))
    pen.blob([(-0.2, 0.0), (0.2, 0.0), (0.25, 0.6), (0.32, 0.95), (-0.32, 0.95), (-0.25, 0.6)], palette.light)
    pen.polygon([(0.05, 0.0), (0.2, 0.0), (0.25, 0.6), (0.3, 0.95), (0.1, 0.97)], palette.dark, 0.2)
    pen.ellipse(0, 0.02, 0.85, 0.2, mix(palette.light, palette.dark, 0.25))
    pen.polygon([*ellipse_points(0, 0.0, 0.95, 0.95, (180, 360)), *ellipse_points(0, 0.0, 0.95, 0.14, (0, 180))], cap)
    for x, y, r in ((-0.5, -0.32, 0.17), (0.05, -0.62, 0.19), (0.52, -0.25, 0.16), (-0.02, -0.12, 0.13)):
        pen.ellipse(x + rng.uniform(-0.05, 0.05), y, r, r * 0.9, palette.light)
    return page


def fish(size: int, palette: Palette, rng: Random) -> Pen:
    """A banded reef fish under water, with bubbles."""
    deep = mix(palette.sea[1], palette.dark, 0.2)
    page = canvas(size, mix(palette.sea[0], palette.light, 0.2), deep)
    floor = mix(palette.light, palette.sea[1], 0.45)
    page.blob([(-1.6, 1.6), (-1.2, 0.82), (-0.4, 0.72), (0.4, 0.86), (1.2, 0.74), (1.6, 1.6)], floor)
    body, band = rng.sample(palette.accents, 2)
    pen = page.at(
        rng.uniform(-0.1, 0.1),
        rng.uniform(-0.15, 0.1),
        rng.uniform(0.68, 0.8),
        rng.uniform(-12, 12),
        rng.choice((-1, 1)),
    )
    fin = mix(body, palette.dark, 0.25)
    pen.blob([(-0.55, 0.0), (-1.05, -0.5), (-0.95, 0.0), (-1.05, 0.5)], fin)
    pen.blob([(-0.3, -0.4), (0.05, -0.82), (0.4, -0.4)], fin)
    pen.blob([(-0.2, 0.4), (-0.05, 0.72), (0.25, 0.4)], fin)
    pen.blob([(0.88, 0.02), (0.45, -0.45), (-0.2, -0.48), (-0.7, 0.0), (-0.2, 0.48), (0.45, 0.45)], body)
    for x, reach in ((-0.28, 0.4), (0.18, 0.46)):
        pen.blob(
            [(x - 0.08, -reach), (x + 0.1, -reach), (x + 0.17, 0), (x + 0.1, reach), (x - 0.08, reach), (x, 0)], band
        )
    pen.ellipse(0.57, -0.1, 0.12, 0.12, palette.light)
    pen.ellipse(0.59, -0.1, 0.065, 0.065, palette.dark)
    bubble = pen.at(0.95, -0.3)
    for y in (0.0, -0.3, -0.55):
        bubble.ellipse(rng.uniform(-0.08, 0.08), y, 0.08, 0.08, palette.light, 0.7)
    return page


def butterfly(size: int, palette: Palette, rng: Random) -> Pen:
    """A butterfly with open wings, seen from above."""
    page = canvas(size, mix(palette.sky[0], palette.light, 0.35), palette.sky[1])
    for _ in range(3):
        page.ellipse(rng.uniform(-1, 1), rng.uniform(-1, 1), 0.4, 0.4, palette.light, 0.18)
    upper, lower = rng.sample(palette.accents[:3], 2)
    pen = page.at(rng.uniform(-0.12, 0.12), rng.uniform(-0.1, 0.1), rng.uniform(0.75, 0.9), rng.uniform(-25, 25))
    width = rng.uniform(0.85, 1.0)
    for side in (-width, width):
        wing = pen.at(squeeze=side)
        wing.blob([(0.03, 0.0), (0.35, 0.12), (0.75, 0.35), (0.68, 0.8), (0.35, 0.85), (0.08, 0.3)], lower)
        wing.ellipse(0.5, 0.55, 0.15, 0.15, palette.light, 0.9)
        wing.blob([(0.03, 0.05), (0.3, -0.55), (0.8, -0.9), (1.05, -0.6), (0.85, 0.0), (0.4, 0.15)], palette.dark)
        wing.blob([(0.1, 0.0), (0.35, -0.46), (0.76, -0.74), (0.91, -0.54), (0.75, -0.08), (0.4, 0.06)], upper)
        wing.ellipse(0.68, -0.42, 0.14, 0.14, palette.light, 0.9)
        pen.line((0.0, -0.35), (0.3 * side, -0.75), 0.05, palette.dark)
    pen.ellipse(0, 0.1, 0.09, 0.5, palette.dark)
    pen.ellipse(0, -0.4, 0.12, 0.12, palette.dark)
    return page


def house(size: int, palette: Palette, rng: Random) -> Pen:
    """A cottage with a chimney, a door and a window."""
    page = backdrop(size, palette, rng)
    hills(page, palette, rng, rng.uniform(0.62, 0.72))
    roof, door = rng.sample(palette.accents[:3], 2)
    wall = mix(palette.light, palette.accents[3], 0.5)
    pen = page.at(rng.uniform(-0.18, 0.18), rng.uniform(0.1, 0.2), rng.uniform(0.64, 0.76), squeeze=rng.choice((-1, 1)))
    pen.polygon([(0.38, -0.95), (0.6, -0.95), (0.6, -0.3), (0.38, -0.3)], palette.dark)
    for x, y, r in ((0.52, -1.15, 0.11), (0.68, -1.35, 0.15)):
        pen.ellipse(x, y, r, r, palette.light, 0.65)
    pen.polygon([(-0.75, -0.25), (0.75, -0.25), (0.75, 0.8), (-0.75, 0.8)], wall)
    pen.polygon([(-0.75, -0.25), (0.75, -0.25), (0.75, -0.08), (-0.75, -0.08)], palette.dark, 0.2)
    pen.polygon([(0, -1.0), (1.0, -0.18), (-1.0, -0.18)], roof)
    pen.polygon([(-0.48, 0.2), (-0.12, 0.2), (-0.12, 0.8), (-0.48, 0.8)], door)
    pen.polygon([(0.14, 0.12), (0.56, 0.12), (0.56, 0.5), (0.14, 0.5)], palette.dark)
    pen.polygon([(0.18, 0.16), (0.52, 0.16), (0.52, 0.46), (0.18, 0.46)], mix(palette.light, (255, 210, 90), 0.6))
    return page


def sunflower(size: int, palette: Palette, rng: Random) -> Pen:
    """A big yellow flower on a stem with two leaves."""
    page = backdrop(size, palette, rng)
    hills(page, palette, rng, rng.uniform(0.8, 0.92))
    green = mix(palette.land[1], (60, 150, 80), 0.7)
    pen = page.at(rng.uniform(-0.15, 0.15), rng.uniform(-0.3, -0.2), rng.uniform(0.6, 0.7), rng.uniform(-8, 8))
    pen.line((0, 0.5), (0, 2.2), 0.14, green)
    for side in (-1, 1):
        y = 1.45 + 0.12 * side
        pen.blob([(0, y), (0.35 * side, y - 0.4), (0.78 * side, y - 0.38), (0.45 * side, y)], green)
    petal = mix((255, 196, 40), palette.accents[1], 0.35)
    for shade, start in ((mix(petal, palette.accents[0], 0.3), 0.5), (petal, 0.0)):
        for i in range(10):
            leaf = pen.at(turn=36 * (i + start))
            leaf.blob([(-0.12, -0.4), (-0.2, -0.7), (0, -1.02), (0.2, -0.7), (0.12, -0.4)], shade)
    brown = mix((92, 52, 30), palette.dark, 0.35)
    pen.ellipse(0, 0, 0.48, 0.48, brown)
    pen.ellipse(0, 0, 0.3, 0.3, mix(brown, petal, 0.3))
    return page


def rocket(size: int, palette: Palette, rng: Random) -> Pen:
    """A rocket taking off, among stars."""
    page = canvas(size, mix(palette.sky[0], palette.dark, 0.75), mix(palette.land[1], palette.sky[1], 0.2))
    stars(page, palette, rng, rng.randint(5, 9))
    trim, flame = palette.accents[0], palette.accents[1]
    if rng.random() < 0.5:
        trim = palette.accents[2]
    pen = page.at(
        rng.uniform(-0.12, 0.12),
        rng.uniform(-0.12, 0.02),
        rng.uniform(0.72, 0.84),
        rng.uniform(10, 40),
        rng.choice((-1, 1)),
    )
    length = rng.uniform(1.1, 1.35)
    pen.blob([(-0.22, 0.6), (0.22, 0.6), (0.17, 0.85), (0, length), (-0.17, 0.85)], flame)
    pen.blob([(-0.1, 0.6), (0.1, 0.6), (0, length * 0.82)], palette.light)
    for side in (-1, 1):
        pen.polygon([(0.25 * side, 0.1), (0.62 * side, 0.5), (0.58 * side, 0.82), (0.2 * side, 0.58)], trim)
    hull = [
        (0, -1.0),
        (0.2, -0.72),
        (0.33, -0.3),
        (0.33, 0.2),
        (0.22, 0.64),
        (-0.22, 0.64),
        (-0.33, 0.2),
        (-0.33, -0.3),
        (-0.2, -0.72),
    ]
    pen.polygon(hull, palette.light)
    pen.polygon([*hull[:5], (0.05, 0.64), (0.15, 0.0), (0.12, -0.5)], palette.dark, 0.2)
    pen.polygon([hull[0], hull[1], (0.26, -0.52), (-0.26, -0.52), hull[-1]], trim)
    pen.ellipse(0, -0.12, 0.19, 0.19, palette.dark)
    pen.ellipse(0, -0.12, 0.12, 0.12, mix(palette.sky[1], (120, 200, 235), 0.6))
    return page


def moon(size: int, palette: Palette, rng: Random) -> Pen:
    """A crescent among stars, over a sleeping landscape."""
    top = mix(palette.sky[0], palette.dark, 0.8)
    page = canvas(size, top, mix(palette.sky[0], palette.dark, 0.35))
    stars(page, palette, rng, rng.randint(6, 10))
    glow = page.at(
        rng.uniform(-0.2, 0.2),
        rng.uniform(-0.3, -0.12),
        rng.uniform(0.5, 0.6),
        rng.uniform(-35, 15),
        rng.choice((-1, 1)),
    )
    glow.ellipse(0, 0, 1.2, 1.2, palette.light, 0.12)
    inner = [(x + 0.4, y) for x, y in ellipse_points(0, 0, 0.74, 0.8, (270, 90))]
    glow.polygon([*ellipse_points(0, 0, 1, 1, (52, 308)), *inner], mix(palette.light, (255, 226, 140), 0.5))
    for layer, level in ((0.45, 0.55), (0.8, 0.75)):
        phase = rng.uniform(0, math.tau)
        ridge = [(x / 10, level + 0.08 * math.sin(phase + x * 0.3)) for x in range(-11, 12)]
        page.polygon([*ridge, (1.1, 1.1), (-1.1, 1.1)], mix(palette.land[1], palette.dark, layer))
    return page


def umbrella(size: int, palette: Palette, rng: Random) -> Pen:
    """A striped parasol on the beach."""
    page = backdrop(size, palette, rng)
    level = rng.uniform(0.08, 0.22)
    water(page, palette, level)
    sand = mix(palette.light, palette.land[0], 0.35)
    page.blob(
        [(-1.6, 1.6), (-1.2, level + 0.42), (-0.3, level + 0.34), (0.5, level + 0.44), (1.3, level + 0.36), (1.6, 1.6)],
        sand,
    )
    pen = page.at(
        rng.uniform(-0.15, 0.15),
        rng.uniform(-0.08, 0.04),
        rng.uniform(0.72, 0.84),
        rng.uniform(5, 20),
        rng.choice((-1, 1)),
    )
    main, other = rng.choice(palette.accents[:3]), palette.light
    pen.ellipse(0.3, 1.05, 0.6, 0.08, palette.dark, 0.25)
    pen.line((0, -0.9), (0, 1.05), 0.07, palette.dark)
    for width, color in ((1.0, main), (0.62, other), (0.24, main)):
        pen.polygon(
            [*ellipse_points(0, 0, width, 0.85, (180, 360)), *ellipse_points(0, 0, width, 0.1, (0, 180))], color
        )
    pen.polygon([*ellipse_points(0, 0, 1.0, 0.85, (300, 360)), (0.3, 0.0)], palette.dark, 0.18)
    return page
