"""benchmarks/gpu.py: every row is there, with numbers or with a reason. It is tried on the CPU, with tiny networks."""

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT

MODULES = ("gpu", "gpu_clock", "gpu_rows", "gpu_modes", "step")


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The scripts by their names; what they import lies beside them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    monkeypatch.setattr(importlib.import_module("gpu"), "LOG", tmp_path / "new" / "bench.log")
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def task(bench, **options):
    defaults = {"network": "class", "size": 32, "dtype": "fp32", "device": "cpu", "batches": [1, 2], "rounds": 2}
    return bench("gpu_rows").Task(**{**defaults, "tiny": True, "compile": False, "product": 64, **options})


class Other(torch.nn.Module):
    """Stands for another implementation."""

    def forward(self, x, time, label):
        assert len(x) == len(time) == len(label)
        return x * time.view(-1, 1, 1, 1)


def test_every_form_has_a_row_for_every_batch(bench, monkeypatch):
    monkeypatch.setattr(bench("gpu_rows"), "Other", Other, raising=False)
    found = list(bench("gpu_rows").rows(task(bench, against="gpu_rows:Other")))
    assert [(row.form, row.batch) for row in found] == [(f, b) for b in (1, 2) for f in ("eager", "official")]
    for row in found:
        assert not row.note and row.guided > 0 and row.guided * 79 / row.batch < row.image and row.fraction > 0
        assert row.peak is None  # nothing counts it on a CPU


def test_a_form_that_fails_says_why_and_leaves_the_others_alone(bench, monkeypatch):
    class Large(Other):
        def forward(self, x, time, label):
            if len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
            return super().forward(x, time, label)

    monkeypatch.setattr(bench("gpu_rows"), "Other", Large, raising=False)
    found = list(bench("gpu_rows").rows(task(bench, against="gpu_rows:Other")))
    assert [row.note for row in found] == ["", "", "", "out of memory"]
    assert [row.guided is None for row in found] == [False, False, False, True]
    found = list(bench("gpu_rows").rows(task(bench, network="text", against="no_such_module:make")))
    assert [row.note for row in found if row.form == "official"] == [
        "ModuleNotFoundError: No module named 'no_such_module'"
    ] * 2


def test_compiled_rows_take_what_a_sampling_compiled(bench, monkeypatch):
    compile_function = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, fullgraph, mode: compile_function(function, backend="eager"))
    for network in ("class", "text"):
        found = list(bench("gpu_rows").rows(task(bench, network=network, compile=True, batches=[2])))
        assert [(row.form, row.note) for row in found] == [("eager", ""), ("compiled", "")]
    torch.compiler.reset()


def test_published_settings_count_steps(bench):
    rows = bench("gpu_rows")
    model = rows.make_model(task(bench))
    assert rows.evaluations(model, 256) == (79, 21)


def arguments(**options):
    defaults = {"preset": "published", "quick": False, "device": "cuda", "batch": [1, 4, 16], "compile": True}
    defaults |= {"against": "", "against_path": [], "server_options": "", "only": None}
    return argparse.Namespace(**{**defaults, **options})


def test_groups_have_everything_that_is_asked_for(bench):
    from host.comfyui import Host

    host = Host(Path("comfy"), Path("python"))
    found = bench("gpu").groups(arguments(against="a:b"), host)
    assert [group.title for group in found] == [
        "gpu_rows class 256 bf16",
        "gpu_rows text 1024 bf16",
        "gpu_rows text 512 bf16",
        "gpu_comfy text 1024 bf16",
        "gpu_comfy text 512 bf16",
        "gpu_modes class 256 bf16",
    ]
    assert [group.task.get("against") for group in found] == ["a:b", *[None] * 5]
    assert all(group.task["batches"] == [1, 4, 16] for group in found[:5])
    assert found[3].task["weights"] == ["bf16", "fp8"] and "--lowvram" in found[5].task["modes"]
    quick = bench("gpu").groups(arguments(quick=True), None)
    assert [group.task["compile"] for group in quick] == [True, True, False]
    assert len(bench("gpu").groups(arguments(only=["1024"]), host)) == 2


def test_a_group_that_breaks_or_takes_too_long_is_a_row(bench):
    gpu = bench("gpu")
    good = {"network": "class", "size": 32, "dtype": "fp32", "device": "cpu", "batches": [1], "rounds": 1}
    good |= {"tiny": True, "compile": False, "product": 64}
    (row,) = gpu.run(gpu.Group("gpu_rows", good), 300)
    assert row["form"] == "eager" and row["guided"] > 0
    (row,) = gpu.run(gpu.Group("gpu_rows", {**good, "network": "nothing"}), 300)
    assert f"ended with 1: {gpu.LOG}" in row["note"]
    (row,) = gpu.run(gpu.Group("gpu_rows", good), 0.2)
    assert row["note"].startswith("stopped after 0 s")
    text = gpu.line(gpu.cells(row))
    assert text.split() == ["class", "32", "fp32", "gpu_rows"]


def test_history_gives_the_time_of_a_prompt_or_its_error(bench):
    modes = bench("gpu_modes")
    messages = [["execution_start", {"timestamp": 1000}], ["execution_success", {"timestamp": 3500}]]
    assert modes.seconds({"status": {"status_str": "success", "messages": messages}}) == 2.5
    failed = [["execution_error", {"exception_message": "out of memory"}]]
    with pytest.raises(RuntimeError, match="out of memory"):
        modes.seconds({"status": {"status_str": "error", "messages": failed}})
    with pytest.raises(RuntimeError, match="invalid"):
        modes.seconds({"refused": "invalid"})


def test_without_a_gpu_the_command_says_how_to_try_it(bench, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    if torch.cuda.is_available():
        pytest.skip("here is one")
    with pytest.raises(SystemExit, match="--device cpu --preset tiny"):
        bench("gpu").main()


def test_the_table_and_the_file_have_the_same_rows(bench, monkeypatch, tmp_path, capsys):
    path = tmp_path / "rows.json"
    words = [
        "--device",
        "cpu",
        "--preset",
        "tiny",
        "--no-compile",
        "--host",
        "none",
        "--only",
        "class",
        "--json",
        str(path),
    ]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    bench("gpu").main()
    rows = json.loads(path.read_text("utf-8"))["rows"]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tiny pixeldit")]
    assert len(rows) == len(lines) == 2 and all(" ms" in line for line in lines)
