"""Scripts beside the package use its public names only, and the package does not use them."""

import ast
import importlib
import inspect

import pytest
from helpers import ROOT

SCRIPTS = sorted(path for folder in ("toy_data", "tools", "benchmarks") for path in (ROOT / folder).glob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_scripts_import_the_package_and_nothing_inside_of_it(path):
    public = {"pixeldit_core.training", "pixeldit_core.evaluation"}  # packages with public names of their own
    assert not [name for name in imported(path) if name.startswith("pixeldit_core.") and name not in public]
    assert "sys.path" not in path.read_text(encoding="utf-8")


def test_the_package_does_not_import_the_toy_data():
    names = {path.stem for path in (ROOT / "toy_data").glob("*.py")} | {"toy_data"}
    for path in (ROOT / "pixeldit_core").rglob("*.py"):
        assert not names & {name.split(".")[0] for name in imported(path)}, path


@pytest.mark.parametrize("name, first", [("training", "AverageConfig"), ("evaluation", "Classifier")])
def test_the_public_names_of_training_and_evaluation_are_there(name, first):
    package = importlib.import_module(f"pixeldit_core.{name}")
    for each in dir(package):
        getattr(package, each)
    found = {each: getattr(package, each) for each in dir(package)}  # now a module of that name would hide it
    assert not [name for name, thing in found.items() if inspect.ismodule(thing)]
    with pytest.raises(AttributeError, match=f"has no Trainer; it has {first}"):
        package.Trainer  # noqa: B018
