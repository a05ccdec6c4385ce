"""What a host does when it is asked: each verb a function, its answer a value for JSON."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import msgspec

from kimideploy.apply import deadman, peer, runs
from kimideploy.apply.answers import Action, Begun, Entry, History, Holder, Looked, Past
from kimideploy.apply.carry import look
from kimideploy.apply.events import Ended
from kimideploy.apply.files import remove, text, write
from kimideploy.apply.home import UNIT, USER, Home
from kimideploy.apply.job import job
from kimideploy.apply.journal import Journal, now
from kimideploy.apply.lock import held, holder, keep_out, refuse_if_held, release_hold
from kimideploy.apply.mend import take_back
from kimideploy.apply.order import Order, catalog_of
from kimideploy.apply.release import Release, current, pending, release, releases, set_pending
from kimideploy.apply.steps.base import difference, program
from kimideploy.apply.steps.unit import TARGET
from kimideploy.apply.systemd import Systemd, is_running
from kimideploy.errors import BusyError, KimiError, MachineError, RequestError
from kimideploy.render.quoting import file_assignment

#: what a run finds in its environment besides systemd's own: how the hub is reached
_PASSED = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY",
           "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE")  # fmt: skip


def looked(home: Home, order: Order, number: int | None = None) -> tuple[Looked, ...]:
    """Return what carrying out *order* would change here, or returning to release *number*."""
    _supported()
    return look(home, order, number)


def begin(
    home: Home, order: Order, number: int | None = None, *, wait: float = 0, token: str = ""
) -> Begun:
    """Return the run that carries *order* out from now on, whoever watches.

    *token* lets it in where it takes weights from another node.

    Nothing is begun where nothing is to be done. Raises BusyError if somebody else changes this
    host and *wait* is 0.
    """
    steps = looked(home, order, number)
    if not order.prepare and not any(step.changes for step in steps):
        found = current(home)
        here = found.number if found is not None else None
        ended = Ended(result="unchanged", release=here, serving=here, url=_url(home))
        return Begun(looked=steps, ended=ended)
    if not wait:
        refuse_if_held(home, order.who)
    # Why here: a run is written down before its first step may make the folders.
    for path, mode in home.folders[:3]:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    run = runs.begin(home, order, number)
    environment = _way_to_weights(home, order)
    if order.peer is not None and order.peer.url is not None:
        write(home.runs / run / "token", token.encode(), mode=0o600)
        environment = _way_to_peer(order.peer.url, home.runs / run / "token")
    words = [program(home), "host", "carry", run, *(["--wait", f"{wait:g}"] if wait else [])]
    file = home.runs / run / "env"
    lines = [f"{file_assignment(name, value)}\n" for name, value in environment.items()]
    write(file, "".join(lines).encode(), mode=0o600)
    Systemd(home.scope).detach(f"kimideploy-run-{run}", words, file)
    return Begun(looked=steps, run=run)


def _way_to_weights(home: Home, order: Order) -> dict[str, str]:
    """Return the variables by which a run finds the hub."""
    found = {name: os.environ[name] for name in _PASSED if name in os.environ}
    if order.hub is not None:
        found["HF_ENDPOINT"] = order.hub
    token_file = home.settings / "hub.token"
    if token_file.is_file():
        found["HF_TOKEN_PATH"] = str(token_file)
    return found


def _way_to_peer(url: str, token: Path) -> dict[str, str]:
    # Why so much: a proxy of the site leads out of it, and the hub's own token is not for a node.
    return {
        "HF_ENDPOINT": url, "HF_TOKEN_PATH": str(token), "HF_TOKEN": "",
        "HUGGING_FACE_HUB_TOKEN": "", "NO_PROXY": "*", "no_proxy": "*",
    }  # fmt: skip


def back(home: Home, number: int | None, who: str, *, wait: float = 0) -> Begun:
    """Return the run that goes back to release *number*, or to the one before the current."""
    if number is None:
        number = _before(home)
    chosen = release(home, number)
    order = msgspec.structs.replace(chosen.order(), who=who, confirm=None)
    return begin(home, order, number, wait=wait)


def asked(home: Home) -> Order:
    """Return what the current release was asked for; RequestError if there is none."""
    here = current(home)
    if here is None:
        raise RequestError(
            "nothing is deployed on this host", hint="kimideploy serve --host … deploys"
        )
    return here.order()


def confirm(home: Home, run: str) -> bool:
    """Say that the other nodes are well, too; return whether *run* was waiting for that."""
    on_trial = pending(home)
    if on_trial is None or on_trial.run != run or on_trial.until is None:
        return False
    set_pending(home, msgspec.structs.replace(on_trial, until=None))
    return True


def service(home: Home, action: Action, who: str) -> str:
    """Return the unit's state after it was told to stop, start or restart."""
    systemd = Systemd(home.scope)
    if text(home.unit) is None:
        raise RequestError(
            "nothing is deployed on this host", hint="kimideploy serve --host … deploys"
        )
    with held(home, who=who, why=action):
        if action in ("stop", "restart"):
            systemd.stop()
        if action in ("start", "restart"):
            systemd.start()
        _note(home, action, who)
    return systemd.show().active


def history(home: Home, count: int) -> History:
    """Return the releases of this host and the last *count* lines of its journal."""
    here = current(home)
    found = []
    for one in releases(home):
        plan = one.plan()
        found.append(
            Past(
                number=one.number,
                at=one.made.at,
                who=one.made.who,
                model=plan.served_name,
                candidate=plan.candidate.label,
                engine=f"{plan.candidate.engine} {plan.pins.engine_version}",
                proved=one.is_proved,
                current=here is not None and one.number == here.number,
                digest=one.made.digest,
            )
        )
    entries = tuple(Journal(home).entries())
    return History(releases=tuple(found), entries=entries[-count:])


def differences(home: Home, old: int | None, new: int | None) -> str:
    """Return how two releases differ: the plan's settings, argv and unit.

    None, None: the current one and what is on the host now; one number: it and the current.
    """
    here = current(home)
    if here is None and old is None:
        raise RequestError("nothing is deployed on this host")
    if old is None and here is not None:
        return difference(str(home.unit), here.unit, text(home.unit) or "") or ""
    first = release(home, int(old or 0))
    second = release(home, new) if new is not None else here
    if second is None:
        raise RequestError("nothing is deployed on this host")
    pieces = []
    for name, of in (("argv", _argv), ("unit", _unit)):
        before, after = of(first), of(second)
        if before != after:
            said = difference(name, before, after) or ""
            pieces.append(
                said.replace("(now)", f"release {first.number}", 1).replace(
                    "(then)", f"release {second.number}", 1
                )
            )
    return "\n".join(pieces)


def held_by(home: Home) -> Holder | None:
    """Return who holds this host."""
    return holder(home)


def hold(home: Home, who: str, why: str, seconds: float) -> Holder:
    """Return the hold that now keeps everybody but *who* out."""
    found = keep_out(home, who=who, why=why, seconds=seconds)
    _note(home, "lock", who, f"holds it: {why}")
    return found


def break_lock(home: Home, who: str, *, force: bool, run: str = "") -> Holder | None:
    """Return whose hold is over; a running change is ended only with *force*.

    *run*: only this one; anything else is left alone.
    """
    running = holder(home)
    if run and (running is None or running.run != run):
        return None
    if running is not None and running.pid is not None:
        if not force:
            raise BusyError(
                f"{running.who} is changing this host: {running.why}",
                hint="kimideploy attach shows it; --force ends it, and the release before serves",
            )
        if running.run is not None:
            Systemd(home.scope).stop(f"kimideploy-run-{running.run}.service")
        after = holder(home)
        if after is not None and after.pid == running.pid:
            raise BusyError(f"{running.who}'s change does not end: {running.why}")
        _note(home, "lock", who, f"ended {running.who}'s change")
        return running
    found = release_hold(home)
    if found is not None:
        _note(home, "lock", who, f"broke {found.who}'s hold")
    return found


def destroy(home: Home, who: str, *, weights: bool) -> tuple[str, ...]:
    """Return what was removed: all of kimideploy on this host but the weights."""
    systemd = Systemd(home.scope)
    gone = []
    with held(home, who=who, why="destroy"):
        deadman.disarm(home, systemd)
        peer.unshare(home)
        systemd.stop()
        # Why suppress: what can't be taken back is in no one's way, and the rest must go.
        with suppress(KimiError):
            take_back(home, who)
        systemd.disable(UNIT, TARGET)
        for name in (UNIT, TARGET):
            if (home.units / name).exists():
                remove(home.units / name)
                gone.append(str(home.units / name))
        systemd.reload()
        for path in (home.runtime, home.settings, home.programs, Path("/var/cache/kimideploy")):
            if path.exists() and (home.scope == "system" or path != Path("/var/cache/kimideploy")):
                shutil.rmtree(path, ignore_errors=True)
                gone.append(str(path))
        for path in sorted(home.state.iterdir()):
            if path == home.models and not weights:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    path.unlink()
            gone.append(str(path))
    if home.scope == "system":
        subprocess.run(
            ["/usr/sbin/userdel", USER], capture_output=True, check=False, stdin=subprocess.DEVNULL
        )
    with suppress(OSError):
        home.state.rmdir()
    return tuple(gone)


def _before(home: Home) -> int:
    here = current(home)
    for one in releases(home):
        if one.is_proved and here is not None and one.number < here.number:
            return one.number
    raise RequestError("there is no release before the current one to go back to")


def _argv(one: Release) -> str:
    launch = one.plan().launches[one.order().node]
    return "\n".join([*(f"{name}={value}" for name, value in launch.env), *launch.argv])


def _unit(one: Release) -> str:
    return one.unit


def _url(home: Home) -> str | None:
    found = current(home)
    if found is None:
        return None
    order, plan = found.order(), found.plan()
    if plan.launches[order.node].headless:
        return None
    return job(plan, catalog_of(order), node=order.node).url


def _note(home: Home, action: Action, who: str, said: str | None = None) -> None:
    here = current(home)
    Journal(home).add(
        Entry(
            at=now(), who=who, action=action, result="done", said=said,
            release=here.number if here is not None else None,
        )
    )  # fmt: skip


def _supported() -> None:
    if not is_running():
        raise MachineError(
            "systemd does not run this host, and kimideploy keeps an engine running by it",
            hint="`kimideploy serve` without --host runs it in the foreground",
        )
