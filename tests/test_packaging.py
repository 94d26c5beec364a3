"""The wheel holds what it should, and works far from a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"selfplay", "envs", "policies", "configs"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), str(ROOT)], cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of a fresh environment with the wheel in it.

    It finds the dependencies in this environment's site-packages by a .pth file. Such a folder's own .pth
    files are not read, so an editable install of the checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("venv") / "venv"
    run([sys.executable, "-m", "venv", str(folder)], cwd=folder.parent)
    scripts = folder / "bin"
    python = str(scripts / "python")
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)], cwd=folder)
    inner = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (inner / "outer.pth").write_text("".join(f"{path}\n" for path in sorted(outer)))
    found = run([python, "-c", "import selfplay; print(selfplay.__file__)"], cwd=folder)
    assert Path(found.stdout.strip()).is_relative_to(folder)
    return scripts


def run(command: list[str], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run to the end in `cwd`, without this process's Python paths; fails with what it wrote."""
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, cwd=cwd, env=outside | variables, text=True, capture_output=True)
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_wheel_holds_packages_and_configs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    on_disk = {
        path.relative_to(ROOT).as_posix()
        for folder in FOLDERS
        for pattern in ("*.py", "*.toml", "*.html", "*.css", "*.js")
        for path in (ROOT / folder).rglob(pattern)
    }
    assert "configs/connect_four.toml" in on_disk
    assert on_disk <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == FOLDERS


@pytest.mark.ray
def test_installed_wheel_trains_and_plays(installed: Path, tmp_path: Path) -> None:
    home, cwd = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    cwd.mkdir()
    train = [str(installed / "selfplay"), "train", "connect_four", "--stop.iterations", "2"]
    run(train, cwd=cwd, HOME=str(home))
    (metrics,) = cwd.rglob("metrics.jsonl")
    assert [json.loads(line)["iteration"] for line in metrics.read_text().splitlines()] == [1, 2]

    play = [str(installed / "play"), str(metrics.parent), "random", "--games", "4", "--json"]
    result = json.loads(run(play, cwd=cwd, HOME=str(home)).stdout.splitlines()[-1])
    assert result["games"] == 4
    assert result["wins"] + result["draws"] + result["losses"] == 4
