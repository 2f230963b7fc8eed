"""A toy data set: emoji in two or three styles on soft backgrounds, as an image folder, OUT/<name>/<number>.png.

npm install --prefix data/npm @lobehub/fluent-emoji-3d@1.1.0 @lobehub/fluent-emoji-flat@1.1.0
python -m pip install resvg-py
python toy_data/emoji_images.py data/npm/node_modules data/emoji --best

The artwork is Microsoft's Fluent Emoji (MIT) and, if asked for, Google's Noto Emoji (Apache-2.0). Name, style and
number decide an image: its background, a shift, a size, and whether it is mirrored (with the version of Pillow).
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from random import Random

from emoji_names import NOT_MIRRORED, concepts
from PIL import Image, ImageOps

PACKAGES = {
    "3d": "@lobehub/fluent-emoji-3d",
    "flat": "@lobehub/fluent-emoji-flat",
    "noto": "@iconify-json/noto",
}
ORIGINAL = 256  # side of the originals in pixels
MARGIN = 96  # transparent, around an original: room for a shift
BACKGROUNDS = (
    (255, 240, 210),
    (214, 233, 252),
    (211, 240, 222),
    (253, 221, 222),
    (229, 222, 250),
    (255, 227, 196),
    (202, 230, 235),
    (233, 233, 229),
)
SCALES = (0.82, 0.94)  # side of an emoji over that of the image
SHIFT = 0.04  # at most, to each side


@dataclass(frozen=True)
class DataSet:
    """What decides the images of a data set."""

    packages: Path  # the folder that npm writes, node_modules
    styles: tuple[str, ...] = ("3d", "flat")
    size: int = 96  # height and width in pixels
    seed: int = 0

    def original(self, code: str, style: str) -> Image.Image:
        """The artwork of a code point: RGBA, 256 x 256.

        Raises:
            ValueError: a package that is not there, or lacks it, or SVG without a package that renders it.
        """
        root = check_package(self.packages, style)
        if style == "noto":
            return _render(_noto(root, code).encode())
        for suffix in (".webp", ".svg"):
            path = root / "assets" / (code + suffix)
            if path.exists() and suffix == ".svg":
                return _render(path.read_bytes())
            if path.exists():
                with Image.open(path) as image:
                    return image.convert("RGBA").resize((ORIGINAL, ORIGINAL), Image.Resampling.LANCZOS)
        raise ValueError(f"{root / 'assets'} has no {code}.webp or {code}.svg. Install {PACKAGES[style]}@1.1.0.")

    def compose(self, original: Image.Image, key: str, mirror: bool) -> Image.Image:
        """An RGB image of an original; the rest is decided by `key` and the seed of the data set."""
        rng = Random(f"{self.seed}/{key}")
        image = _background(rng, self.size)
        side = ORIGINAL / rng.uniform(*SCALES)
        left, top = (MARGIN + ORIGINAL / 2 - side / 2 + rng.uniform(-SHIFT, SHIFT) * side for _ in range(2))
        canvas = Image.new("RGBA", (ORIGINAL + 2 * MARGIN, ORIGINAL + 2 * MARGIN))
        canvas.paste(original, (MARGIN, MARGIN))
        box = (left, top, left + side, top + side)
        small = canvas.convert("RGBa").resize(image.size, Image.Resampling.BICUBIC, box).convert("RGBA")
        if rng.random() < 0.5 and mirror:
            small = ImageOps.mirror(small)
        return Image.alpha_composite(image, small).convert("RGB")


def check_package(packages: Path, style: str) -> Path:
    """The folder of the package of a style.

    Raises:
        ValueError: it is not there, or was not unpacked.
    """
    root = packages / PACKAGES[style]
    if not (root / "package.json").is_file():
        archives = sorted(packages.glob("*.tgz"))
        found = f"only archives, such as {archives[0].name}" if archives else "no such package"
        raise ValueError(
            f"{packages} has {found}; {root / 'package.json'} is expected. Run: npm install --prefix data/npm "
            f"{PACKAGES[style]} and give the folder data/npm/node_modules."
        )
    return root


@cache
def _noto_icons(root: Path) -> tuple[dict, dict]:
    """The drawings by name, and names by code points."""
    icons = json.loads((root / "icons.json").read_text(encoding="utf-8"))
    return icons, json.loads((root / "chars.json").read_text(encoding="utf-8"))


def _noto(root: Path, code: str) -> str:
    """SVG of a code point in Noto's package, which leaves out the selector of emoji."""
    icons, names = _noto_icons(root)
    name = names.get(code) or names.get(code.replace("-fe0f", ""))
    if name not in icons["icons"]:
        raise ValueError(f"{root} has no icon of {code}. Install {PACKAGES['noto']}@1.2.9.")
    size = f"0 0 {icons['width']} {icons['height']}"
    body = icons["icons"][name]["body"]
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" width="128" height="128">{body}</svg>'


def _render(svg: bytes) -> Image.Image:
    """RGBA pixels of SVG.

    Raises:
        ValueError: the package for it is not installed.
    """
    try:
        resvg = importlib.import_module("resvg_py")
    except ImportError as error:
        raise ValueError("flat and Noto emoji are SVG. To render them: python -m pip install resvg-py") from error
    data = resvg.svg_to_bytes(svg_string=svg.decode(), width=ORIGINAL, height=ORIGINAL)
    with Image.open(io.BytesIO(bytes(data))) as image:
        return image.convert("RGBA").resize((ORIGINAL, ORIGINAL), Image.Resampling.LANCZOS)


def _background(rng: Random, size: int) -> Image.Image:
    """A soft color; in half of the images it gets lighter upwards."""
    color = rng.choice(BACKGROUNDS)
    image = Image.new("RGBA", (size, size), color)
    if rng.random() < 0.5:
        light = Image.new("RGBA", (size, size), tuple((value + 255) // 2 for value in color))
        image = Image.composite(image, light, Image.linear_gradient("L").resize((size, size)))
    return image


def save_concept(concept: tuple[str, str], data: DataSet, out: Path, count: int) -> None:
    """Write `count` images of each style of one concept, a name and its code point; styles take turns in numbers."""
    name, code = concept
    (out / name).mkdir(parents=True, exist_ok=True)
    originals = [data.original(code, style) for style in data.styles]
    for number in range(count * len(originals)):
        style = number % len(originals)
        key = f"{name}/{data.styles[style]}/{number // len(originals)}"
        image = data.compose(originals[style], key, name not in NOT_MIRRORED)
        image.save(out / name / f"{number:05}.png", compress_level=1)


def save_emoji(out: Path, data: DataSet, names: Iterable[tuple[str, str]], count: int, workers: int = 0) -> None:
    """Write `count` images per concept and style below `out`, with this number of processes; 0 = in this one.

    Raises:
        ValueError: a missing package, or one that lacks a concept.
    """
    for style in data.styles:
        check_package(data.packages, style)
    save = partial(save_concept, data=data, out=out, count=count)
    if not workers:
        for concept in names:
            save(concept)
        return
    with get_context("spawn").Pool(workers) as pool:
        for _ in pool.imap_unordered(save, names, chunksize=4):
            pass


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, metavar="PACKAGES", help="node_modules, the folder that npm writes")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write to")
    parser.add_argument("--best", action="store_true", help="only the concepts of the bundled model, about half")
    parser.add_argument("--styles", nargs="+", choices=tuple(PACKAGES), default=["3d", "flat"])
    parser.add_argument("--count", type=int, default=64, help="images of each concept and style (%(default)s)")
    parser.add_argument("--size", type=int, default=96, help="height and width in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides all images (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (%(default)s)")
    options = parser.parse_args(argv)
    data = DataSet(options.packages, tuple(options.styles), options.size, options.seed)
    try:
        save_emoji(options.out, data, concepts(best=options.best).items(), options.count, options.workers)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
