"""Help pages, READMEs and texts in two languages, icon and banner for the registry: complete, and true to the nodes."""

import json
import re

import pytest
from helpers import ROOT
from PIL import Image

import pixeldit_core

WEB, LOCALES = ROOT / "web" / "docs", ROOT / "locales"
SCHEMA = ROOT / "tests" / "host" / "schema.json"
NODES = json.loads(SCHEMA.read_text(encoding="utf-8"))
PAGES = {"en": "{}.md", "zh": "{}/zh.md"}
BY_NODE = pytest.mark.parametrize("node_id", NODES)
BY_LANGUAGE = pytest.mark.parametrize("language", PAGES)
READMES = ("README.md", "README.zh.md")
OWN_PAGES = sorted((ROOT / "docs").glob("*.md"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")


def texts(language):
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def page(node_id, language):
    return (WEB / PAGES[language].format(node_id)).read_text(encoding="utf-8")


def leaves(tree, path=()):
    """Every text with the keys that lead to it."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def links(text):
    return [a or b for a, b in LINK.findall(text)]


@BY_NODE
def test_the_english_texts_are_the_nodes_own(node_id):
    schema, text = NODES[node_id], texts("en")[node_id]
    assert text["display_name"] == schema["display_name"]
    assert text["description"] == schema["description"]
    assert text["inputs"] == {
        name: {"name": entry.get("display_name", name), "tooltip": entry["tooltip"]}
        for name, entry in schema["inputs"].items()
    }
    assert text["outputs"] == {
        str(slot): {"name": entry["name"], "tooltip": entry["tooltip"]} for slot, entry in enumerate(schema["outputs"])
    }


def test_both_languages_have_the_same_keys():
    english, chinese = (dict(leaves(texts(language))) for language in PAGES)
    assert list(english) == list(chinese)
    assert set(texts("en")) == set(NODES)


@BY_LANGUAGE
def test_no_text_is_empty_or_has_signs_of_the_page_s_own_language(language):
    for path, text in leaves(texts(language)):
        assert text.strip(), path
        assert not set(text) & set("{}@|"), f"{path}: vue-i18n reads these as placeholders"


def test_chinese_texts_are_chinese():
    for path, text in leaves(texts("zh")):
        if path[-1] in ("tooltip", "description", "display_name"):
            assert re.search("[\u4e00-\u9fff]", text), path


@BY_LANGUAGE
@BY_NODE
def test_the_help_page_describes_every_input_and_output(node_id, language):
    text = page(node_id, language)
    schema = NODES[node_id]
    assert text.startswith("# ") and schema["display_name"] in text.splitlines()[0]
    for name in schema["inputs"]:
        assert re.search(rf"\*\*{name}\*\*", text), f"{name} is not in the list of inputs"
    for output in schema["outputs"]:
        assert f"**{output['name']}**" in text, output["name"]


@BY_NODE
def test_the_help_page_names_every_choice(node_id):
    for name, entry in NODES[node_id]["inputs"].items():
        for choice in entry.get("options", []):
            assert str(choice) in page(node_id, "en"), f"{name}: {choice}"
            assert str(choice) in page(node_id, "zh"), f"{name}: {choice}"


@BY_LANGUAGE
@BY_NODE
def test_images_of_the_help_page_exist(node_id, language):
    for link in links(page(node_id, language)):
        assert link.startswith("http") or (WEB / link).is_file(), link  # the page's addresses start at web/docs


def test_help_pages_are_of_nodes():
    assert {path.stem for path in WEB.glob("*.md")} == set(NODES)
    assert {path.parent.name for path in WEB.glob("*/zh.md")} == set(NODES)


@pytest.mark.parametrize("name", [*READMES, "CHANGELOG.md", *(f"docs/{path.name}" for path in OWN_PAGES)])
def test_links_lead_somewhere(name):
    path = ROOT / name
    for link in links(path.read_text(encoding="utf-8")):
        if not link.startswith(("http", "#")):
            assert (path.parent / link.split("#")[0]).exists(), link


@pytest.mark.parametrize("name", READMES)
def test_the_readme_names_every_node_template_setting_and_command(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert all(schema["display_name"] in text for schema in NODES.values())
    assert all(f"*{path.stem}*" in text for path in (ROOT / "workflows").glob("*.json"))
    assert all(f"`{setting}`" in text for setting in pixeldit_core.SETTINGS)
    assert all(command in text for command in ("make demo", "make test", "python -m pixeldit_core --help"))
    assert "not for commercial use" in text[text.index("NSCLv1") :][:200]


def test_the_readmes_link_to_each_other_and_have_the_same_structure():
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    assert "(README.zh.md)" in english[:200] and "(README.md)" in chinese[:200]
    assert links(english)[1:] == links(chinese)[1:]  # but for the first, which leads to the other language
    assert len(re.findall("^## ", english, re.MULTILINE)) == len(re.findall("^## ", chinese, re.MULTILINE))


@pytest.mark.parametrize("name", READMES)
def test_the_limits_name_nodes_that_count_in_eighths(name):
    limits = re.split(
        r"^## (?:Limitations|\u9650\u5236)$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE
    )[1]
    lines = [line for line in limits.split("\n* ") if "8 x 8" in line or "1/8" in line]
    for node in ("Conditioning (Set Area)", "Empty Latent Image"):
        assert any(node in line for line in lines), f"{name} does not say it of {node}"


def test_chinese_texts_translate_every_name():
    english, chinese = (texts(language) for language in PAGES)
    for node_id, text in chinese.items():
        assert text["display_name"] != english[node_id]["display_name"]
        for name, entry in text["inputs"].items():
            assert entry["name"] == "CLIP" or entry["name"] != name, f"{node_id}: {name}"


def test_the_icon_suits_the_registry():
    with Image.open(ROOT / "docs" / "images" / "icon.png") as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / "docs" / "images" / "banner.png") as banner:
        assert banner.width * 9 == banner.height * 21


def test_the_registry_s_images_are_in_the_repository():
    metadata = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in re.findall(r'^(?:Icon|Banner) = ".+/main/(.+)"$', metadata, re.MULTILINE):
        assert (ROOT / name).is_file(), name


def test_the_changelog_has_this_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert version == pixeldit_core.__version__
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
