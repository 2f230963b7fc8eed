"""PixelDiT Save Model's filename_prefix: tokens, folders, and failures named as what they are."""

import os
import time

import pytest
from kit import load_tiny, out_of, run


def saved(prefix):
    """The file that a prefix gives, below the output folder."""
    output = out_of("output")
    before = set(output.rglob("*.safetensors"))
    run("PixelDiTSaveModel", model=load_tiny(), filename_prefix=prefix)
    (path,) = set(output.rglob("*.safetensors")) - before
    return path.relative_to(output).as_posix()


def test_dates_are_replaced(monkeypatch):
    now = time.struct_time((2026, 3, 7, 9, 5, 2, 5, 66, 0))
    monkeypatch.setattr(time, "localtime", lambda *_: now)
    for prefix, name in {
        "dates/%date:yyyy-MM-dd%/a": "dates/2026-03-07/a",
        "dates/%date:yy%/a": "dates/26/a",
        "dates/%date:yyyyMMdd_hhmmss%": "dates/20260307_090502",
        "dates/%date:M-d h:m:s%": "dates/3-7 9_5_2",
        "dates/%date:yyyy/MM%/a": "dates/2026/03/a",
        "dates/%year%-%month%-%day%": "dates/2026-03-07",
        "dates/%hour%%minute%%second%_%date:dd%": "dates/090502_07",
    }.items():
        assert saved(prefix) == f"{name}_00001_.safetensors", prefix


def test_other_tokens_are_refused_by_name():
    for token in ("%PixelDiT Loader.checkpoint%", "%date%", "%width%", "%height%", "%seed%", "%model%"):
        with pytest.raises(ValueError, match=f"filename_prefix has {token}, which is not replaced"):
            run("PixelDiTSaveModel", model=load_tiny(), filename_prefix=f"tokens/{token}/a")
    assert not (out_of("output") / "tokens").exists(), "never a folder of that name"
    assert saved("percent/50%") == "percent/50%_00001_.safetensors"
    assert saved("percent/50% and 100%") == "percent/50% and 100%_00001_.safetensors"


def test_a_prefix_that_ends_in_a_slash_is_a_folder():
    for prefix, name in {
        "folders/": "folders/PixelDiT_00001_.safetensors",
        "folders/more//": "folders/more/PixelDiT_00001_.safetensors",
        "folders\\windows\\": "folders/windows/PixelDiT_00001_.safetensors",
        "folders\\windows\\name": "folders/windows/name_00001_.safetensors",
        "folders/.": "folders/PixelDiT_00002_.safetensors",
        "": "PixelDiT_00001_.safetensors",
    }.items():
        assert saved(prefix) == name, prefix


def test_each_failure_is_told_as_what_it_is(monkeypatch):
    output, model = out_of("output"), load_tiny()
    output.mkdir(exist_ok=True)
    (output / "a-file").write_text("in the way")

    def fails(prefix, words):
        with pytest.raises(ValueError, match=words):
            run("PixelDiTSaveModel", model=model, filename_prefix=prefix)

    fails("a-file/digits", "cannot be written: a part of its path is a file")
    fails("a-file/", "cannot be written: a part of its path is a file")
    for outside in ("../x", "..", "folders/../../x", "/somewhere/x"):
        fails(outside, "is outside the output folder")
    (output / "turns").mkdir(exist_ok=True)
    loop = output / "turns" / "loop"
    if not loop.is_symlink():
        loop.symlink_to("loop")
    fails("turns/loop/x", "(leads to itself|a file, not a folder)")
    protected = output / "protected"
    protected.mkdir(exist_ok=True)
    protected.chmod(0o500)
    if os.access(protected, os.W_OK):  # root may write everywhere: let the system refuse as it does for others
        makedirs = os.makedirs

        def refusing(path, *args, **kwargs):
            if str(path).startswith(str(protected)):
                raise PermissionError(13, "Permission denied", str(path))
            return makedirs(path, *args, **kwargs)

        monkeypatch.setattr(os, "makedirs", refusing)
    fails("protected/sub/x", "access is denied")
    monkeypatch.undo()
    assert saved("after/x") == "after/x_00001_.safetensors", "the next one is written"
