"""The images of a run: the same whatever the division, and only the missing ones are made again."""

import json
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation.extractors import NAME, draw, write
from evaluation.runs import contents, evaluate, read, start
from helpers import MODELS
from PIL import Image
from safetensors.torch import save_file

import pixeldit_core as pc
from pixeldit_core.evaluation.generate import Job
from pixeldit_core.text_states.shards import Index, StatesInfo, read_index, write_index, write_shard

COUNT = ("--count", 60, "--batch-size", 8, "--device", "cpu")


@pytest.fixture
def whole(tiny_file, tmp_path):
    """All images, made at once."""
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "whole", "--npz") == 0
    return tmp_path / "whole"


def test_images_are_those_of_sample_and_say_their_class_and_seed(tiny_file, whole):
    model = pc.load_checkpoint(tiny_file)
    x = pc.sample(model, pc.class_condition(model, [17 % 12, 59 % 12]), seeds=[17, 59])
    expected = pc.to_uint8(model, x).numpy()
    for index, pixels in zip((17, 59), expected, strict=True):
        with Image.open(whole / f"images/000/{index:06d}.png") as image:
            assert json.loads(image.text["pixeldit"]) == {"index": index, "entry": index % 12, "seed": index}
            assert np.abs(np.array(image).astype(int) - pixels).max() <= 1


def test_the_archive_holds_the_same_pixels(whole):
    with np.load(whole / "samples.npz") as file:
        assert file.files == ["arr_0"] and file["arr_0"].dtype == np.uint8
        assert np.array_equal(file["arr_0"], np.stack([*read(whole).values()]))


@pytest.mark.parametrize("shares", [2, 7])
def test_shards_make_the_same_bytes(tiny_file, whole, tmp_path, capsys, shares):
    for share in range(shares):
        assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "parts", "--shard", f"{share + 1}/{shares}") == 0
        assert ("the other parts make the rest" in capsys.readouterr().out) == (share + 1 < shares)
    assert contents(tmp_path / "parts") == contents(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv, which torch lacks on Windows")
def test_two_processes_make_the_same_bytes(tiny_file, whole, tmp_path):
    run = start(tiny_file, *COUNT, "--out", tmp_path / "two", "--npz", processes=2)
    out, _ = run.communicate(timeout=300)
    assert run.returncode == 0 and out.count("60 in") == 2, out  # one table, of the main process
    assert contents(tmp_path / "two") == contents(whole)
    assert (tmp_path / "two" / "samples.npz").read_bytes() == (whole / "samples.npz").read_bytes()


def test_another_batch_size_changes_at_most_the_last_bit(tmp_path):
    """With the bundled model: of all values at most 0.1 % differ, by 1."""
    for size in (1, 6):
        arguments = ("--count", 12, "--classes", "0-11", "--steps", 6, "--batch-size", size, "--device", "cpu")
        assert evaluate(MODELS / "pixeldit-emoji-96.safetensors", *arguments, "--out", tmp_path / str(size)) == 0
    alone, together = (np.stack([*read(tmp_path / str(size)).values()]).astype(int) for size in (1, 6))
    difference = np.abs(alone - together)
    assert difference.max() <= 1 and (difference > 0).mean() <= 1e-3


def test_only_what_is_missing_or_broken_is_made_again(tiny_file, whole):
    before = contents(whole)
    times = {path: path.stat().st_mtime_ns for path in (whole / "images").rglob("*.png")}
    gone, cut, empty, flipped = (whole / f"images/000/{index:06d}.png" for index in (3, 20, 21, 50))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:-20])
    empty.write_bytes(b"")
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    assert evaluate(tiny_file, *COUNT, "--out", whole) == 0
    assert contents(whole) == before
    changed = {path for path, then in times.items() if path.stat().st_mtime_ns != then}
    assert changed == {gone, cut, empty, flipped}


def test_a_larger_count_adds_images(tiny_file, whole, tmp_path):
    first = contents(whole)
    arguments = ("--count", 84, "--batch-size", 8, "--device", "cpu")
    assert evaluate(tiny_file, *arguments, "--out", whole) == 0
    found = contents(whole)
    assert len(found) == 84 and first.items() <= found.items()
    assert json.loads((whole / "run.json").read_text("utf-8"))["count"] == 84
    assert evaluate(tiny_file, *arguments, "--out", tmp_path / "at-once") == 0
    assert found == contents(tmp_path / "at-once")  # 60 = 7 * 8 + 4: the short batch, too


def test_a_killed_run_continues(tiny_file, tmp_path):
    arguments = (tiny_file, "--count", 1200, "--batch-size", 4, "--steps", 20, "--device", "cpu")
    run = start(*arguments, "--out", tmp_path / "killed")
    while len(list((tmp_path / "killed").rglob("[0-9]*.png"))) < 20:
        assert run.poll() is None, run.stdout.read()
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    run.wait()
    made = contents(tmp_path / "killed")
    assert 20 <= len([name for name in made if not name.rpartition("/")[2].startswith(".")]) < 1200
    assert evaluate(*arguments[:2], 60, *arguments[3:], "--out", tmp_path / "killed") == 0
    assert evaluate(*arguments[:2], 60, *arguments[3:], "--out", tmp_path / "other") == 0
    there = contents(tmp_path / "killed")
    assert all(there[name] == data for name, data in contents(tmp_path / "other").items())


def test_without_png_files_the_archive_is_the_run(tiny_file, whole, tmp_path, capsys):
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "npz", "--npz-only") == 0
    assert (tmp_path / "npz" / "samples.npz").read_bytes() == (whole / "samples.npz").read_bytes()
    assert not (tmp_path / "npz" / "images").exists()
    capsys.readouterr()
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "npz", "--npz-only") == 0
    assert "has all 60 images already" in capsys.readouterr().out
    fewer = ("--count", 12, "--device", "cpu", "--out", tmp_path / "npz", "--npz-only")
    assert evaluate(tiny_file, *fewer) == 2
    assert "has 60 images, which are nowhere else, and --count is 12" in capsys.readouterr().err


def test_removing_png_files_leaves_everything_else(tiny_file, whole):
    (whole / "images" / "notes.txt").write_text("mine")
    arguments = ("--count", 48, "--batch-size", 8, "--device", "cpu", "--out", whole, "--npz-only")
    assert evaluate(tiny_file, *arguments) == 0
    left = sorted(path.name for path in (whole / "images").rglob("*") if path.is_file())
    assert left == [*(f"{index:06d}.png" for index in range(48, 60)), "notes.txt"]


def test_classes_labels_and_seeds_are_chosen(tiny_file, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\ufeffsquare\n3\n3\n4: crane\n", "utf-8")
    arguments = ("--count", 8, "--device", "cpu", "--first-seed", 100)
    assert evaluate(tiny_file, *arguments, "--labels", labels, "--out", tmp_path / "a") == 0
    assert evaluate(tiny_file, *arguments, "--classes", "square, 3, 3, 4", "--out", tmp_path / "b") == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    with Image.open(tmp_path / "a" / "images/000/000006.png") as image:
        assert json.loads(image.text["pixeldit"]) == {"index": 6, "entry": 3, "seed": 106}


def test_autocast_makes_slightly_other_images(tiny_file, whole, tmp_path):
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "cast", "--autocast") == 0
    difference = np.abs(np.stack([*read(tmp_path / "cast").values()]).astype(int) - np.stack([*read(whole).values()]))
    assert 0 < difference.mean() < 8
    record = json.loads((tmp_path / "cast" / "run.json").read_text("utf-8"))
    assert record["dtype"] == "float32, bfloat16 autocast"


@pytest.fixture
def states(tmp_path):
    """Text states of two prompts and of "", for the tiny text-to-image model."""
    info = StatesInfo("pixeldit_t2i", "encoder", "float32", 12, 6)
    captions, generator = ["", "a cat", "a dog"], torch.Generator().manual_seed(0)
    embeds = [torch.randn(6, 12, generator=generator) for _ in captions]
    folder = tmp_path / "states"
    folder.mkdir()
    write_index(folder, Index(info, write_shard(folder, 0, info, captions, embeds, [])))
    return SimpleNamespace(folder=folder, embeds=torch.stack(embeds))


def test_prompts_of_a_file_are_guided_against_the_empty_one(tiny_t2i, states, tmp_path, capsys):
    model, prompts = tiny_t2i(), tmp_path / "prompts.txt"
    path = pc.save_checkpoint(model, tmp_path / "text.safetensors")
    prompts.write_text("a cat\n\na dog\n")
    arguments = ("--prompts", prompts, "--text-states", states.folder, "--count", 4, "--device", "cpu")
    assert evaluate(path, *arguments, "--out", tmp_path / "run") == 0
    cond, null = (pc.text_condition(model, rows) for rows in (states.embeds[[1, 2, 1, 2]], states.embeds[:1]))
    expected = pc.to_uint8(model, pc.sample(model, cond, null, seeds=range(4))).numpy().astype(int)
    assert np.abs(np.stack([*read(tmp_path / "run").values()]) - expected).max() <= 1
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert record["classes"] is None and record["plan"]["entries"] == 2
    info = StatesInfo("pixeldit_t2i", "encoder", "float32", 12, 6, "describe: ")  # the same prompts, encoded otherwise
    write_index(states.folder, Index(info, read_index(states.folder).places))
    assert evaluate(path, *arguments, "--out", tmp_path / "run") == 2
    assert "plan.text_states.instruction is" in capsys.readouterr().err


def test_a_lora_makes_images_of_another_run(tiny, tiny_file, whole, tmp_path, capsys):
    key = next(name for name, value in tiny().network.state_dict().items() if value.ndim == 2 and "blocks" in name)
    module, shape = key.removesuffix(".weight"), tiny().network.state_dict()[key].shape
    lora = {f"{module}.lora_A.weight": torch.ones(2, shape[1]), f"{module}.lora_B.weight": torch.ones(shape[0], 2)}
    save_file(lora, tmp_path / "lora.safetensors")
    merged = tmp_path / "merged.safetensors"
    pc.save_checkpoint(tiny_file, merged, loras=[(tmp_path / "lora.safetensors", 0.5)])
    option = ("--lora", f"{tmp_path / 'lora.safetensors'}=0.5")
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "lora", *option) == 0
    assert evaluate(merged, *COUNT, "--out", tmp_path / "merged") == 0
    found, expected, plain = (np.stack([*read(path).values()]).astype(int) for path in
                              (tmp_path / "lora", tmp_path / "merged", whole))  # fmt: skip
    assert np.abs(found - expected).max() <= 1 and np.abs(found - plain).max() > 1
    assert evaluate(tiny_file, *COUNT, "--out", tmp_path / "lora") == 2
    assert "checkpoint.loras" in capsys.readouterr().err


def test_an_uneven_count_is_a_deviation_beside_the_others(tiny_file, tmp_path, capsys):
    reference = write(draw(9, 1, size=16), tmp_path / "reference")
    scored = ("--reference", reference, "--extractor", NAME)
    assert (
        evaluate(tiny_file, "--count", 13, "--unbalanced", "--device", "cpu", "--out", tmp_path / "run", *scored) == 0
    )
    out = capsys.readouterr().out
    assert "classes or prompts are not equally frequent" in out and "12 classes, not the 1,000" in out


def test_unguided_rows_are_not_computed(tiny, calls):
    """Of 10 steps 2 to 8 lie inside of (0.1, 0.9): 10 + 7 rows for each image."""
    model = tiny()
    seen = calls(model)
    settings = pc.SamplingSettings(10, 2.0, 1.0, (0.1, 0.9), "ab2", (16, 16))
    from pixeldit_core.evaluation.conditions import class_conditions
    from pixeldit_core.evaluation.generate import Prepared, _compute
    from pixeldit_core.evaluation.plan import Plan

    job = Job(model, Plan(4, (0, 1)), class_conditions(model), settings)
    noise = pc.unit_noise(model, range(4), 16, 16)

    class Silent:
        def computing(self, images):
            assert images <= 4

    pixels = _compute(job, Prepared(range(4), [1, 2], noise), Silent())
    assert pixels.shape == (4, 16, 16, 3) and pixels.dtype == torch.uint8
    assert sum(call.rows for call in seen) == 4 * (10 + 7)
