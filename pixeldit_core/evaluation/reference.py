"""What samples are compared with: images, or stored statistics of them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path
from ..resize import Size
from .extractor import INCEPTION, Extractor
from .image_source import archive_shape, open_images
from .measure import MOST_REFERENCES, measure_images
from .moments import Statistics

_NOTE = "pixeldit"  # the array with our note, JSON as text


@dataclass(frozen=True)
class Reference:
    """Statistics of a reference, and features of up to 10,000 of its images for precision and recall."""

    fid: Statistics
    spatial: Statistics | None
    features: Tensor | None
    count: int | None  # of the images behind the statistics; None = unknown
    size: Size | None
    about: dict[str, Any]  # for score.json
    deviations: tuple[str, ...] = field(default=())


def open_reference(
    path: Path,
    extractor: Extractor,
    device: torch.device,
    size: Size | None,
    *,
    crop: bool = False,
    batch_size: int = 64,
) -> Reference:
    """A folder of images, an ADM reference (.npz with mu and sigma, arr_0, or all), or statistics saved here.

    Args:
        size: of the samples; None = none yet.
        crop: scale and center-crop the images of a folder to it, as ADM prepares ImageNet.

    Raises:
        ValueError: nothing to compare with there; of another extractor, or of another size.
    """
    stored = _read_arrays(path) if path.is_file() else {}
    note = _read_note(path, stored)
    if note is not None:
        reference = _from_saved(path, stored, note, extractor)
    elif "mu" in stored and "sigma" in stored and extractor.name == INCEPTION:
        reference = _from_adm(path, stored, extractor, device, batch_size)
    elif stored and archive_shape(path) is None:
        raise ValueError(
            f"{path} has statistics of the ADM protocol's Inception network and no images, and the extractor is "
            f'"{extractor.name}". Choose --extractor {INCEPTION}, or a reference with images.'
        )
    else:
        reference = _from_images(path, extractor, device, size if crop else None, batch_size)
    if size is not None and reference.size is not None and size != reference.size:
        raise ValueError(
            f"the reference {path} has images of {reference.size[1]} x {reference.size[0]} pixels (width x height), "
            f"the samples {size[1]} x {size[0]}. Their scores would not mean what they say: name a reference of that "
            "size, or give --crop-reference to scale and crop a folder of images to it."
        )
    return reference


def save_reference(reference: Reference, extractor: Extractor, path: Path) -> None:
    """Write statistics for `open_reference`: mu, sigma, mu_s, sigma_s as in ADM's files, features, and a note."""
    arrays = {"mu": reference.fid.mu, "sigma": reference.fid.sigma}
    if reference.spatial is not None:
        arrays |= {"mu_s": reference.spatial.mu, "sigma_s": reference.spatial.sigma}
    if reference.features is not None:
        arrays["features"] = reference.features.numpy()
    note = {
        "extractor": extractor.name, "weights": extractor.weights, "count": reference.count, "size": reference.size,
        "about": reference.about, "deviations": reference.deviations,
    }  # fmt: skip
    arrays[_NOTE] = np.array(json.dumps(note))
    if path.suffix != ".npz":
        raise ValueError(f"{path.name}: statistics are written as .npz; choose a name that ends so.")
    with atomic_path(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file but its images; none are pickled."""
    if not path.exists():
        raise ValueError(f"the reference {path} is not there. Name a folder of images, or an .npz file.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files if not name.startswith("arr_")}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"the reference {path} is not an .npz file that can be read ({error}). Name a folder of images, an ADM "
            "reference, or statistics that --save-statistics wrote."
        ) from error


def _read_note(path: Path, stored: dict[str, np.ndarray]) -> dict[str, Any] | None:
    """Our own note; None = the file has none."""
    if _NOTE not in stored:
        return None
    try:
        note = json.loads(str(stored[_NOTE]))
        for name in ("extractor", "weights", "count", "size", "about", "deviations"):
            note[name]
        return {**note, "about": dict(note["about"]), "size": tuple(note["size"]) if note["size"] else None}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: the note of --save-statistics is damaged ({error!r}). Save them again.") from error


def _statistics(path: Path, arrays: dict[str, np.ndarray], suffix: str = "") -> Statistics | None:
    if f"mu{suffix}" not in arrays or f"sigma{suffix}" not in arrays:
        return None
    mu, sigma = (np.asarray(arrays[f"{name}{suffix}"], np.float64) for name in ("mu", "sigma"))
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(
            f"{path} has mu{suffix} {list(mu.shape)} and sigma{suffix} {list(sigma.shape)}, or values that are not "
            "finite; expected [D] and [D, D]. Get it again."
        )
    return Statistics(mu, sigma)


def _from_saved(path: Path, stored: dict[str, np.ndarray], note: dict[str, Any], extractor: Extractor) -> Reference:
    if (note["extractor"], note["weights"]) != (extractor.name, extractor.weights):
        same = note["extractor"] == extractor.name
        theirs, ours = (
            f'"{name}" {", ".join(f"{file} {digest[:12]}" for file, digest in weights.items())}'.strip()
            for name, weights in ((note["extractor"], note["weights"]), (extractor.name, extractor.weights))
        )
        raise ValueError(
            f"the statistics {path} are of the extractor {theirs}, and this is {ours}: "
            f"{'the same network with other weights' if same else 'another network'}. Use that one, or save them again."
        )
    fid = _statistics(path, stored)
    if fid is None:
        raise ValueError(f"{path} lacks mu or sigma, which --save-statistics writes. Save them again.")
    features = torch.from_numpy(stored["features"]) if "features" in stored else None
    about = {**note["about"], "statistics": str(path)}
    return Reference(
        fid, _statistics(path, stored, "_s"), features, note["count"], note["size"], about, tuple(note["deviations"])
    )


def _from_adm(
    path: Path, stored: dict[str, np.ndarray], extractor: Extractor, device: torch.device, batch_size: int
) -> Reference:
    """Stored statistics of a whole data set; its images, if it has some, serve precision and recall."""
    fid = _statistics(path, stored)
    assert fid is not None, "the caller looked for mu and sigma"
    features, size = None, None
    if archive_shape(path) is not None:
        images = open_images(path)
        found = measure_images(
            images, extractor, device, most=MOST_REFERENCES, with_logits=False, batch_size=batch_size
        )
        features, size = found.features, images.size
    about = {"path": str(path), "kind": "ADM statistics" + (" and images" if features is not None else "")}
    notes = () if features is not None else ("the reference has no images: no precision and recall",)
    return Reference(fid, _statistics(path, stored, "_s"), features, None, size, about, notes)


def _from_images(
    path: Path, extractor: Extractor, device: torch.device, crop: Size | None, batch_size: int
) -> Reference:
    images = open_images(path, crop)
    found = measure_images(images, extractor, device, most=MOST_REFERENCES, with_logits=False, batch_size=batch_size)
    about = {"path": str(path), "kind": f"images of a {images.kind}", "count": found.count}
    notes = [f"statistics of {found.count:,} reference images, computed here; the protocol has stored ones of its own"]
    if images.is_lossy:
        notes.append("some reference images are JPEG or WebP: their artifacts count as the look of the data")
    if crop is not None:
        notes.append(f"reference images are scaled and center-cropped to {crop[1]} x {crop[0]} here")
    return Reference(found.fid, found.spatial, found.features, found.count, images.size, about, tuple(notes))
