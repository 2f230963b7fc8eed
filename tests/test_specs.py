"""The specifications in docs/spec: every section that a docstring cites exists, every link leads somewhere."""

import re

import pytest
from helpers import ROOT

SPECS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "spec").glob("*.md"))}
SOURCES = [path for room in ("pixeldit_core", "nodes") for path in sorted((ROOT / room).rglob("*.py"))]
CITATION = re.compile(r"\(.*?\bspec: (?P<name>[a-z0-9-]+)(?P<sections>[^)]*)\)", re.DOTALL)


def sections(name):
    """Numbers of the headings of a specification: "2", "2.5" ..."""
    return set(re.findall(r"^#+ (\d+(?:\.\d+)*)[a-d]?\b", SPECS[name], re.MULTILINE))


def citations():
    for path in SOURCES:
        for match in CITATION.finditer(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT).as_posix(), match["name"], re.findall(r"\d+(?:\.\d+)*", match["sections"])


def test_docstrings_cite_the_specifications():
    assert {"official", "xpred", "pixelhdm", "layouts"} <= {name for _, name, _ in citations()}


@pytest.mark.parametrize("path, name, numbers", list(citations()))
def test_every_cited_section_exists(path, name, numbers):
    assert name in SPECS, f"{path} cites {name}"
    assert set(numbers) <= sections(name), f"{path} cites {name} {numbers}"


@pytest.mark.parametrize("name", SPECS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", SPECS[name]):
        assert "://" in target or (ROOT / "docs" / "spec" / target).exists(), target


@pytest.mark.parametrize("name", SPECS)
def test_golden_cases_that_are_named_are_in_the_repository(name):
    cases = {
        case
        for names in re.findall(r"\[golden ([^\]]+)\]", SPECS[name])
        for case in re.findall(r"[a-z0-9_-]{6,}", names)
    }
    present = {path.name for path in (ROOT / "tests" / "golden").glob("*/*")}
    assert cases <= present | {"weights-only"}, cases - present
