"""What samples are compared with: images, or stored statistics of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..atomic import atomic_path, explain_write_error
from ..resize import Size
from .extractor import INCEPTION, Extractor
from .image_source import ImageSource, archive_shape, open_images
from .measure import MOST_REFERENCES, Measured, measure_images
from .moments import Statistics

_NOTE = "pixeldit"  # the array with our note, JSON as text
Measurement = tuple[ImageSource, Measured]
_STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
_ADM_WIDTHS = {"": 2048, "_s": 2023}  # features of FID and of sFID


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
    most: int = MOST_REFERENCES,
) -> Reference:
    """A folder of images, an ADM reference (.npz with mu and sigma, arr_0, or all), or statistics saved here.

    Args:
        size: of the samples; None = none yet.
        crop: scale and center-crop the images of a folder to it, as ADM prepares ImageNet.
        most: of its images, whose features are kept for precision and recall.

    Raises:
        ValueError: nothing to compare with there; of another extractor, or of another size.
    """
    stored = _read_arrays(path) if path.is_file() else {}
    note = _read_note(path, stored)
    images = partial(_measure, extractor=extractor, device=device, batch_size=batch_size, most=most)
    if note is not None:
        reference = _from_saved(path, stored, note, extractor)
    elif "mu" in stored and "sigma" in stored and extractor.name == INCEPTION:
        reference = _from_adm(path, stored, images)
    elif "mu" in stored and archive_shape(path) is None:
        raise ValueError(
            f"{path} has statistics of the ADM protocol's Inception network and no images, and the extractor is "
            f'"{extractor.name}". Choose --extractor {INCEPTION}, or a reference with images.'
        )
    else:
        reference = _from_images(path, size if crop else None, images)
    if size is not None and reference.size is not None and size != reference.size:
        raise ValueError(
            f"the reference {path} has images of {reference.size[1]} x {reference.size[0]} pixels (width x height), "
            f"the samples {size[1]} x {size[0]}. Their scores would not mean what they say: name a reference of that "
            "size, or give --crop-reference to scale and crop a folder of images to it."
        )
    return reference


def check_statistics_name(path: Path) -> None:
    """Raises ValueError unless statistics can be written under this name."""
    if path.suffix != ".npz":
        raise ValueError(f"{path.name}: statistics are written as .npz; choose a name that ends so.")


def save_reference(reference: Reference, extractor: Extractor, path: Path) -> None:
    """Write statistics for `open_reference`: mu, sigma, mu_s, sigma_s as in ADM's files, features, and a note.

    Raises:
        ValueError: another suffix, or it cannot be written.
    """
    check_statistics_name(path)
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
    try:
        with atomic_path(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        reason, way_out = explain_write_error(error, path)
        raise ValueError(f"{path} could not be written: {reason}. {way_out}") from error


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Statistics, features and note of an .npz file; nothing else in it is read, and nothing unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in (*_STATISTICS, "features", _NOTE) if name in file.files}
    except Exception as error:  # zipfile and numpy raise many kinds of errors for damaged and other files
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
        weights, size, count = dict(note["weights"]), note["size"], note["count"]
        texts = (note["extractor"], *weights, *weights.values(), *note["deviations"])
        if not (all(isinstance(text, str) for text in texts) and isinstance(count, int | None)):
            raise TypeError("names, deviations or count are of another kind")
        if size is not None and [type(side) for side in size] != [int, int]:
            raise TypeError(f"size is {size}")
        return {**note, "weights": weights, "about": dict(note["about"]), "size": size and tuple(size)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: the note of --save-statistics is damaged ({error!r}). Save them again.") from error


def _statistics(path: Path, arrays: dict[str, np.ndarray], suffix: str = "") -> Statistics | None:
    if f"mu{suffix}" not in arrays or f"sigma{suffix}" not in arrays:
        return None
    mu, sigma = arrays[f"mu{suffix}"], arrays[f"sigma{suffix}"]
    fits = (
        mu.ndim == 1 and len(mu) and sigma.shape == (len(mu), len(mu)) and {mu.dtype.kind, sigma.dtype.kind} <= {*"fiu"}
    )
    if not fits or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(
            f"{path} has mu{suffix} {mu.dtype} {list(mu.shape)} and sigma{suffix} {sigma.dtype} {list(sigma.shape)}, "
            "or values that are not finite; expected [D] and [D, D]. Get it again."
        )
    return Statistics(mu.astype(np.float64), sigma.astype(np.float64))


def _features(path: Path, arrays: dict[str, np.ndarray], width: int) -> Tensor | None:
    if "features" not in arrays:
        return None
    rows = arrays["features"]
    if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != width or not np.isfinite(rows).all():
        raise ValueError(
            f"{path} has features {rows.dtype} {list(rows.shape)}, or values that are not finite; expected float32 [N, "
            f"{width}]. Save the statistics again."
        )
    return torch.from_numpy(rows)


def _from_saved(path: Path, stored: dict[str, np.ndarray], note: dict[str, Any], extractor: Extractor) -> Reference:
    digests = [sorted(weights.values()) for weights in (note["weights"], extractor.weights)]  # files may be renamed
    if note["extractor"] != extractor.name or digests[0] != digests[1]:
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
    features = _features(path, stored, len(fid.mu))
    about = {**note["about"], "statistics": str(path)}
    return Reference(
        fid, _statistics(path, stored, "_s"), features, note["count"], note["size"], about, tuple(note["deviations"])
    )


def _from_adm(path: Path, stored: dict[str, np.ndarray], images: Callable[..., Measurement]) -> Reference:
    """Stored statistics of a whole data set; its images, if it has some, serve precision and recall."""
    fid, spatial = _statistics(path, stored), _statistics(path, stored, "_s")
    assert fid is not None, "the caller looked for mu and sigma"
    for found, (suffix, width) in zip((fid, spatial), _ADM_WIDTHS.items(), strict=True):
        if found is not None and len(found.mu) != width:
            raise ValueError(
                f"{path} has a mu{suffix} of {len(found.mu):,} features, and the ADM protocol's Inception network "
                f"gives {width:,}: it is of another network, or of another layer. Name a reference of that network."
            )
    features, size, notes = None, None, []
    if archive_shape(path) is not None:
        source, measured = images(path)
        features, size = measured.features, source.size
    else:
        notes.append("the reference has no images: no precision and recall")
    if spatial is None:
        notes.append("the reference has no spatial statistics (mu_s, sigma_s): no sFID")
    about = {"path": str(path), "kind": "ADM statistics" + (" and images" if features is not None else "")}
    return Reference(fid, spatial, features, None, size, about, tuple(notes))


def _from_images(path: Path, crop: Size | None, images: Callable[..., Measurement]) -> Reference:
    source, found = images(path, crop)
    about = {"path": str(path), "kind": f"images of a {source.kind}", "count": found.count}
    notes = [f"statistics of {found.count:,} reference images, computed here; the protocol has stored ones of its own"]
    if source.is_lossy:
        notes.append("some reference images are JPEG or WebP: their artifacts count as the look of the data")
    if crop is not None:
        notes.append(f"reference images are scaled and center-cropped to {crop[1]} x {crop[0]} here")
    return Reference(found.fid, found.spatial, found.features, found.count, source.size, about, tuple(notes))


def _measure(
    path: Path, crop: Size | None = None, *, extractor: Extractor, device: torch.device, batch_size: int, most: int
) -> Measurement:
    """The images of a reference, and what the extractor sees in them."""
    source = open_images(path, crop)
    return source, measure_images(source, extractor, device, most=most, with_logits=False, batch_size=batch_size)
