"""The loader's list: right after every change of its folders, without asking the disk for each file again."""

import json
import os

from kit import module, node, out_of
from safetensors.torch import save_file
from torch import zeros


def entries():
    """The list as the page gets it."""
    return node("PixelDiTLoader").GET_NODE_INFO_V1()["input"]["required"]["checkpoint"][1]["options"]


def count_calls(monkeypatch, function):
    """How often a function asks the file system."""
    calls = []
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "listdir", "scandir", "access"):
            asked = getattr(os, name)
            patch.setattr(os, name, lambda *a, asked=asked, **k: calls.append(a) or asked(*a, **k))
        function()
    return len(calls)


def make_folder(name, files):
    folder = out_of("models") / "diffusion_models" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).touch()
    return folder


def test_the_disk_is_asked_for_folders_only(monkeypatch):
    import folder_paths

    names = module("nodes.host.folders")

    def comfyuis():
        for folder in (names.PACK_FOLDER, names.SHARED):
            folder_paths.get_filename_list(folder)

    def first_look():
        """Calls of ours alone, when nothing is known yet."""
        counts = []
        for function in (names.list_checkpoints, comfyuis):
            folder_paths.filename_list_cache.clear()
            counts.append(count_calls(monkeypatch, function))
        return counts[0] - counts[1]

    before = first_look()
    for index in range(5):
        make_folder(f"many/{index}", [f"{number}.safetensors" for number in range(40)])
    assert first_look() - before <= 50, "at first, folders are looked into, not asked for each of 200 files"
    assert sum(name.startswith("many/") for name in entries()) == 200
    own = count_calls(monkeypatch, comfyuis)
    assert count_calls(monkeypatch, names.list_checkpoints) == own, "later, no more than ComfyUI's own look at dates"
    assert count_calls(monkeypatch, entries) <= 3 * own


def test_the_list_follows_its_folders():
    folder = make_folder("follows", ["one.safetensors"])
    assert "follows/one.safetensors" in entries()

    def later(path):
        """The date of a folder as it would be a second later, on file systems with coarse ones."""
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 1))

    (folder / "two.safetensors").touch()
    later(folder)
    assert {"follows/one.safetensors", "follows/two.safetensors"} <= set(entries()), "a new file"
    (folder / "one.safetensors").unlink()
    later(folder)
    assert "follows/one.safetensors" not in entries(), "a file that went"

    shards = [f"net-{number:05}-of-00002.safetensors" for number in (1, 2)]
    for shard in shards:
        save_file({"x": zeros(1)}, folder / shard)
    later(folder)
    assert f"follows/{shards[0]}" in entries() and f"follows/{shards[1]}" not in entries(), "shards without an index"
    (folder / "net.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    later(folder)
    assert "follows/net.safetensors.index.json" in entries() and f"follows/{shards[0]}" not in entries(), "with one"

    pipeline = make_folder("follows/pipe/transformer", ["diffusion_pytorch_model.safetensors"])
    later(folder)
    assert "follows/pipe/transformer/diffusion_pytorch_model.safetensors" in entries()
    (pipeline.parent / "model_index.json").write_text("{}")
    later(pipeline.parent)
    assert "follows/pipe/" in entries(), "a diffusers folder, once it has its index"
    assert "follows/pipe/transformer/diffusion_pytorch_model.safetensors" not in entries()


def test_two_roots_with_folders_of_one_name(tmp_path):
    import folder_paths

    roots = folder_paths.folder_names_and_paths["diffusion_models"][0]
    make_folder("shared", ["here.safetensors"])
    (tmp_path / "shared" / "transformer").mkdir(parents=True)
    (tmp_path / "shared" / "there.safetensors").touch()
    (tmp_path / "shared" / "model_index.json").write_text("{}")
    roots.append(str(tmp_path))
    try:
        found = [name for name in entries() if name.startswith("shared/")]
        assert found == ["shared/here.safetensors", "shared/"]
    finally:
        roots.remove(str(tmp_path))
    folder_paths.filename_list_cache.clear()
    assert [name for name in entries() if name.startswith("shared/")] == ["shared/here.safetensors"]
