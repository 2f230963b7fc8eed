"""The bar counts the files that all processes have written."""

import logging
import re
import time

from pixeldit_core.evaluation.image_folder import ImageFolder
from pixeldit_core.evaluation.progress import Progress


def add(folder, indices):
    for index in indices:
        folder.file(index).parent.mkdir(parents=True, exist_ok=True)
        folder.file(index).touch()


def test_files_of_any_process_count_and_others_do_not(tmp_path):
    folder = ImageFolder(tmp_path, (8, 8, 3))
    add(folder, [*range(990, 1010), 2999, 3000])
    (tmp_path / "images/000/.000001.png.0123.part").touch()
    (tmp_path / "images/000/notes.png").touch()
    progress = Progress(folder, 3000, shown=False)
    assert progress.count() == 21
    add(folder, range(1010, 1020))
    assert progress.count() == 31
    assert folder.count(3000) == 31 and folder.count(1000) == 10 and folder.count(3001) == 32


def test_without_a_terminal_it_logs_how_many_are_there_and_the_time_left(tmp_path, caplog):
    folder = ImageFolder(tmp_path, (8, 8, 3))
    caplog.set_level(logging.INFO)
    with Progress(folder, 40, every=0.01, log_every=0.02):
        add(folder, range(10))
        deadline = time.monotonic() + 30
        while not any(re.fullmatch(r"10 of 40 images, [\d:]+ left", line) for line in caplog.messages):
            assert time.monotonic() < deadline, caplog.messages
            time.sleep(0.01)
    count = len(caplog.messages)
    time.sleep(0.05)
    assert len(caplog.messages) == count
