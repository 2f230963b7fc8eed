"""Other packs with a node of our id: named with the place in custom_nodes, wherever the class of their node is from."""

import collections
import logging

import pytest
from kit import module, node


@pytest.fixture
def custom_nodes(tmp_path, monkeypatch):
    import folder_paths

    folder = tmp_path / "custom_nodes"
    folder.mkdir()
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda name: [str(folder)] if name == "custom_nodes" else [])
    return folder


def warned(monkeypatch, caplog, owner, kind="PixelDiTSampler"):
    """What the pack says when a node of another owner has our id."""
    import nodes

    caplog.clear()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        ours = node(kind)
        patch.setitem(nodes.NODE_CLASS_MAPPINGS, kind, owner)
        module("nodes.host.owners").watch([ours])
    return [record.getMessage() for record in caplog.records if "Two packs" in record.getMessage()]


def test_a_class_of_a_library_or_made_while_running(monkeypatch, caplog, custom_nodes):
    (custom_nodes / "their-pack").mkdir()
    made = type("PixelDiTSampler", (), {"__module__": "generated"})
    for owner in (made, type("Library", (collections.OrderedDict,), {"__module__": "collections"})):
        owner.RELATIVE_PYTHON_MODULE = "custom_nodes.their-pack"
        (line,) = warned(monkeypatch, caplog, owner)
        assert "a node PixelDiTSampler" in line and f"that of {custom_nodes / 'their-pack'} is not" in line, line


def test_a_pack_of_one_file_and_one_of_several(monkeypatch, caplog, custom_nodes):
    import importlib.util
    import sys

    for name, place in (("one.py", "one.py"), ("pack/__init__.py", "pack"), ("deep/src/nodes.py", "deep")):
        path = custom_nodes / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("class Node:\n    pass\n")
        spec = importlib.util.spec_from_file_location(f"their_{path.parent.name}", path)
        found = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, found)
        spec.loader.exec_module(found)
        for kind in ("PixelDiTSampler", "PixelDiTLoader"):
            (line,) = warned(monkeypatch, caplog, found.Node, kind)
            assert f"a node {kind}" in line and f"that of {custom_nodes / place} is not" in line, line


def test_nothing_is_said_of_ourselves(monkeypatch, caplog):
    assert warned(monkeypatch, caplog, node("PixelDiTSampler")) == []
