"""Texts in the place of weights: what a server sent instead of the file, pointers, workflows, configurations."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any

from ..text import printable

_LARGEST_JSON = 16 * 2**20
_SHOWN = 120  #        characters of a text in a message
_LONGEST_PATH = 500
_MARKUP = 4096  #      characters in which a title or an error is looked for
_CONTROL = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"

_MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
# UTF-16 without a mark, of letters that ASCII has
_UNMARKED = {"utf-16-le": re.compile(rb"(?:[\t\n\r -~]\0){4,}"), "utf-16-be": re.compile(rb"(?:\0[\t\n\r -~]){4,}")}

_DOWNLOAD = (
    "Open the model's page in a browser, log in and accept its license if it asks for that, and download the file "
    "there again."
)
_ELSEWHERE = (
    "The address does not lead to the file (any more): open the model's page in a browser, and download the file there."
)
_NOT_FOUND = re.compile(r"not ?found|404|NoSuch(?:Key|Bucket)|410 Gone|does not exist", re.IGNORECASE)
_OTHER = "Choose the file of the model's weights, which ends with .safetensors in most cases."

# Texts that stand for a file: how they start, what they are, what to do
_POINTERS = (
    (r"version https://(?:git-lfs|hawser)|# xet version",
     "a Git LFS pointer, not the file itself", "Download the file, or run git lfs pull."),
    (r"[^\n]{0,200}/annex/objects/", "a git-annex pointer, not the file itself",
     "Download the file, or run git annex get."),
    (r"\[(?:InternetShortcut|Desktop Entry)\]",
     "a shortcut, not the file that it points to", "Move or copy the file itself into this folder."),
    (r"XSym\n|!<symlink>|IntxLNK",
     "a link that was stored as a text, not the file itself", "Copy the file itself into this folder."),
    (r"outs:\s*\n- md5:", "a DVC pointer, not the file itself", "Download the file, or run dvc pull."),
)  # fmt: skip
_PATH = re.compile(r"(?:\.{1,2}/)+[\w./-]+")  # a link, as git and hubs write it where links are not allowed
_COMMENT = re.compile(r"\s+|<!--.*?(?:-->|$)|<\?.*?(?:\?>|$)", re.DOTALL)
_HTML = re.compile(
    r"<(?:!doctype\s+html|html|head|body|script|noscript|meta|link|title|style|div|center|h[1-6]|p|br|pre|a|b|i|span|table|form"
    r"|img|iframe|main|section|ul)\b",
    re.I,
)
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_XML_ERROR = re.compile(r"<(Message|Code|title)(?:\s[^>]*)?>(.*?)</\1>", re.DOTALL)
_ERRORS = (
    "error", "errors", "message", "detail", "error_description", "Message", "msg", "Error", "Msg", "errmsg", "err_msg",
    "error_msg", "error_message", "errorMessage", "reason", "title",
)  # fmt: skip
_PICKLE = re.compile(
    r"c(?:copy_reg|__builtin__|builtins|__main__|collections|numpy[\w.]*|sklearn[\w.]*|torch[\w.]*)\n|\([dlti]p\d+\n"
)
_TEXT_FILES = {
    ".yaml": "a YAML configuration", ".yml": "a YAML configuration", ".toml": "a TOML configuration",
    ".ini": "a configuration", ".cfg": "a configuration", ".md": "a text", ".txt": "a text", ".py": "a Python program",
    ".csv": "a table", ".log": "a log", ".rst": "a text", ".xml": "an XML text", ".svg": "an image",
}  # fmt: skip


def explain_text(path: Path, head: bytes) -> str | None:
    """What a text in the place of weights is and what to do, as whole sentences with its name; None = it is no text.

    Args:
        head: the first bytes of the text.
    """
    text = _decode(head.rstrip(b"\0") if head[:2].isascii() and b"\0" not in head[:2] else head)
    if text is None:
        return None
    if _PICKLE.match(text):
        return (
            f"{path.name} is a pickled file of another program (as a text), not one of torch.save, and is not read; "
            "nothing of it was run. Get the weights as .safetensors."
        )
    if not text.strip():
        return f"{path.name} holds nothing but blanks. Get the file again."
    for start, what, advice in _POINTERS:
        if re.match(start, text):
            return f"{path.name} is {what}. {advice}"
    if len(text) < _LONGEST_PATH and _PATH.fullmatch(text.strip()):
        return (
            f"{path.name} holds nothing but the path {_line(text)}: it is a link that was stored as a text, not the "
            "file itself. Copy that file into this folder, or download it."
        )
    if text.lstrip()[0] in "{[" and (found := _explain_json(path, text)):
        return found
    if kind := _TEXT_FILES.get(path.suffix.lower()):
        return f"{path.name} is {kind}, not a checkpoint. {_OTHER}"
    return _explain_markup(path.name, text) or _answer(path.name, "a text", text)


def _decode(head: bytes) -> str | None:
    """A text without its byte order mark; None for bytes that are none."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            text = head[len(mark) :].decode(encoding, "replace")
            return None if any(ord(letter) < 9 for letter in text) else text
    for encoding, start in _UNMARKED.items():
        if start.match(head):
            return head.decode(encoding, "replace")
    return None if head.translate(None, _CONTROL) != head else head.decode("utf-8", "replace")


def _line(text: str) -> str:
    """The first line of a text that has letters, as a message can show it."""
    lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
    line = next((line for line in lines if line), "")
    shown = printable(line)
    return f'"{shown[:_SHOWN]}{"..." if len(shown) > _SHOWN else ""}"'


def _quoted(text: str) -> str:
    """The first line of a text as a sentence; nothing where its letters are of an encoding that is not known."""
    line = _line(text)
    return f" It says: {line}" if text.strip() and "\ufffd" not in line else ""


def _answer(name: str, what: str, says: str) -> str:
    """The message for what a server sent."""
    line = _quoted(says)
    advice = _ELSEWHERE if _NOT_FOUND.search(says[:_MARKUP]) else _DOWNLOAD
    return f"{name} is not a checkpoint but {what}, most likely a server's answer in place of the file.{line} {advice}"


def _explain_markup(name: str, text: str) -> str | None:
    """HTML and XML, whatever comes before: blanks, comments, declarations."""
    at = 0
    while found := _COMMENT.match(text, at):
        at = found.end()
    rest = text[at:]
    if _HTML.match(rest):
        title = _TITLE.search(rest[:_MARKUP])
        says = _quoted(title[2]) if title else ""
        advice = _ELSEWHERE if _NOT_FOUND.search(says) else _DOWNLOAD
        return f"{name} is a web page, not a checkpoint: a server sent it in place of the file.{says} {advice}"
    if not (rest.startswith("<") or text.lstrip().startswith("<?xml")):
        return None
    says = " ".join(found[2] for found in _XML_ERROR.finditer(rest[:_MARKUP])) or rest
    return _answer(name, "an XML text", says)


def _explain_json(path: Path, text: str) -> str | None:
    values = _read_json(path, text)
    if isinstance(values, list):
        values = next((value for value in values if isinstance(value, dict)), {})
    if not isinstance(values, dict):
        return _answer(path.name, "a text", text) if '"error"' in text else None
    if _is_workflow(values):
        return (
            f"{path.name} is a ComfyUI workflow, not a checkpoint. Drag it onto ComfyUI's page to open it, and choose "
            "a file of weights here."
        )
    if "weight_map" in values:
        return (
            f"{path.name} is not a checkpoint but the index of one in several files. Let its name end with "
            ".safetensors.index.json (or .bin.index.json), beside these files, and choose it again."
        )
    if found := next((values[key] for key in _ERRORS if values.get(key)), None):
        if isinstance(found, dict):
            found = next((found[key] for key in _ERRORS if found.get(key)), found)
        return _answer(path.name, "a text (JSON)", found if isinstance(found, str) else json.dumps(found))
    return f"{path.name} is not a checkpoint but a configuration or another JSON text. {_OTHER}"


def _read_json(path: Path, text: str) -> Any:
    """The values of a JSON text: of the whole file where it is no longer than usual, else of what was read of it."""
    try:
        if len(text) > 60_000 and path.stat().st_size <= _LARGEST_JSON:
            text = path.read_bytes().decode("utf-8-sig", "replace")
        return json.loads(text)
    except (ValueError, RecursionError, OSError):
        return None


def _is_workflow(values: dict[str, Any]) -> bool:
    if "nodes" in values and ("links" in values or "last_node_id" in values):
        return True
    return any(isinstance(value, dict) and "class_type" in value for value in values.values())
