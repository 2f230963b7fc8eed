"""File names from a node's filename_prefix: tokens, folders, and where the file goes."""

from __future__ import annotations

import re
import time
from pathlib import Path, PurePosixPath

import folder_paths

from ...pixeldit_core.atomic import check_target, explain_write_error, printable

DEFAULT_NAME = "PixelDiT"
_COMFYUI = ("year", "month", "day", "hour", "minute", "second")  # replaced by ComfyUI itself
_DATE = re.compile(r"%date:([^%]*)%")
_DATE_PART = re.compile(r"yyyy|yy|MM?|dd?|HH?|hh?|mm?|ss?")  # what ComfyUI's page replaces, and HH
_TOKEN = re.compile(r"%([^\W\d_][^%/\\]*)%")
_FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f]')  # in names, on Windows


def next_path(prefix: str) -> Path:
    """The next free numbered .safetensors file of a prefix, in the output folder, whose folder is made.

    `%date:yyyy-MM-dd%` and `%year%` ... `%second%` are replaced; a prefix that ends in a slash is a folder.

    Raises:
        ValueError: a token that is not known; a place outside of the output folder, or one that cannot be written.
    """
    name = _with_name(_replace_tokens(prefix.replace("\\", "/")))
    path = Path(name)
    try:
        folder, stem, counter, _, _ = folder_paths.get_save_image_path(name, folder_paths.get_output_directory())
        path = Path(folder, f"{stem}_{counter:05}_.safetensors")
        check_target(path)
    except (OSError, ValueError) as error:  # a ValueError: NUL, or letters that the system cannot write
        reason, way_out = explain_write_error(error, path)
        raise ValueError(
            f'"{printable(name)}", with the number and .safetensors that are added, cannot be written: {reason}. '
            f"{way_out}"
        ) from error
    except Exception as error:  # ComfyUI raises a plain Exception for a name outside the folder
        raise ValueError(f'"{printable(name)}" is outside the output folder. Give a name inside it.') from error
    return path


def _with_name(prefix: str) -> str:
    """A prefix that is a folder gets a name for the file in it."""
    last = prefix.rpartition("/")[2]
    return prefix if last not in ("", ".", "..") else str(PurePosixPath(prefix, DEFAULT_NAME))


def _replace_tokens(prefix: str) -> str:
    now = time.localtime()
    text = _DATE.sub(lambda match: _format_date(match[1], now), prefix)
    for match in _TOKEN.finditer(text):
        if match[1] not in _COMFYUI:
            raise ValueError(
                f"filename_prefix has {match[0]}, which is not replaced here. Known are %date:yyyy-MM-dd% (yyyy, MM, "
                f"dd, hh, mm, ss) and {', '.join(f'%{name}%' for name in _COMFYUI)}; write other values themselves."
            )
    return text


def _format_date(form: str, now: time.struct_time) -> str:
    values = {"y": now.tm_year, "M": now.tm_mon, "d": now.tm_mday, "h": now.tm_hour, "H": now.tm_hour,
              "m": now.tm_min, "s": now.tm_sec}  # fmt: skip

    def number(match: re.Match[str]) -> str:
        part = match[0]
        return str(values[part[0]]).zfill(len(part))[-2 if part == "yy" else 0 :]

    return _FORBIDDEN.sub("_", _DATE_PART.sub(number, form))
