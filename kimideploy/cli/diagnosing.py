"""The machines that `doctor` judges: this one, hosts, or saved facts, each with its plan."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kimideploy.cli.examining import (
    Subject,
    among,
    case_of,
    looked_here,
    looked_there,
    stored,
)
from kimideploy.doctor.case import Case
from kimideploy.doctor.examine import examine, no_fit
from kimideploy.doctor.types import Examined, Report
from kimideploy.errors import RequestError
from kimideploy.facts.types import HostFacts
from kimideploy.planning.types import NoFit, Plan

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.cli.hosts import HostOptions
    from kimideploy.cli.options import PlanOptions
    from kimideploy.planning.types import Decision

#: bytes of a log that are searched, from its end
_LOG = 8 << 20


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine by its name, its case, and that nothing fits where nothing does."""

    name: str
    case: Case
    nothing: Examined | None = None


def machines(
    options: PlanOptions, hosts: HostOptions, plan: str | None, subject: Subject
) -> list[Machine]:
    """Return what is to be judged."""
    if hosts.names:
        return _of_hosts(options, hosts, plan, subject)
    if options.facts:
        from kimideploy.facts.local import read_facts  # noqa: PLC0415

        found = [read_facts(path) for path in options.facts]
        decision, catalog = _decision(options, plan, found)
        names = [str(path) for path in options.facts]
        return _several(decision, catalog, found, names, subject)
    from kimideploy.facts.local import inspect_local  # noqa: PLC0415

    venvs = [subject.venv] if subject.venv is not None else []
    first = [inspect_local(venvs=venvs)] if plan is None else []
    decision, catalog = _decision(options, plan, first)
    chosen = decision if isinstance(decision, Plan) else None
    _in_range(decision, subject)
    store = stored(chosen, catalog)
    subject = dataclasses.replace(subject, store=store, pulls=store is not None)
    facts = looked_here(chosen, catalog, subject)
    return [_machine("this machine", decision, catalog, facts, subject)]


def report(machine: Machine, only: Sequence[str]) -> Report:
    """Return what the checks say of *machine*, with the finding that nothing fits before them."""
    found = examine(machine.case, only=only)
    if machine.nothing is None or (only and machine.nothing.name not in only):
        return found
    others = tuple(check for check in found.checks if check.name != machine.nothing.name)
    return msgspec.structs.replace(found, checks=(machine.nothing, *others))


def log_text(name: str) -> str:
    """Return the end of a log as text, colours and control signs left out."""
    from kimideploy.apply.follow import Lines  # noqa: PLC0415

    try:
        if name == "-":
            data = sys.stdin.buffer.read()
        else:
            with Path(name).open("rb") as file:
                # Why if: a pipe that the shell made, <(journalctl …), is a file, too.
                if file.seekable():
                    file.seek(0, 2)
                    file.seek(max(0, file.tell() - _LOG))
                data = file.read()
    except OSError as error:
        raise RequestError(f"--log {name} can't be read: {error.strerror}") from error
    if len(data) >= _LOG:
        sys.stderr.write(f"note: only the last {_LOG >> 20} MiB are searched\n")
    return "\n".join(Lines().feed(data[-_LOG:] + b"\n"))


def _decision(
    options: PlanOptions, plan: str | None, found: Sequence[HostFacts]
) -> tuple[Decision, Catalog]:
    if plan is None:
        from kimideploy.cli.plan import decide_from_options  # noqa: PLC0415

        options = dataclasses.replace(options, facts=None)
        return decide_from_options(options, found)
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.saved import name_of, text_of  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.planning.saved import plan_from  # noqa: PLC0415

    catalog = load_catalog(user_overlays(options.profiles or ()))
    chosen = plan_from(text_of(plan), name=name_of(plan))
    return (chosen if chosen.launches else complete(chosen, catalog)), catalog


def _in_range(decision: Decision, subject: Subject) -> None:
    """Raise RequestError for a node that the plan has not."""
    nodes = len(decision.launches) if isinstance(decision, Plan) else 1
    if not 0 <= subject.node < nodes:
        raise RequestError(f"--node {subject.node}: the plan has {nodes} node(s), from 0 on")


def _machine(
    name: str, decision: Decision, catalog: Catalog, facts: HostFacts, subject: Subject
) -> Machine:
    # Why too: where a release is deployed, it is what would be replaced.
    subject = dataclasses.replace(subject, unit=subject.unit or facts.unit is not None)
    if isinstance(decision, NoFit):
        return Machine(name, case_of(None, catalog, facts, subject), no_fit(decision))
    _in_range(decision, subject)
    return Machine(name, case_of(decision, catalog, facts, subject))


def _several(
    decision: Decision,
    catalog: Catalog,
    found: Sequence[HostFacts],
    names: Sequence[str],
    subject: Subject,
) -> list[Machine]:
    """Return the machines of one decision: its nodes in their order, each with the others."""
    nodes = decision.candidate.nodes if isinstance(decision, Plan) else 1
    if nodes not in (1, len(found)) and len(found) > 1:
        raise RequestError(f"the plan is for {nodes} nodes, and {len(found)} machines were named")
    made = []
    for rank, (name, facts) in enumerate(zip(names, found, strict=True)):
        node = rank if len(found) > 1 and nodes > 1 else subject.node
        machine = _machine(name, decision, catalog, facts, dataclasses.replace(subject, node=node))
        case = among(machine.case, found if nodes > 1 else ())
        made.append(dataclasses.replace(machine, case=case))
    return made


def _of_hosts(
    options: PlanOptions, hosts: HostOptions, plan: str | None, subject: Subject
) -> list[Machine]:
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.admission import subject_of  # noqa: PLC0415
    from kimideploy.cli.deploy import Mine, Wishes, decided  # noqa: PLC0415
    from kimideploy.cli.hosts import reaches  # noqa: PLC0415
    from kimideploy.remote.places import all_of  # noqa: PLC0415

    makers = [reaches(name, hosts, install=False) for name in hosts.names]
    reached = all_of(makers, lambda make: make())
    wishes = Wishes(
        plan=plan, ssh_config=hosts.ssh_config, venv=subject.venv, rehearsal=None, offline=False,
        accept_code=False,
    )  # fmt: skip
    decisions = decided(options, reached, wishes)
    nodes = max((d.candidate.nodes for d in decisions if isinstance(d, Plan)), default=1)
    for found in decisions:
        _in_range(found, subject)
    if nodes not in (1, len(reached)):
        raise RequestError(f"the plan is for {nodes} nodes, and {len(reached)} hosts were named")
    catalog = load_catalog(user_overlays(options.profiles or ()))

    def subject_there(rank: int) -> Subject:
        found = decisions[rank]
        if isinstance(found, NoFit):
            return subject
        mine = Mine(found, rank if nodes > 1 else subject.node, ())
        as_served = subject_of(rank, reached[rank], mine, wishes, catalog)
        return dataclasses.replace(as_served, container=subject.container)

    subjects = [subject_there(rank) for rank in range(len(reached))]

    plans = [found if isinstance(found, Plan) else None for found in decisions]
    cases = looked_there(reached, plans, catalog, subjects)
    return [
        Machine(str(one.shell.address), case, no_fit(found) if isinstance(found, NoFit) else None)
        for one, case, found in zip(reached, cases, decisions, strict=True)
    ]
