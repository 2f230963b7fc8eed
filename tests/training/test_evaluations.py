"""Scores during training: processes of the command line beside a run, whatever becomes of them."""

import csv
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from training_runs import NAMES, config_of, same_state, state_of, train, write_images

import pixeldit_core as pc
from pixeldit_core.evaluation import Classifier, save_classifier
from pixeldit_core.families import find_family
from pixeldit_core.training import engine
from pixeldit_core.training.command import resume
from pixeldit_core.training.config import EvaluateConfig
from pixeldit_core.training.evaluate_command import check_balance, check_evaluate, command_words, environment
from pixeldit_core.training.evaluations import Evaluations, unscored_steps
from pixeldit_core.training.report import describe_run
from pixeldit_core.training.run_folder import RunFolder
from pixeldit_core.training.setup import set_up

# stands for `evaluate`: one image and a score; its options let it wait for a file, fail, or write a broken score
SCRIPT = """
import json, os, sys, time
from pathlib import Path

model, *words = sys.argv[1:]
given = dict(zip(words[::2], words[1::2], strict=True))
out, step = Path(given["--out"]), int(given["--out"][-6:])
order = out.parent / "order.txt"
with order.open("a") as file:
    file.write(f"start {step}\\n")
(out / "images" / "000").mkdir(parents=True, exist_ok=True)
(out / "images" / "000" / "000000.png").write_bytes(b"")
(out / "seen.json").write_text(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), Path(model).is_file()]))
while "--gate" in given and not Path(given["--gate"]).exists():
    time.sleep(0.02)
if str(step) in given.get("--fail", "").split(","):
    sys.exit("progress 1 %\\rprogress 2 %\\nerror: no extractor of that name\\n")
score = {"fid": 100.0 / step, "inception_score": 2.5, "precision": 0.5, "recall": None, "count": int(given["--count"])}
(out / "score.json").write_text("{" if "--broken" in given else json.dumps(score))
with order.open("a") as file:
    file.write(f"end {step}\\n")
"""

COMMAND = Evaluations.command


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("data") / "images", count=24)


@pytest.fixture(autouse=True)
def command(tmp_path, monkeypatch):
    """A script in place of `python -m pixeldit_core evaluate`."""
    script = tmp_path / "evaluate.py"
    script.write_text(SCRIPT, "utf-8")
    monkeypatch.setattr(Evaluations, "command", (sys.executable, str(script)))


@pytest.fixture
def build(images):
    """A function (options, **sections) -> a run of six steps with scores after 2, 4 and 6."""

    def config(*options, **sections):
        settings = {"steps": 6, "batch_size": 4, "evaluate_every": 2, "save_every": 100, "seed": 5}
        weights = str(Path(__file__))  # a file, whatever is in it
        evaluate = {"reference": str(images), "extractor_weights": weights, "count": 3, "options": list(options)}
        return config_of(
            images, engine=settings | sections.pop("engine", {}),
            evaluate=evaluate | sections.pop("evaluate", {}), **sections,
        )  # fmt: skip

    return config


@pytest.fixture
def queue(images, tmp_path):
    """A function (options, start) -> the evaluations of a run that is not there, and a function that adds a step."""
    made = []

    def build(*options, start=10):
        config = EvaluateConfig(reference=str(images), count=3, options=options)
        rows = []
        evaluations = Evaluations(RunFolder(tmp_path / "run"), config, "cpu", start, rows.append)
        made.append(evaluations)
        return evaluations, rows

    yield build
    for evaluations in made:
        evaluations.close()


def write(path):
    """A model in name only."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"model")


def rows_of(run):
    with run.scores.open(newline="") as file:
        return list(csv.DictReader(file))


def steps_of(run):
    return [int(row["step"]) for row in rows_of(run)]


def files_of(run, step):
    return sorted(path.name for path in run.evaluation(step).iterdir())


def order_of(run):
    return (run.evaluations / "order.txt").read_text("utf-8").splitlines()


def stop_after(monkeypatch, step):
    original = engine.Engine.step

    def wrapped(self, loaded, current, stop, ahead):
        if current == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return original(self, loaded, current, stop, ahead)

    monkeypatch.setattr(engine.Engine, "step", wrapped)


def wait_for(evaluations):
    assert evaluations.finish()


# a run


def test_a_run_is_scored_and_the_same_bit_for_bit(build, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run = train(build(), tmp_path / "scored")
    assert rows_of(run) == [
        {
            "step": str(step),
            "fid": str(100 / step),
            "inception_score": "2.5",
            "precision": "0.5",
            "recall": "",
            "count": "3",
        }
        for step in (2, 4, 6)
    ]
    assert "step 4: FID 25 (3 images)" in caplog.messages
    for step in (2, 4, 6):
        assert files_of(run, step) == ["evaluate.log", "score.json", "seen.json"]
    assert order_of(run) == [f"{word} {step}" for step in (2, 4, 6) for word in ("start", "end")]
    plain = train(build(engine={"evaluate_every": 0}), tmp_path / "plain")
    assert same_state(state_of(run, 6), state_of(plain, 6))
    assert not plain.evaluations.exists()


def test_the_last_step_is_scored_whatever_its_number(build, tmp_path):
    assert steps_of(train(build(engine={"evaluate_every": 4}), tmp_path / "run")) == [4, 6]


def test_what_is_scored_is_the_average_of_the_step(build, tmp_path):
    # the script fails, so the model of the last step stays
    run = train(build("--fail", "6"), tmp_path / "run")
    scored, saved = (pc.load_checkpoint(path) for path in (run.evaluation(6) / "model.safetensors", run.model))
    for name, tensor in saved.network.state_dict().items():
        assert torch.equal(tensor, scored.network.state_dict()[name])


def test_failures_are_warnings(build, tmp_path, caplog):
    run = train(build("--fail", "2,6"), tmp_path / "run")
    assert run.steps() == [6] and steps_of(run) == [4]
    warnings = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert len(warnings) == 2
    assert warnings[0].startswith(
        "the evaluation of step 2 failed (exit status 1: error: no extractor of that name). The run goes on; see "
    )
    assert files_of(run, 2) == ["evaluate.log", "seen.json"]  # a model for each failure would fill the disk
    assert files_of(run, 6) == ["evaluate.log", "images", "model.safetensors", "seen.json"]
    assert "progress 2 %" in (run.evaluation(6) / "evaluate.log").read_text("utf-8")


@pytest.mark.parametrize("command_words", [("no-such-program",), (sys.executable, "-c", "")])
def test_a_command_that_cannot_start_or_does_nothing_ends_no_run(build, tmp_path, monkeypatch, caplog, command_words):
    monkeypatch.setattr(Evaluations, "command", command_words)
    run = train(build(engine={"steps": 2}), tmp_path / "run")
    assert run.steps() == [2] and not run.scores.exists() and unscored_steps(run) == [2]
    assert any("could not be started" in text or "score.json cannot be read" in text for text in caplog.messages)


def test_a_model_that_cannot_be_written_ends_no_run(build, tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "evaluations").write_bytes(b"")  # a file where the folder has to be
    run = train(build(engine={"steps": 2}), tmp_path / "run")
    assert run.steps() == [2] and any("step 2 is not evaluated" in text for text in caplog.messages)


def test_a_stopped_run_goes_on_with_the_evaluation_that_was_stopped(build, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    config = build("--gate", str(gate))
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(KeyboardInterrupt, match="stopped after step 5 of 6"):
            train(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert unscored_steps(run) == [2, 4] and not run.scores.exists() and "end 2" not in order_of(run)
    gate.touch()
    train(config, run.path, resume=True)
    assert steps_of(run) == [2, 4, 6] and order_of(run)[-6::2] == ["start 2", "start 4", "start 6"]


def test_a_run_that_has_made_its_steps_goes_on_with_its_scores(build, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    with monkeypatch.context() as patch:
        stop_after(patch, 6)  # in its last step
        with pytest.raises(KeyboardInterrupt, match="all 6 steps are made; stopped while step 2 was evaluated"):
            train(build("--gate", str(gate)), tmp_path / "run")
    gate.touch()
    assert "scores.csv" in resume(tmp_path / "run", [])
    assert steps_of(RunFolder(tmp_path / "run")) == [2, 4, 6]
    assert "has made its 6 steps" in resume(tmp_path / "run", [])


def test_an_error_of_the_run_ends_the_process(build, tmp_path, monkeypatch):
    started = []
    original = Evaluations._start

    def noting(self, step):
        original(self, step)
        started.append(self._process)

    def broken(*_):
        raise ValueError("no space")

    monkeypatch.setattr(Evaluations, "_start", noting)
    monkeypatch.setattr("pixeldit_core.training.run.write_models", broken)
    with pytest.raises(ValueError, match="no space"):
        train(build("--gate", str(tmp_path / "never")), tmp_path / "run")
    assert len(started) == 1 and started[0].returncode not in (None, 0)


def test_scores_are_in_tensorboard(build, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard.writer import SummaryWriter

    seen = []
    monkeypatch.setattr(SummaryWriter, "add_scalar", lambda _, *values: seen.append(values))
    train(build(engine={"tensorboard": True, "steps": 2}), tmp_path / "run")
    assert ("fid", 50.0, 2) in seen and ("precision", 0.5, 2) in seen
    assert not any(name == "recall" for name, *_ in seen)


# the queue


def test_one_at_a_time_and_a_word_about_many(queue, tmp_path, caplog):
    evaluations, rows = queue("--gate", str(tmp_path / "gate"))
    for step in (1, 2, 3):
        evaluations.add(step, write)
    assert evaluations.waiting == [1, 2, 3]
    assert caplog.messages == [
        "2 evaluations wait for that of step 1, each with a model on the disk: raise engine.evaluate_every, lower "
        "evaluate.count, or name a faster evaluate.device."
    ]
    begun = time.process_time()
    for _ in range(1000):
        evaluations.poll()
    assert time.process_time() - begun < 0.5
    (tmp_path / "gate").touch()
    wait_for(evaluations)
    assert [row["step"] for row in rows] == steps_of(evaluations.run) == [1, 2, 3]
    assert order_of(evaluations.run) == ["start 1", "end 1", "start 2", "end 2", "start 3", "end 3"]


def test_waiting_ends_when_asked_to_stop(queue, tmp_path):
    evaluations, _ = queue("--gate", str(tmp_path / "never"))
    evaluations.add(1, write)
    assert not evaluations.finish(lambda: True)
    process = evaluations._process
    evaluations.close()
    assert process.returncode is not None and unscored_steps(evaluations.run) == [1]


def test_a_resumed_run_drops_what_is_of_later_steps(queue):
    first, _ = queue()
    for step in (2, 4, 6):
        first.add(step, write)
    wait_for(first)
    run = first.run
    write(run.evaluation(8) / "model.safetensors")
    second, _ = queue(start=4)
    assert steps_of(run) == [2, 4] == run.evaluated_steps() and second.waiting == []
    queue(start=0)
    assert steps_of(run) == [] == run.evaluated_steps()


def test_a_score_that_was_not_noted_yet_is(queue):
    """A run that was killed after the command had written its score, in whatever it was doing."""
    run = queue()[0].run
    write(run.evaluation(3) / "model.safetensors")
    score = {"fid": 7.0, "count": 9}
    (run.evaluation(3) / "score.json").write_text(json.dumps(score), "utf-8")
    (run.evaluation(3) / ".model.safetensors.123.part").write_bytes(b"")
    (run.evaluation(2) / "images").mkdir(parents=True)  # scored, but not all images were removed
    evaluations, rows = queue()
    wait_for(evaluations)
    assert steps_of(run) == [3] and rows[0]["fid"] == 7.0 and not (run.evaluations / "order.txt").exists()
    assert files_of(run, 3) == ["score.json"] and files_of(run, 2) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"fid": null, "count": 3}', '{"fid": 1.0}'])
def test_a_score_that_is_none_is_a_failure(queue, caplog, text):
    run = queue()[0].run
    write(run.evaluation(3) / "model.safetensors")
    (run.evaluation(3) / "score.json").write_text(text, "utf-8")
    wait_for(queue()[0])
    assert "the evaluation of step 3 failed (score.json" in caplog.messages[0] and not run.scores.exists()


# the command


def test_the_words_of_the_command(tmp_path):
    config = EvaluateConfig(reference="x.npz", count=3)
    model, folder = tmp_path / "m.safetensors", tmp_path
    plain = command_words(config, model, folder, "cuda:0")
    assert plain == [
        str(model), "--count", "3", "--out", str(folder), "--reference", "x.npz", "--extractor", "inception",
        "--device", "cuda:0",
    ]  # fmt: skip
    config = EvaluateConfig(
        reference="x", extractor_weights="w.pth", batch_size=8, device="cpu", options=("--steps", 50, "--cfg", 1.5)
    )
    words = command_words(config, model, folder, "cuda:0")
    assert words[-10:] == [
        "--extractor-weights", "w.pth", "--batch-size", "8", "--device", "cpu", "--steps", "50", "--cfg", "1.5",
    ]  # fmt: skip


def test_the_process_is_not_one_of_the_run_s(queue, monkeypatch, tmp_path):
    launcher = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR",
                "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # fmt: skip
    for name in launcher:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.chdir(tmp_path)
    evaluations, _ = queue()
    evaluations.add(1, write)
    wait_for(evaluations)
    words, found, folder, had_model = json.loads((evaluations.run.evaluation(1) / "seen.json").read_text("utf-8"))
    assert had_model and Path(folder) == tmp_path and words[words.index("--device") + 1] == "cpu"
    assert not set(launcher) & set(found)
    assert found["ACCELERATE_USE_CPU"] == "true" and found["CUDA_VISIBLE_DEVICES"] == ""
    assert found["PYTHONPATH"] == os.pathsep.join([str(ROOT), "elsewhere"])
    monkeypatch.delenv("PYTHONPATH")
    assert environment()["PYTHONPATH"] == str(ROOT)


@pytest.mark.skipif(os.name != "posix", reason="process groups of terminals")
def test_ctrl_c_in_the_terminal_reaches_only_the_run(queue, tmp_path):
    evaluations, _ = queue("--gate", str(tmp_path / "never"))
    evaluations.add(1, write)
    assert os.getpgid(evaluations._process.pid) != os.getpgid(0)


# the recipe


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"evaluate": {"reference": ""}}, "needs images to compare with: set evaluate.reference"),
        (
            {"evaluate": {"reference": "nowhere"}},
            "evaluate.reference nowhere is not there; expected a folder of images",
        ),
        ({"evaluate": {"reference": __file__}}, "neither a folder of images nor an .npz file"),
        ({"evaluate": {"extractor_weights": None}}, "evaluate.extractor_weights is not set: the extractor inception"),
        ({"evaluate": {"count": 4}}, "count 4 does not divide into 3 classes: set 3 or 6, or add --unbalanced"),
        ({"evaluate": {"count": 2}}, "count 2 does not divide into 3 classes: set 3, or add"),
        ({"evaluate": {"extractor_weights": "gone.pth"}}, "evaluate.extractor_weights gone.pth is not there"),
        ({"evaluate": {"device": "gpu 7"}}, 'evaluate.device "gpu 7" is not a device'),
        ({"evaluate": {"options": ["--count=4"]}}, "there is a key: set evaluate.count"),
        ({"evaluate": {"options": ["--extractor-weights", "x"]}}, "set evaluate.extractor_weights"),
        ({"evaluate": {"options": ["--out", "x"]}}, "scores all images of one model, in its own folder"),
        ({"evaluate": {"options": ["--shard", "1/2"]}}, "evaluate.options has --shard"),
    ],
)
def test_what_cannot_be_scored_is_an_error_before_the_first_step(build, sections, message):
    with pytest.raises(ValueError, match=message):
        set_up(build(**sections))
    set_up(build(**sections, engine={"evaluate_every": 0}))


def test_numbers_that_are_none_are_errors_of_the_recipe(build):
    with pytest.raises(ValueError, match="count and batch_size are numbers of images, at least 1"):
        build(evaluate={"count": 0})
    with pytest.raises(ValueError, match="evaluate_every is a number of steps"):
        build(engine={"evaluate_every": -1})


def test_a_lora_and_a_text_family_without_prompts_are_errors(build):
    family = find_family("pixeldit")
    with pytest.raises(ValueError, match="the file of a LoRA is no checkpoint that `evaluate` can open"):
        check_evaluate(build(lora={"rank": 2}), family)
    text = find_family("pixelhdm")
    for options in ((), ("--prompts", "prompts.txt")):
        with pytest.raises(
            ValueError, match="text-to-image generates from prompts: add --prompts FILE and --text-states DIR"
        ):
            check_evaluate(build(*options), text)
    check_evaluate(build("--prompts", "prompts.txt", "--text-states=states"), text)


def test_options_may_change_what_the_count_divides_into():
    for options in (("--unbalanced",), ("--classes", "0-3"), ("--labels=labels.txt",)):
        check_balance(EvaluateConfig(count=4, options=options), 3)


def test_a_dry_run_names_the_scores(build, images):
    text = describe_run(build(engine={"evaluate_every": 4}))
    assert f"scores          2, every 4 steps: 3 images against {images}, inception, on the device of the run\n" in text
    text = describe_run(build(evaluate={"reference": "nowhere", "device": "cpu"}))
    assert "on cpu; evaluate.reference nowhere is not there" in text
    assert "scores" not in describe_run(build(engine={"evaluate_every": 0}))
    with pytest.raises(ValueError, match=r"evaluate\.reference"):
        describe_run(build(evaluate={"reference": ""}))


def test_the_command_itself(build, tmp_path, monkeypatch):
    """The real one, in a process in which torchvision can be imported."""
    assert COMMAND[1:] == ("-m", "pixeldit_core", "evaluate")
    start = (
        f"import sys; sys.path.append({str(ROOT / 'tests')!r}); import torchvision_operators as operators;"
        "operators.define_missing_operators(); from pixeldit_core.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    monkeypatch.setattr(Evaluations, "command", (sys.executable, "-c", start, "evaluate"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    weights = save_classifier(Classifier(3, 3, (16, 16)).eval(), tmp_path / "judge.safetensors", NAMES)
    evaluate = {"count": 6, "extractor": "classifier", "extractor_weights": str(weights)}
    run = train(build("--steps", 2, engine={"steps": 2}, evaluate=evaluate), tmp_path / "run")
    assert steps_of(run) == [2], (run.evaluation(2) / "evaluate.log").read_text("utf-8")
    score = json.loads((run.evaluation(2) / "score.json").read_text("utf-8"))
    assert rows_of(run)[0]["fid"] == str(score["fid"]) and rows_of(run)[0]["count"] == "6"
    assert score["run"]["settings"]["steps"] == 2 and score["count"] == 6
    assert files_of(run, 2) == ["evaluate.log", "run.json", "score.json"]
