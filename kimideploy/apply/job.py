"""A Job: one launch of a plan on this machine, with all that is needed to carry it out."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from kimideploy.apply.events import Rehearsal
from kimideploy.catalog.types import Catalog
from kimideploy.conformance.promise import Promise, owed
from kimideploy.engines.site import Site, sites
from kimideploy.errors import MachineError, RequestError
from kimideploy.planning.types import Launch, Plan
from kimideploy.rehearsal import nano

#: Seconds without news in the log before an engine counts as hung, a guess: compiling a model of
#: this size takes minutes and says little.
QUIET = 30 * 60.0
#: the same for a stand-in and for the nano Kimi on a CPU
_QUIET_REHEARSED: dict[Rehearsal, float] = {"stand-in": 120.0, "vllm": 600.0}
#: Bytes per second, a guess: an engine that fetches from the hub may be silent while it does, on a
#: line no slower than this.
_SLOW_LINE = 50_000_000
#: seconds the stand-in takes to load, so that a rehearsal shows its stages and is over soon
_REHEARSED_LOAD = 3
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What `serve` does. `quiet` is the longest silence of the log in seconds while it loads."""

    site: Site
    launch: Launch
    #: the profiles that the site was made from
    catalog: Catalog
    #: what is really run: the launch's words, or the stand-in with these as its arguments
    argv: tuple[str, ...]
    log: Path
    quiet: float
    venv: Path | None = None
    rehearsal: Rehearsal | None = None
    once: bool = False
    #: what the operator should know before it starts, in words
    notes: tuple[str, ...] = ()
    #: checks of the doctor that must not refuse
    skip: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The PATH in which the engine's program is looked up."""
        usual = os.environ.get("PATH", os.defpath)
        if self.venv is None:
            return usual
        return f"{self.venv.expanduser().absolute() / 'bin'}{os.pathsep}{usual}"

    @property
    def url(self) -> str:
        """Where this machine reaches the endpoint."""
        host = _ANYWHERE.get(self.launch.host, self.launch.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.launch.port}"

    @property
    def promise(self) -> Promise:
        """What the endpoint owes once it is ready."""
        promise = owed(
            self.site.model,
            self.site.plan.served_name,
            reasoning_field=self.site.engine.reasoning_field,
            context=self.site.plan.fit.context,
            images=self.site.vision,
        )
        if self.rehearsal != "vllm":
            return promise
        return replace(promise, images=False, prompt_tokens=nano.prompt_tokens())

    @property
    def max_tokens(self) -> int:
        """What a client should ask for."""
        return self.site.model.answer_tokens


def job(
    plan: Plan,
    catalog: Catalog,
    *,
    node: int = 0,
    venv: Path | None = None,
    log: Path | None = None,
    ready_timeout: float | None = None,
    rehearsal: Rehearsal | None = None,
    once: bool = False,
    notes: tuple[str, ...] = (),
    skip: tuple[str, ...] = (),
) -> Job:
    """Return the Job for the plan's launch on `node`; raises RequestError if it has none.

    `log` None: a file of the user's state folder. `ready_timeout` None: as long as a load of that
    size may well be silent.
    """
    if not 0 <= node < len(plan.launches):
        raise RequestError(
            f"--node {node}: the plan has {len(plan.launches)} node(s), counted from 0"
        )
    if venv is not None and not (venv.expanduser() / "bin").is_dir():
        raise RequestError(
            f"--venv {venv} is no Python environment: it has no folder bin",
            hint="name the environment the engine is installed in, not its bin folder",
        )
    site, launch = sites(plan, catalog)[node], plan.launches[node]
    stand_in = rehearsal == "stand-in"
    return Job(
        site=site,
        launch=launch,
        catalog=catalog,
        argv=rehearsed(launch.argv) if stand_in else launch.argv,
        log=log if log is not None else _log(plan, launch),
        quiet=ready_timeout if ready_timeout is not None else _quiet(site, rehearsal),
        venv=None if stand_in else venv,
        rehearsal=rehearsal,
        once=once,
        notes=notes,
        skip=skip,
    )


def rehearsed(argv: tuple[str, ...], *options: str) -> tuple[str, ...]:
    """Return the words that run the stand-in in place of *argv*."""
    words = ("-m", "kimideploy.rehearsal", "--load-seconds", str(_REHEARSED_LOAD), *options)
    return (sys.executable, *words, "--", *argv)


def environment(job: Job, inherited: Mapping[str, str], *, secret: bool = True) -> dict[str, str]:
    """Return what the engine finds in its environment: the launch's own words over *inherited*.

    With *secret* its key, too: read here, from the file the launch names, and it goes nowhere else.
    """
    own = dict(job.launch.env)
    if job.rehearsal == "stand-in":
        # Why: kimideploy itself may be installed where this variable hides it.
        own.pop("PYTHONNOUSERSITE", None)
    # Why unbuffered: progress that is written when a buffer is full comes too late.
    env = {**inherited, "PYTHONUNBUFFERED": "1", **own, "PATH": job.path}
    if not secret:
        return env
    return env | {one.variable: _secret(one.file) for one in job.launch.secrets}


def key(job: Job) -> str | None:
    """Return the key the endpoint asks for, None if it asks for none."""
    return next((_secret(secret.file) for secret in job.launch.secrets), None)


def steps(job: Job) -> list[str]:
    """Return what `serve` would do, step by step, with the very words; nothing secret is in it."""
    launch, engine, model = job.launch, job.site.engine, job.site.plan.served_name
    names = [f"{name}={shlex.quote(value)}" for name, value in launch.env]
    names += [f"{secret.variable}=(from {secret.file})" for secret in launch.secrets]
    looked = (
        f"check port {launch.port}"
        if job.rehearsal == "stand-in"
        else f"ask the doctor; check port {launch.port}, {engine.name} and its version, the weights"
    )
    lines = [
        looked,
        f"run {shlex.join(job.argv)}",
        f"  with {' '.join(names)}",
        *([f"  found through {job.venv}/bin"] if job.venv is not None else []),
        f"  logging to {job.log}",
    ]
    if launch.headless:
        return [*lines, "follow the log until it ends; node 0 has the endpoint"]
    return [
        *lines,
        (
            f"wait until {job.url}{engine.health} answers 200 and {engine.ready} names {model};"
            f" give up after {job.quiet:.0f} s without news in the log"
        ),
        f"ask a question: message.{engine.reasoning_field} must hold the reasoning",
        f"give a task with one tool: its call must have an id like {job.site.model.tool_id}",
        "tell a code word in the reasoning alone: it must come back, and not without it",
        "end the engine and all it started"
        if job.once
        else "stay until Ctrl-C or SIGTERM, then end the engine and all it started",
    ]


def _log(plan: Plan, launch: Launch) -> Path:
    name = plan.served_name.replace("/", "-").replace(":", "-")
    folder = Path(platformdirs.user_state_dir("kimideploy"))
    return folder / "logs" / f"{name}-{launch.port}.log"


def _quiet(site: Site, rehearsal: Rehearsal | None) -> float:
    if rehearsal is not None:
        return _QUIET_REHEARSED[rehearsal]
    fetched = site.checkpoint.size if site.from_hub else None
    return QUIET + (int(fetched) / _SLOW_LINE if fetched is not None else 0)


def _secret(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(
            f"the key in {file} can't be read: {type(error).__name__}",
            hint="a listener beyond loopback needs a key: put one there with mode 0600",
        ) from error
