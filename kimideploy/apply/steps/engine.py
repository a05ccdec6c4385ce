"""The engine's environment: made by uv at the pinned version, or one that is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from kimideploy.apply.events import Change, Said
from kimideploy.apply.files import text, write
from kimideploy.apply.steps.base import Step, Work
from kimideploy.engines.site import sites
from kimideploy.errors import EngineError, MachineError, RequestError

#: where a Python may be that every user can run: one in somebody's home can't be
_SHARED = "/usr/local/bin:/usr/bin:/bin"
#: written last, with what was installed: an environment without it is half made
_WHOLE = "kimideploy.json"
#: no flag, no address, no file: what is installed as root comes from the index
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(==[A-Za-z0-9.+!_-]+)?")


class EngineStep(Step):
    """An environment is made beside the others, and checked before it is called whole. It is not
    undone: nothing runs from it before the unit names it."""

    name = "engine"

    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what must be installed; raises RequestError for what can't be."""
        source = work.order.engine
        match source.kind:
            case "stand-in":
                return ()
            case "venv" | "nano":
                if not (Path(str(source.path)) / "bin").is_dir():
                    raise RequestError(
                        f"--venv {source.path} is no Python environment on this host: it has no"
                        " folder bin"
                    )
                return ()
            case "install":
                made = text(_venv(work) / _WHOLE)
                if made == json.dumps(self._wanted(work)):
                    return ()
                return (Change(f"uv pip install {' '.join(self._words(work))} in {_venv(work)}"),)

    def do(self, work: Work) -> None:
        """Install it, and import what bites when it is missing."""
        source = work.order.engine
        venv = _venv(work)
        shutil.rmtree(venv, ignore_errors=True)
        uv = _uv(work)
        _spoken([uv, "venv", "--quiet", "--python", _python(), str(venv)], work)
        reach = ["--index-url", source.index] if source.index is not None else []
        if source.wheels is not None:
            reach = ["--no-index", "--find-links", source.wheels]
        words = [uv, "pip", "install", "--python", str(venv / "bin" / "python"), *reach]
        _spoken([*words, *self._words(work)], work)
        self._check_imports(work, venv)
        # Why: the mark must not outlive a power cut that the packages did not.
        os.sync()
        write(venv / _WHOLE, json.dumps(self._wanted(work)).encode())

    def _words(self, work: Work) -> tuple[str, ...]:
        site = sites(work.plan, work.catalog)[work.order.node]
        vendor: Literal["nvidia", "amd"] = "amd" if site.amd else "nvidia"
        wanted = work.plan.pins.requirements or site.engine.install.requirements.get(vendor, ())
        if not wanted:
            raise RequestError(
                f"{site.engine.name} can't be installed by pip: {site.engine.install.note or ''}",
                hint="--venv FOLDER names where it is on the host",
            )
        strange = next((word for word in wanted if not _REQUIREMENT.fullmatch(word)), None)
        if strange is not None:
            raise RequestError(
                f"the plan asks for {strange!r}, and only names with versions are installed",
                hint="plan again; a profile of your own may name another version",
            )
        return (*wanted, *site.engine.install.options.get(vendor, ()))

    def _wanted(self, work: Work) -> list[str]:
        return list(self._words(work))

    def _check_imports(self, work: Work, venv: Path) -> None:
        names = sites(work.plan, work.catalog)[work.order.node].engine.install.imports
        script = "".join(f"import {name}\n" for name in names)
        ended = _quiet([str(venv / "bin" / "python"), "-c", script])
        if ended.returncode != 0:
            said = (ended.stderr.strip().splitlines() or ["?"])[-1]
            raise EngineError(f"what was installed can't be imported: {said}")


def _venv(work: Work) -> Path:
    found = work.venv
    if found is None:
        raise RequestError("the stand-in has no environment of its own")
    return found


def _uv(work: Work) -> str:
    kept = work.home.programs / "bin" / "uv"
    found = str(kept) if kept.exists() else shutil.which("uv")
    if found is None:
        raise MachineError("uv is not on this host, and engines are installed by it")
    return found


def _python() -> str:
    """Return a Python that the service's user can run."""
    paths = _SHARED if os.geteuid() == 0 else f"{_SHARED}:{os.environ.get('PATH', '')}"
    for name in ("python3.12", "python3.11", "python3.10", "python3"):
        found = shutil.which(name, path=paths)
        if found is not None:
            return found
    return "3.12"


def _spoken(argv: list[str], work: Work) -> None:
    """Run *argv*, its words told as they come; EngineError with the last of them if it fails."""
    last = ""
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        stdin=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        for line in child.stdout or ():
            last = line.strip() or last
            work.tell(Said(line=line.rstrip()))
    if child.returncode != 0:
        raise EngineError(f"{Path(argv[0]).name} {argv[1]} failed: {last}")


def _quiet(argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, errors="replace",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
