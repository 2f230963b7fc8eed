"""Class names: lookup, lists, and the thousand of ImageNet."""

import pytest

import pixeldit_core as pc
from pixeldit_core.labels import find_class, imagenet_names, numbered, parse_classes

NAMES = imagenet_names()


def find(query, count=1000, names=NAMES):
    return find_class(query, count, names)


def test_a_thousand_classes_with_first_names_of_their_own():
    assert len(NAMES) == 1000 and all(NAMES)
    first = [entry[0] for entry in NAMES]
    assert len(set(first)) == 1000
    assert len({name.lower() for name in first}) == 1000
    assert all(name == name.strip() and name for entry in NAMES for name in entry)
    assert all(len(set(entry)) == len(entry) for entry in NAMES)


@pytest.mark.parametrize(
    "index, name",
    [
        (0, "tench"),
        (1, "goldfish"),
        (88, "macaw"),
        (207, "golden retriever"),
        (281, "tabby"),
        (281, "tabby cat"),
        (360, "otter"),
        (387, "red panda"),
        (417, "balloon"),
        (933, "cheeseburger"),
        (974, "geyser"),
        (979, "valley"),
        (999, "toilet tissue"),
    ],
)
def test_well_known_classes(index, name):
    assert find(name) == find(name.upper()) == find(f"  {name} ") == find(index) == find(str(index)) == index
    assert find(f"{index}: {name}") == find(f"{index}:{name}") == index


def test_every_entry_of_the_list_is_reachable():
    entries = numbered(NAMES)
    assert entries[207] == "207: golden retriever"
    assert [find(entry) for entry in entries] == list(range(1000))
    assert [find(entry[0]) for entry in NAMES] == list(range(1000))


@pytest.mark.parametrize("name, pair", [("crane", (134, 517)), ("maillot", (638, 639))])
def test_two_classes_of_one_name_are_distinguished(name, pair):
    titles = [NAMES[index][0] for index in pair]
    assert titles[0] != titles[1]
    assert [find(title) for title in titles] == list(pair)
    with pytest.raises(ValueError, match="name of several classes") as error:
        find(name)
    for index, title in zip(pair, titles, strict=True):
        assert f'"{index}: {title}"' in str(error.value)


def test_a_first_name_goes_before_another_class_s_synonym():
    assert "partridge" in NAMES[82] and NAMES[86][0] == "partridge" == NAMES[find("partridge")][0]


def test_which_crane_is_which():
    assert "bird" in NAMES[134][0] and "bird" not in NAMES[517][0]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("1, 207, 250-253, tabby cat", [1, 207, 250, 251, 252, 253, 281]),
        ("207: golden retriever, 1: goldfish", [207, 1]),
        ("5;6\n7", [5, 6, 7]),
        ("3, 3", [3, 3]),
        (" 10 - 12 ,", [10, 11, 12]),
        ("1000", [1000]),
        ("Golden Retriever", [207]),
    ],
)
def test_lists(text, expected):
    assert parse_classes(text, 1000, NAMES) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("2\uff0c4", [2, 4]),  # full-width comma
        ("2\u30014\u30016", [2, 4, 6]),  # ideographic comma
        ("2\uff1b4\uff64 5", [2, 4, 5]),  # full-width semicolon, half-width ideographic comma
        ("\uff12\u3000\uff0c \uff11\uff10", [2, 10]),  # full-width digits, ideographic space
        ("2\u060c4\u061b5", [2, 4, 5]),  # Arabic comma and semicolon
        ("2\u20134", [2, 3, 4]),  # en dash
        ("2 \u2014 4", [2, 3, 4]),  # em dash
        ("2\u22124, 7\u20118", [2, 3, 4, 7, 8]),  # minus, hyphen that does not break
        ("2~4", [2, 3, 4]),
        ("2\uff5e4\uff0c6\u301c7", [2, 3, 4, 6, 7]),  # full-width tilde, wave dash
        ("2\uff0d4", [2, 3, 4]),  # full-width hyphen
        ("2\u52304\u30016\u81f37", [2, 3, 4, 6, 7]),  # "2 to 4, 6 to 7"
        ("207\uff1agolden retriever\u30011: goldfish", [207, 1]),  # full-width colon
        ("2\r\n4\r\n", [2, 4]),
        ("2 4\t6-7\u30008", [2, 4, 6, 7, 8]),  # spaces between numbers
        ("2\u3001 4\u3002", [2, 4]),  # ends in a full stop
        ("2\u30fc4, 6..7, 8\u20269", [2, 3, 4, 6, 7, 8, 9]),  # long vowel, dots
        ("\ufeff2,\u200b4", [2, 4]),  # invisible ones, copied along
        ("5.0, 7", [5, 7]),  # numbers of other programs
    ],
)
def test_lists_as_keyboards_of_other_scripts_and_word_processors_write_them(text, expected):
    assert parse_classes(text, 1000, NAMES) == expected


def test_a_name_keeps_its_dashes_and_waves():
    names = [("salt\u2013pepper",), ("a~b",), ("curly-coated",), ("7\u5230",)]
    for index, (name,) in enumerate(names):
        assert parse_classes(f"{name}; {name}", 4, names) == [index, index]


@pytest.mark.parametrize(
    "text, message",
    [
        ("5\u20132", 'class range "5\u20132" runs backwards. Write "2-5"'),
        ("\u3001\uff0c", "the list of classes is empty"),
        ("", "the list of classes is empty"),
        (" , ;\n", "the list of classes is empty"),
        ("1001", "class 1001 is out of range: this checkpoint has 1000 classes, 0 to 999 .1000 is no class."),
        ("5-2", 'class range "5-2" runs backwards. Write "2-5"'),
        ("990-1005", "class 1005 is out of range"),
        ("golden retreiver", 'class "golden retreiver" is not known. Did you mean "207: golden retriever"'),
        ("retriever", 'Did you mean .*retriever"'),
        ("zzzzzz", "is not known"),
        ("206: golden retriever", 'in this checkpoint class 206 is "curly-coated retriever"'),
        ("-3", '"-3" is not known'),
        ("2.5", '"2.5" is not known'),
        ("1-2-3", '"1-2-3" is not known'),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_classes(text, 1000, NAMES)


def test_the_nearest_names_are_offered():
    for wrong, right in {"goldfsh": 1, "cheesburger": 933, "red pandas": 387, "macav": 88, "tabby kat": 281}.items():
        with pytest.raises(ValueError, match=f'"{right}: {NAMES[right][0]}"'):
            find(wrong)


def test_a_checkpoint_without_names_takes_numbers():
    assert find(3, 10, None) == find("3", 10, None) == find("3: whatever", 10, None) == 3
    with pytest.raises(ValueError, match="has no class names. Write a number from 0 to 9 .10 is no class."):
        find("cat", 10, None)
    with pytest.raises(ValueError, match="class 11 is out of range"):
        find(11, 10, None)


def test_a_checkpoint_has_class_names(tiny):
    model = tiny()
    assert pc.class_condition(model, ["disc", "bird", 11]).tolist()[0] == 0
    with pytest.raises(ValueError, match='"golden retriever" is not known'):
        pc.class_condition(model, "golden retriever")


def test_a_thousand_classes_without_names_are_imagenet_s():
    assert pc.build_model("pixeldit", "PixelDiT-B").class_names == NAMES
    assert pc.build_model("pixeldit", pc.PixelDiTParams(24, 2, 1, 1, num_classes=10)).class_names is None
