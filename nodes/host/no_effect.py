"""Nodes of other kinds of networks: a PixelDiT does what it can, and the log names the rest, once for each sampling.

Patches of U-Nets act on places that a PixelDiT does not have. ComfyUI's own transformers ignore them silently.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any

import comfy.patcher_extension

log = logging.getLogger(__name__)

KEY = "pixeldit_no_effect"
REPORTED = "pixeldit_reported"  # of transformer_options: what the log has of this sampling
HONORED = {"attn1_output_patch", "double_block"}  # kinds of patches that act, in patch blocks
_OTHER_NETWORKS = "nodes_model_patch"  # of ComfyUI: patches that bring weights made for one other network
_OPTIONS = {"a2v_cross_attn": "LTXVModalityGuidance", "chroma_radiance_options": "ChromaRadianceOptions"}
_CONDITION_KEYS = {"control": "ControlNet", "gligen": "GLIGEN"}

Maker = tuple[str, str]  # module, and the class or function in it


def with_report(patcher: Any) -> None:
    """Let each sampling of a MODEL begin with a look at what other nodes ask of it; its clones keep that."""
    kind = comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
    patcher.add_wrapper_with_key(kind, KEY, _outer_sample)


def report_once(transformer_options: Mapping[str, Any], node: str, message: str) -> None:
    """A warning about a node, once for each sampling; outside of one there is nobody to tell."""
    reported = transformer_options.get(REPORTED)
    if reported is not None and (node, message) not in reported:
        reported.add((node, message))
        log.warning("PixelDiT: %s %s.", node, message)


def report_options(transformer_options: Mapping[str, Any]) -> None:
    """Name the nodes that ask by an option of a pass for what a PixelDiT does not have."""
    for option in _OPTIONS.keys() & transformer_options.keys():
        report_once(transformer_options, _OPTIONS[option], "has no effect on a PixelDiT: it is for another network")


def maker(patch: Any) -> Maker:
    """Which node made a patch: functions inside of its method have its name in theirs."""
    named = patch if hasattr(patch, "__qualname__") else type(patch)
    return named.__module__, named.__qualname__.split(".<locals>")[0].split(".")[0]


def maker_name(patch: Any) -> str:
    """The same, for messages."""
    return _title(*maker(patch))


def _title(module: str, name: str) -> str:
    """A node and the file or pack it is from; ComfyUI loads them under their path, of which a part is enough."""
    parts = re.split(r"[./\\]", module)
    folders = [index for index, part in enumerate(parts) if part in ("custom_nodes", "comfy_extras")]
    return f"{name} ({'.'.join(parts[folders[-1] + 1 :] if folders else parts)})"


def _outer_sample(executor: Any, *arguments: Any, **options: Any) -> Any:
    guider = executor.class_obj
    guider.model_options = leave_out(guider.model_options, getattr(guider, "conds", None) or {})
    return executor(*arguments, **options)


def leave_out(model_options: dict[str, Any], conds: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Model options without what cannot act, named in the log; what cannot act in `conds` is removed in place.

    Where a patch has no place here, patches of attention's output by the same node go with it: they are the second half
    of the same thing (HyperTile, TomePatchModel). So do functions after guidance that read what the patch recorded.
    """
    transformer_options = dict(model_options.get("transformer_options", {}))
    transformer_options[REPORTED] = set()
    patches = transformer_options.get("patches", {})
    replaced = transformer_options.get("patches_replace", {})
    left: dict[Maker, str] = {}
    for kind, found in patches.items():
        for patch in found:
            if maker(patch)[0].endswith(_OTHER_NETWORKS):
                left[maker(patch)] = "blocks with weights made for another network"
            elif kind not in HONORED:
                left.setdefault(maker(patch), f'"{kind}"')
    recorders = _makers(patch for kind in replaced if kind != "dit" for patch in replaced[kind].values())
    left.update(dict.fromkeys(recorders, "attention of a U-Net"))
    for (module, name), what in left.items():
        report_once(
            transformer_options, _title(module, name), f"has no effect on a PixelDiT and is left out: it patches {what}"
        )
    for key, name in _CONDITION_KEYS.items():
        _leave_out_of_conditions(transformer_options, conds, key, name)
    if left:
        kept = {kind: [patch for patch in found if maker(patch) not in left] for kind, found in patches.items()}
        transformer_options["patches"] = {kind: found for kind, found in kept.items() if found}
        transformer_options["patches_replace"] = {kind: replaced[kind] for kind in replaced if kind == "dit"}
    model_options = {**model_options, "transformer_options": transformer_options}
    if recorders:
        after = model_options.get("sampler_post_cfg_function", [])
        model_options["sampler_post_cfg_function"] = [entry for entry in after if maker(entry) not in recorders]
    return model_options


def _makers(patches: Iterable[Any]) -> set[Maker]:
    return {maker(patch) for patch in patches}


def _leave_out_of_conditions(
    transformer_options: Mapping[str, Any], conds: Mapping[str, list[dict[str, Any]]], key: str, name: str
) -> None:
    found = [cond.pop(key) for rows in conds.values() for cond in rows if cond.get(key) is not None]
    if found:
        report_once(transformer_options, name, "has no effect and is left out: there is none for PixelDiT")
