"""What must hold before an engine is started: judge what was seen. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from kimideploy.apply.events import Checked
from kimideploy.apply.look import INCOMPLETE, Folder, Port, Seen
from kimideploy.apply.reach import Closed
from kimideploy.catalog.versions import denial, older
from kimideploy.engines.llamacpp import first_part
from kimideploy.engines.site import Site, unresolved
from kimideploy.errors import BusyError, KimiError, MachineError, RequestError, WeightsError
from kimideploy.planning.types import Launch
from kimideploy.quantities import GIB, MIB

_KINDS: dict[str, type[KimiError]] = {
    "command": RequestError,
    "port": BusyError,
    "engine": MachineError,
    "version": MachineError,
    "model": WeightsError,
    "access": MachineError,
    "disk": MachineError,
    "gpus": MachineError,
}
#: bytes that a change writes at most besides weights: events, journal, release, unit; a guess, high
_ROOM = 16 << 20


def judge(site: Site, launch: Launch, seen: Seen) -> tuple[Checked, ...]:
    """Return every check with its outcome; nothing is looked at here."""
    return (
        _words(launch),
        judge_port(launch, seen.port),
        _engine(site, launch, seen),
        _version_check(site, seen),
        judge_model(site, seen.folder),
    )


def rehearsed(launch: Launch, port: Port) -> tuple[Checked, ...]:
    """Return the checks of a rehearsal: the port counts, the rest is said to be skipped."""
    return (
        judge_port(launch, port),
        _skipped("engine", f"a stand-in takes the place of {launch.argv[0]}"),
        _skipped("version", "the stand-in speaks for the version the plan pins"),
        _skipped("model", "no weights are read"),
    )


def without_weights(checks: Sequence[Checked]) -> tuple[Checked, ...]:
    """Return the checks of a rehearsal on the real engine: all but the one of the weights."""
    said = _skipped("model", "the nano Kimi takes its place")
    return tuple(said if check.name == "model" else check for check in checks)


def refusal(checks: Sequence[Checked]) -> KimiError | None:
    """Return the first failed check as the error it is, or None."""
    for check in checks:
        if check.outcome == "fail":
            return _KINDS[check.name](check.evidence, hint=check.fix)
    return None


# --- judging -----------------------------------------------------------------------------


def _skipped(name: Literal["engine", "version", "model"], why: str) -> Checked:
    return Checked(name=name, outcome="skipped", evidence=f"rehearsal: {why}")


def _words(launch: Launch) -> Checked:
    missing = unresolved(launch)
    if missing:
        return Checked(
            name="command",
            outcome="fail",
            evidence=f"{', '.join(missing)} stands for a word nobody has said",
            fix="plan again with --head-address ADDRESS or --model-path FILE",
        )
    return Checked(name="command", outcome="pass", evidence="every word of it is said")


def judge_port(launch: Launch, port: Port) -> Checked:
    """Return whether the engine may listen."""
    where = f"port {launch.port} of {launch.host}"
    if launch.headless:
        return Checked(name="port", outcome="skipped", evidence="this node has no endpoint")
    if port.state == "taken":
        who = f" by {port.holder}" if port.holder is not None else ""
        return Checked(
            name="port",
            outcome="fail",
            evidence=f"{where} is taken{who}",
            fix=f"end it, or choose another: --port {launch.port + 1}",
        )
    if port.state == "forbidden":
        return Checked(
            name="port",
            outcome="fail",
            evidence=f"{where} can't be listened on: {port.holder}",
            fix="--port with one above 1023, --bind with an address of this machine",
        )
    return Checked(name="port", outcome="pass", evidence=f"{where} is free")


def _engine(site: Site, launch: Launch, seen: Seen) -> Checked:
    if seen.executable is None:
        wanted = site.engine.install.requirements.get("amd" if site.amd else "nvidia", ())
        how = f"; to install it: uv pip install {shlex.join(wanted)}" if wanted else ""
        return Checked(
            name="engine",
            outcome="fail",
            evidence=f"{site.engine.name} is not here: no {launch.argv[0]} in PATH",
            fix=f"--venv FOLDER names the environment it is in{how}",
        )
    return Checked(name="engine", outcome="pass", evidence=seen.executable)


def _version_check(site: Site, seen: Seen) -> Checked:
    engine, version = site.engine, seen.version
    if seen.executable is None:
        return Checked(name="version", outcome="skipped", evidence="no engine")
    if version is None:
        return Checked(
            name="version",
            outcome="warn",
            evidence=f"{engine.name} does not say its version; the plan is for"
            f" {engine.versions.pinned}",
        )
    floor = site.model.engines.get(engine.id)
    for minimum in (engine.versions.minimum, floor.minimum if floor is not None else None):
        if minimum is not None and older(version, minimum):
            return Checked(
                name="version",
                outcome="fail",
                evidence=f"{engine.name} {version} is older than {minimum}, which"
                f" {site.model.name} needs",
                fix=f"install {engine.versions.pinned}",
            )
    denied = denial(
        engine, version, generation=site.node.generation, architecture=seen.architecture
    )
    if denied is not None:
        return Checked(
            name="version",
            outcome="fail",
            evidence=f"{engine.name} {version} must not be used here: {denied.why}",
            fix=f"install {engine.versions.pinned}; see {denied.link}",
        )
    return Checked(name="version", outcome="pass", evidence=f"{engine.name} {version}")


def judge_reach(user: str, closed: Sequence[Closed]) -> tuple[Checked, ...]:
    """Return a failure for what the service's user can't reach, none if it reaches all."""
    if not closed:
        return ()
    first = closed[0]
    where = f" ({first.at} is closed to it)" if first.at != first.path else ""
    more = f", nor {len(closed) - 1} more" if len(closed) > 1 else ""
    return (
        Checked(
            name="access",
            outcome="fail",
            evidence=f"the service's user {user} can't reach {first.path}{where}{more}",
            fix="let others read it, or keep it where they may: environments in /opt, weights in"
            " /srv",
        ),
    )


def judge_room(path: Path, free: int) -> tuple[Checked, ...]:
    """Return a failure where the state of this host has no room for a change."""
    if free >= _ROOM:
        return ()
    return (
        Checked(
            name="disk",
            outcome="fail",
            evidence=f"{path} has {free / MIB:.1f} MiB free, and a change must be written down",
            fix=f"free {_ROOM // MIB} MiB there; `kimideploy weights prune` on the host removes"
            " unfinished pulls",
        ),
    )


def judge_model(site: Site, folder: Folder | None) -> Checked:
    """Return whether the weights are all there, by name and size; hashes are not asked for."""
    if folder is None:
        return Checked(
            name="model",
            outcome="warn",
            evidence=f"{site.engine.name} fetches {site.weights} itself, and nothing checks"
            " what comes",
            fix="--model-path FOLDER with the weights in it",
        )
    problem = _lacking(site, folder)
    if problem is not None:
        return Checked(
            name="model",
            outcome="fail",
            evidence=f"{folder.path}: {problem}",
            fix="fetch what is missing, or name the right folder with --model-path",
        )
    amount = f"{folder.path}: {sum(folder.sizes.values()) / GIB:.1f} GiB, all there"
    if _unfinished(folder):
        return Checked(
            name="model",
            outcome="warn",
            evidence=f"{amount}, and {_unfinished(folder)} left over from a broken download",
            fix="delete the *.incomplete files, nothing needs them",
        )
    return Checked(name="model", outcome="pass", evidence=amount)


def _lacking(site: Site, folder: Folder) -> str | None:
    """What makes the folder incomplete, in words."""
    if not folder.exists:
        return "there is no such folder"
    if site.engine.id == "llamacpp":
        wanted = _parts(Path(first_part(site)).name)
    elif "config.json" not in folder.sizes:
        return "there is no config.json in it, so this is no model"
    elif folder.broken_index is not None:
        return folder.broken_index
    else:
        wanted = folder.shards or ("model.safetensors",)
    gone = [name for name in wanted if not folder.sizes.get(name)]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        unfinished = _unfinished(folder)
        pulled = f"; {unfinished} are of a download that did not end" if unfinished else ""
        return f"{gone[0]}{more} of {len(wanted)} weight files missing or empty{pulled}"
    for name in wanted:
        if folder.sizes[name] < folder.promised.get(name, 0):
            held, whole = folder.sizes[name], folder.promised[name]
            return f"{name} is cut off: {held:,} of {whole:,} bytes are there"
    return None


def _parts(first: str) -> tuple[str, ...]:
    """Return all parts of a GGUF from the name of the first."""
    head, _, tail = first.rpartition("-of-")
    count = tail.removesuffix(".gguf")
    if not head.endswith("-00001") or not count.isdecimal():
        return (first,)
    stem = head.removesuffix("00001")
    return tuple(f"{stem}{part:05}-of-{count}.gguf" for part in range(1, int(count) + 1))


def _unfinished(folder: Folder) -> str | None:
    names = [name for name in folder.sizes if name.endswith(INCOMPLETE)]
    return f"{len(names)} *.incomplete files" if names else None
