"""The node schemas are pinned in tests/host/schema.json: changing one is a decision.

After a decision, run this test with `--out` and copy the `schema.json` of that folder over the pinned one.
"""

import json

import kit

NODES = (
    "PixelDiTLoader",
    "PixelDiTLoRA",
    "PixelDiTClassLabel",
    "PixelDiTTextPrompt",
    "PixelDiTSampler",
    "PixelDiTEdit",
    "PixelDiTCFGInterval",
    "PixelDiTCFGRescale",
    "PixelDiTCFGSchedule",
    "PixelDiTScheduler",
    "PixelDiTSolver",
    "PixelDiTDecode",
    "PixelDiTEncode",
    "PixelDiTSize",
    "PixelDiTSaveModel",
)
FROM_FILES = {  # options that differ by machine
    ("PixelDiTLoader", "checkpoint"),
    ("PixelDiTLoader", "encoder"),
    ("PixelDiTLoRA", "lora_name"),
    ("PixelDiTClassLabel", "class_name"),
}
KEPT = ("default", "min", "max", "step", "tooltip", "advanced", "control_after_generate", "options", "multiline")


def describe(node_id):
    info = kit.node(node_id).GET_NODE_INFO_V1()
    inputs = {}
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            kind, options = spec[0], dict(spec[1]) if len(spec) > 1 else {}
            entry = {"type": kind, "optional": group == "optional"}
            entry |= {key: options[key] for key in KEPT if options.get(key) is not None}
            if (node_id, name) in FROM_FILES:
                entry.pop("options", None)
                entry.pop("default", None)
            inputs[name] = entry
    outputs = [
        {"type": kind, "name": name, "tooltip": tooltip}
        for kind, name, tooltip in zip(info["output"], info["output_name"], info["output_tooltips"], strict=True)
    ]
    return {
        "display_name": info["display_name"],
        "category": info["category"],
        "description": info["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def test_schemas_are_the_pinned_ones():
    found = {node_id: describe(node_id) for node_id in NODES}
    (kit.OUT / "schema.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    pinned = json.loads((kit.PACK / "tests" / "host" / "schema.json").read_text(encoding="utf-8"))
    assert list(found) == list(pinned), "the list of nodes changed"
    for node_id, schema in found.items():
        for key, value in schema.items():
            assert value == pinned[node_id][key], f"{node_id}.{key} changed: {value} was {pinned[node_id][key]}"


def test_the_pack_adds_these_nodes_and_no_others():
    import nodes

    mine = [name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("PixelDiT")]
    assert sorted(mine) == sorted(NODES), str(mine)


def test_every_input_and_output_has_a_tooltip():
    for node_id in NODES:
        schema = describe(node_id)
        for name, entry in schema["inputs"].items():
            assert entry.get("tooltip"), f"{node_id}.{name}"
        for entry in schema["outputs"]:
            assert entry["tooltip"] and entry["name"], node_id


def test_aliases_where_comfyui_knows_them():
    for node_id in NODES:
        schema = kit.node(node_id).GET_SCHEMA()
        if hasattr(schema, "search_aliases"):
            assert schema.search_aliases, node_id


def test_the_pack_loads():
    assert kit.LOADED
