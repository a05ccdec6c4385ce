"""The wheel: what is in it, by name, and that it runs where the checkout is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from kimideploy import __version__

ROOT = Path(__file__).parents[2]
NAME = f"kimideploy-{__version__}"
DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
#: source folder → where it lies in the wheel, and what of it
FOLDERS = {
    "kimideploy": ("kimideploy", {".py", ".typed", ".txt", ".json", ".jinja", ".safetensors"}),
    "profiles": ("kimideploy/_profiles", {".yaml", ".csv"}),
    "templates": ("kimideploy/_templates", {".j2"}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, with files in it that nobody may ship."""
    copy = tmp_path_factory.mktemp("source")
    for name in (*FOLDERS, "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"):
        shutil.copy2(ROOT / name, copy / name)
    for name in ("profiles/.env", "kimideploy/.env", "templates/notes.txt", ".env"):
        (copy / name).write_text("TOKEN=poison", encoding="utf-8")
    return copy


def build(source: Path, out: Path, *options: str) -> Path:
    """Return what `python -m build` makes of *source*, alone in *out*."""
    words = [sys.executable, "-m", "build", "--no-isolation", "-o", str(out), *options, str(source)]
    made = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert 0 == made.returncode, made.stdout + made.stderr
    (found,) = out.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built directly."""
    return build(source, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the source archive."""
    return build(source, tmp_path_factory.mktemp("sdist"), "--sdist")


def names(wheel: Path) -> set[str]:
    """Return the names of the files in *wheel*."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def expected_names() -> set[str]:
    """Return what a wheel must hold, file by file."""
    found = {f"{NAME}.dist-info/{name}" for name in DIST_INFO}
    for folder, (place, suffixes) in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in suffixes:
                found.add(f"{place}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


def test_wheel_holds_the_package_and_its_data(wheel: Path) -> None:
    """The wheel has every module, profile and template, and nothing else."""
    assert expected_names() == names(wheel)


def test_wheel_is_the_same_through_the_source_archive(
    wheel: Path, sdist: Path, tmp_path: Path
) -> None:
    """Whoever builds from the source archive gets the same wheel."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")

    again = build(tmp_path / NAME, tmp_path / "wheel", "--wheel")

    assert names(wheel) == names(again)


def test_source_archive_ships_no_stray_file(sdist: Path) -> None:
    """The source archive has the tests and the licence, and no file that lay about."""
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}

    assert {"LICENSE", "README.md", "CHANGELOG.md", "tests/packaging/test_wheel.py"} <= found
    assert set() == {name for name in found if name.endswith((".env", "notes.txt"))}


def test_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment elsewhere, with what the wheel asks for and no more, it plans."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    bin_ = place / ("Scripts" if os.name == "nt" else "bin")
    quiet = ["-q", "--disable-pip-version-check"]
    subprocess.run([bin_ / "python", "-m", "pip", "install", *quiet, wheel], check=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        ended = subprocess.run(
            [bin_ / "kimideploy", *words],
            cwd=tmp_path,
            env=kept,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 0 == ended.returncode, ended.stderr
        return ended.stdout

    assert "kimi-k2.7-code" in run("profiles", "list")
    assert "vllm serve moonshotai/Kimi-K2.7-Code" in run("plan", "--hardware", "8xH200")
    run("plan", "--hardware", "8xH200", "-o", "plan.json")
    assert run("render", "shell", "--plan", "plan.json").startswith("#!")
    assert run("inspect", "--json").startswith("{")
