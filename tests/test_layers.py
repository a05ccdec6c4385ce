"""The arrows of DESIGN.md: which room may import which, and who may touch the world."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kimideploy.facts.probe import script

PACKAGE = Path(__file__).parents[1] / "kimideploy"

#: what every room may import: these import no room
COMMON = {"errors", "files", "quantities", "resources", "documents", "places"}
DECISIONS = {"render", "engines", "planning", "catalog", "facts"}
ARROWS: dict[str, set[str]] = {
    "facts": set(),
    "catalog": set(),
    "planning": {"catalog", "facts"},
    "engines": {"planning", "catalog"},
    "render": {"engines", "planning", "catalog"},
    "weights": DECISIONS,
    "doctor": {"engines", "planning", "catalog", "facts"},
    "conformance": DECISIONS,
    "guard": DECISIONS | {"conformance"},
    "rehearsal": DECISIONS,
    "apply": DECISIONS | {"conformance", "doctor", "rehearsal", "weights"},
    "remote": DECISIONS | {"apply"},
    #: a view knows the types it shows; the rooms of these are checked to bring nothing else along
    "views": {"planning", "catalog", "facts", "apply", "weights", "conformance", "doctor"},
    "cli": {"*"},
}
#: rooms that take types from a room, not what looks at the world in it
TYPES_ONLY = {
    "planning": {"facts.types", "facts.hardware"},
    "doctor": {"facts.types", "facts.filesystems"},
    "engines": {"planning.types"},
    "conformance": {"facts.types"},
    "views": {
        "facts.types",
        "planning.types",
        "planning.estimates",
        "planning.bill",
        "planning.comparison",
        "planning.advice",
        "planning.weighing",
        "planning.words",
        "catalog.types",
        "apply.events",
        "apply.answers",
        "weights.events",
        "weights.types",
        "conformance.verdict",
        "conformance.audit.report",
        "doctor.types",
        "doctor.check",
        "doctor.causes",
    },
}
#: who may import what reaches a process, a network or a driver
HANDS: dict[str, tuple[str, ...]] = {
    "subprocess": ("apply", "facts.probe", "rehearsal", "remote"),
    "pynvml": ("facts.probe",),
    "paramiko": ("remote",),
    "huggingface_hub": ("weights",),
    "http": ("weights", "conformance", "guard", "rehearsal", "apply.ready"),
    "urllib.request": (
        "weights",
        "conformance",
        "guard",
        "rehearsal",
        "apply.ready",
        "facts.probe",
    ),
    "aiohttp": ("guard",),
    "uvicorn": ("guard",),
    "httpx": (),
    "requests": (),
    "click": (),
}
#: a decision is a function of its arguments: no clock, no chance, no environment, no disk
PURE = ("planning", "engines", "doctor")
WORLD = ("os", "time", "datetime", "random", "socket", "tempfile", "shutil", "platform", "pathlib")
POSIX = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module of the package by its name without the package's."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE).with_suffix("").parts), path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[str]:
    """Yield each module that *path* imports anywhere in it, type checking included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=module, names=names, level=0) if module is not None:
                yield module
                yield from (f"{module}.{name.name}" for name in names)
            case _:
                pass


def within(name: str, rooms: tuple[str, ...]) -> bool:
    """Return whether the module *name* is one of *rooms* or lies in it."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def own(path: Path) -> set[str]:
    """Return the modules of this package that *path* imports, without the package's name."""
    found = {name.removeprefix("kimideploy.") for name in imports(path) if "kimideploy." in name}
    return {name for name in found if name in MODULES or f"{name}.__init__" in MODULES}


def test_every_room_has_its_arrows() -> None:
    """A new package must say whom it may import."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}

    assert set(ARROWS) == rooms


@pytest.mark.parametrize("name", MODULES)
def test_arrows(name: str) -> None:
    """A module imports only rooms that its own room has an arrow to."""
    room = name.partition(".")[0] if "." in name else ""
    if name in {"__init__", "__main__"} or room == "cli":
        return
    allowed = ARROWS.get(room, set()) | COMMON | {room, "__init__"}

    strangers = {other for other in own(MODULES[name]) if other.partition(".")[0] not in allowed}

    assert set() == strangers


@pytest.mark.parametrize("name", [name for name in MODULES if name.partition(".")[0] in TYPES_ONLY])
def test_types_only(name: str) -> None:
    """Where DESIGN says "types", the types are all that is imported."""
    room = name.partition(".")[0]
    of_rooms = {types.partition(".")[0] for types in TYPES_ONLY[room]}

    taken = {other for other in own(MODULES[name]) if other.partition(".")[0] in of_rooms}

    assert set() == {other for other in taken if other not in TYPES_ONLY[room] | of_rooms}


@pytest.mark.parametrize("name", MODULES)
def test_hands(name: str) -> None:
    """Only the rooms that act import what acts."""
    for banned, rooms in HANDS.items():
        if not within(name, rooms):
            assert [] == [found for found in imports(MODULES[name]) if within(found, (banned,))]


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, PURE)])
def test_decisions_look_at_nothing(name: str) -> None:
    """Planning and engines import nothing that looks at a clock, the environment or a disk."""
    assert [] == [found for found in imports(MODULES[name]) if within(found, WORLD)]


def test_probe_stands_alone(tmp_path: Path) -> None:
    """The probe can be piped to a bare python3: standard library and pynvml, nothing of ours."""
    allowed = {*sys.stdlib_module_names, "pynvml"}
    joined = tmp_path / "probe.py"
    joined.write_text(script(), encoding="utf-8")

    roots = {name.partition(".")[0] for name in imports(joined)}

    assert set() == roots - allowed


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--hardware", "8xH200"),
        ("plan", "--json"),
        ("inspect", "--json"),
        ("render", "shell", "--plan", "plan.json"),
        ("profiles", "list"),
        ("serve", "--help"),
    ],
    ids=" ".join,
)
def test_runs_without_posix_modules(words: tuple[str, ...], tmp_path: Path) -> None:
    """plan, render and inspect import nothing that Windows or macOS lacks."""
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({POSIX!r}))\n"
        "from kimideploy.cli.app import main\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=env,
            timeout=60,
        )

    if words[0] == "render":
        run("plan", "--hardware", "8xH200", "-o", "plan.json")
    ended = run(*words)

    # Why 1 too: on this machine nothing may fit, and that is an answer.
    assert ended.returncode in ({0, 1} if words == ("plan", "--json") else {0}), ended.stderr
    assert ended.stdout
