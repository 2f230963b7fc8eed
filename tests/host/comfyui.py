"""The ComfyUIs of this machine, and how to run pytest in one."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NO_HOST = "no ComfyUI found: set COMFYUI_PATH, or put one into ~/ComfyUI (with its environment in .venv)"
PYTEST = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli")


@dataclass(frozen=True)
class Host:
    """One ComfyUI and the Python that runs it."""

    path: Path
    python: Path

    @property
    def name(self) -> str:
        version = self.path / "comfyui_version.py"
        text = version.read_text(encoding="utf-8") if version.is_file() else ""
        return text.split('"')[1] if '"' in text else self.path.name


def find_hosts() -> list[Host]:
    """Every ComfyUI: in COMFYUI_PATH, around the custom_nodes folder that this pack lies in, in the home folder."""
    candidates = [Path(entry) for entry in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if entry]
    if not candidates:
        if ROOT.parent.name == "custom_nodes":
            candidates.append(ROOT.parent.parent)
        candidates += [Path.home() / "ComfyUI", Path.home() / "comfy" / "ComfyUI"]
    return [
        Host(path, python)
        for path in dict.fromkeys(path.resolve() for path in candidates)
        if (path / "main.py").is_file() and (path / "comfy").is_dir() and (python := _find_python(path))
    ]


def _find_python(path: Path) -> Path | None:
    """COMFYUI_PYTHON, or the environment inside of the host's folder or, for the portable build, next to it."""
    if given := os.environ.get("COMFYUI_PYTHON"):
        return Path(given)
    names = ("bin/python", "Scripts/python.exe")
    environments = [path / folder / name for folder in (".venv", "venv") for name in names]
    environments += [folder / "python_embeded" / "python.exe" for folder in (path, path.parent)]
    return next((python for python in environments if python.is_file()), None)


def run_pytest(host: Host, folder: Path, *arguments: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    """Run pytest with the host's Python, in a process of its own, the host's folder first on its path.

    Args:
        folder: an empty one, for a copy of pytest; nothing is installed into the environment of the host.
    """
    copy_pytest(folder)
    environment = dict(
        os.environ,
        PYTHONPATH=str(host.path),
        PYTHONDONTWRITEBYTECODE="1",
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
        HF_HUB_OFFLINE="1",
    )
    # the networks here are tiny: on a busy machine, threads only wait for one another
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment.pop("PYTEST_ADDOPTS", None)
    # at the end of the path: what the host has itself stays as it is
    start = f"import sys; sys.path.append({str(folder)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    return subprocess.run(
        [str(host.python), "-c", start, *arguments],
        cwd=host.path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def copy_pytest(folder: Path) -> None:
    """Copy pytest and what it needs, all of it pure Python, from the environment that runs this."""
    for name in PYTEST:
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # only older Pythons need it
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(distribution.locate_file(file), folder / file)


if __name__ == "__main__":
    sys.stdout.write("".join(f"{host.name}: {host.path} ({host.python})\n" for host in find_hosts()))
