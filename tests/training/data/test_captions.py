"""Images with captions."""

import json

import pytest
from PIL import Image

from pixeldit_core.training.data.captions import CaptionData, read_captions
from pixeldit_core.training.data.transforms import Transform


@pytest.fixture
def photos(tmp_path):
    """1.png to 4.jpg, of which 1 has a text file and 2 a longer one with a byte order mark."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name in ("1.png", "2.png", "more/3.png", "more/4.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "1.txt").write_text("  one cat\n", encoding="utf-8")
    (folder / "2.txt").write_text("\ufeffdeux caf\u00e9s\nand a second line\n", encoding="utf-8")
    return folder


def write_list(folder, *entries):
    lines = [json.dumps({"file_name": name, "text": text}, ensure_ascii=False) for name, text in entries]
    (folder / "metadata.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")


def test_texts_lie_beside_the_images(photos, draw):
    pairs = read_captions(photos, "a photo")
    assert [caption for _, caption in pairs] == ["one cat", "deux caf\u00e9s\nand a second line", "a photo", "a photo"]
    data = CaptionData(pairs, [(8, 8)] * 4, Transform(3))
    example = data[draw(1)]
    assert example.caption == pairs[1][1] and example.label is None and example.pixels.shape == (3, 8, 8)
    assert data.captions() == [caption for _, caption in pairs]


def test_a_list_names_images_in_folders_and_wins(photos):
    write_list(photos, ("more/3.png", "three\u2028dogs\u0085"), ("./more/4.jpg", "four"), ("1.png", "uno"))
    captions = [caption for _, caption in read_captions(photos)]
    assert captions == ["uno", "deux caf\u00e9s\nand a second line", "three\u2028dogs", "four"]


def test_missing_captions_are_counted_and_named(photos):
    with pytest.raises(ValueError, match=r"2 of 4 images in .* have no caption: more/3.png, more/4.jpg. Put .*3.txt"):
        read_captions(photos)
    assert [caption for _, caption in read_captions(photos, "")][2:] == ["", ""]


def test_lists_that_cannot_be_used_are_refused(photos):
    write_list(photos, ("1.png", "one"), ("9.png", "nine"))
    with pytest.raises(ValueError, match=r"metadata.jsonl names 1 images that are not there: 9.png"):
        read_captions(photos, "")
    for line in ("{", "[1]", '{"file_name": "1.png"}', "3", "null"):
        (photos / "metadata.jsonl").write_text('{"file_name": "1.png", "text": "one"}\n' + line, encoding="utf-8")
        with pytest.raises(ValueError, match=r'line 2 of .* has no "file_name" and "text"'):
            read_captions(photos, "")
    (photos / "metadata.jsonl").write_text('{"file_name": "1.png", "text": 5}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1 .* must be texts"):
        read_captions(photos, "")


def test_texts_in_another_encoding_are_refused(photos):
    (photos / "1.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"1.txt is not UTF-8 text \(.* at byte 3\): save it again"):
        read_captions(photos, "")


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "1.txt").write_text("one")
    with pytest.raises(ValueError, match=r"has no images \(.avif, .bmp"):
        read_captions(tmp_path)
    with pytest.raises(ValueError, match="is not there"):
        read_captions(tmp_path / "nowhere")
