"""`kimideploy doctor`: the ways a deployment fails, caught before the money is spent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, NodeOpt, PlanFileOpt, PlanOptions, VenvOpt, takes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kimideploy.cli.diagnosing import Machine
    from kimideploy.cli.examining import Subject
    from kimideploy.doctor.types import Remedy, Report

#: what --log calls the journal of the unit
_UNIT = "unit"
EXAMPLES = [
    "kimideploy doctor",
    "kimideploy doctor --plan plan.json --venv ~/vllm",
    "kimideploy doctor --host root@gpu1 --host root@gpu2 --plan plan.json",
    "kimideploy doctor --facts facts.json --json",
    "kimideploy doctor --list",
    "kimideploy doctor --explain gpu-recovery",
    "kimideploy doctor --fix",
    "kimideploy doctor --log engine.log",
    "kimideploy doctor --log unit --host root@gpu1",
]


@takes(HostOptions, "hosts")
@takes(PlanOptions)
def doctor(
    *,
    options: PlanOptions,
    hosts: HostOptions,
    plan: PlanFileOpt = None,
    node: NodeOpt = 0,
    venv: VenvOpt = None,
    container: Annotated[
        Literal["docker", "podman"] | None,
        typer.Option(help="the engine is going to run in one"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="this check; repeatable")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="show the checks that pass, too")] = False,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="FILE", help="write the facts there, for --facts"),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="do what is safe and can be undone, each shown first")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="take back what --fix did")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    listing: Annotated[bool, typer.Option("--list", help="list the checks")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="CHECK", help="say all there is to say of a check")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="say what a log shows of a failure; - is stdin, `unit` the unit's journal",
        ),
    ] = None,
    as_json: JsonOpt = False,
) -> None:
    """Judge a machine against a plan, or say what a log shows of a failure.

    Without --plan it plans for the machine first. --facts judges a machine that was saved by
    `doctor --save` or `inspect --json`. The exit code is 0 when nothing blocks and 1 when
    something does; with --log 0 when a known failure was found and 1 when none was.
    """
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if log is not None and hosts.host and log != _UNIT:
        raise RequestError(
            f"--log {log} is a file of this machine", hint=f"--log {_UNIT} reads a host's journal"
        )
    if listing or explain is not None:
        _explain(explain, as_json=as_json)
        return
    if log is not None:
        _of_log(log, options, hosts, as_json=as_json)
        return
    if undo and (options.facts or fix):
        raise RequestError("--undo takes back what --fix did to a machine: it stands alone")
    if undo:
        _undo(hosts, as_json=as_json)
        return
    from kimideploy.cli.diagnosing import report  # noqa: PLC0415
    from kimideploy.cli.examining import Subject  # noqa: PLC0415
    from kimideploy.doctor.examine import known_names  # noqa: PLC0415

    known_names(only or ())
    if fix and options.facts:
        raise RequestError(
            "--fix changes the machine it looks at, and --facts is a file",
            hint="--host USER@HOST for another machine",
        )
    subject = Subject(node=node, venv=venv, container=container, unit=bool(hosts.names))
    found = _machines(options, hosts, plan, subject, save)
    reports = [(machine.name, report(machine, only or ())) for machine in found]
    if fix:
        _fix(hosts, [report for _, report in reports], yes=yes, as_json=as_json)
        return
    _show(reports, every=every, as_json=as_json)
    if any(report.blocked for _, report in reports):
        raise typer.Exit(1)


def _machines(
    options: PlanOptions,
    hosts: HostOptions,
    plan: str | None,
    subject: Subject,
    save: Path | None,
) -> list[Machine]:
    from kimideploy.cli import diagnosing  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if options.hardware is not None:
        raise RequestError(
            "--hardware names a machine that nobody can look at",
            hint="kimideploy plan --hardware … plans for it; --facts FILE judges a saved one",
        )
    if hosts.names and options.facts:
        raise RequestError("--host and --facts both name the machine; give one of them")
    machines = diagnosing.machines(options, hosts, plan, subject)
    if save is not None:
        if len(machines) > 1:
            raise RequestError("--save writes the facts of one machine", hint="--host with one")
        from kimideploy.render.write import write_files  # noqa: PLC0415
        from kimideploy.views.inspect import as_json as facts_json  # noqa: PLC0415

        write_files(save.parent, {save.name: facts_json(machines[0].case.facts)}, force=True)
    return machines


def _show(reports: Sequence[tuple[str, Report]], *, every: bool, as_json: bool) -> None:
    from kimideploy.views.doctor import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    if as_json:
        import msgspec  # noqa: PLC0415

        found = reports[0][1] if len(reports) == 1 else dict(reports)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        return
    texts = [shown(report, terminal(sys.stdout), every=every) for _, report in reports]
    sys.stdout.write("\n".join(texts))


def _explain(name: str | None, *, as_json: bool) -> None:
    from kimideploy.doctor.check import CHECKS  # noqa: PLC0415
    from kimideploy.doctor.examine import known_names, table  # noqa: PLC0415
    from kimideploy.views.doctor import explained, listed  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    if name is not None:
        known_names([name])
    chosen = [CHECKS[name]] if name is not None and name in CHECKS else table()
    if as_json:
        import json  # noqa: PLC0415

        rows = [
            {"name": one.name, "severity": one.severity, "holds": one.holds, "why": one.why,
             "for": one.scope.words, "link": one.link}
            for one in chosen
        ]  # fmt: skip
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    elif name is not None:
        sys.stdout.write("\n".join(explained(one, terminal(sys.stdout)) for one in chosen))
    else:
        sys.stdout.write(listed(chosen, terminal(sys.stdout)))


def _of_log(name: str, options: PlanOptions, hosts: HostOptions, *, as_json: bool) -> None:
    from kimideploy.catalog.failures import of_engine  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.diagnosing import log_text  # noqa: PLC0415
    from kimideploy.doctor.causes import causes_in  # noqa: PLC0415
    from kimideploy.views.causes import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    text = log_text(name) if name != _UNIT else _journal(hosts)
    catalog = load_catalog(user_overlays(options.profiles or ()))
    causes = causes_in(text, of_engine(catalog.failures, options.engine))
    if as_json:
        import json  # noqa: PLC0415

        rows = [
            {"id": one.failure.id, "cause": one.failure.cause, "fix": one.failure.fix,
             "link": one.failure.link, "line": one.line, "number": one.number,
             "times": one.times}
            for one in causes
        ]  # fmt: skip
        sys.stdout.write(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        where = name if name != "-" else "stdin"
        count = len(text.splitlines())
        sys.stdout.write(shown(where, causes, count, terminal(sys.stdout)))
    if not causes:
        raise typer.Exit(1)


def _journal(hosts: HostOptions) -> str:
    """Return what the unit and the kernel of the place wrote since its boot."""
    from kimideploy.cli.hosts import one_place  # noqa: PLC0415

    return "\n".join(one_place(hosts).ask("story", list[str]))


def _fix(hosts: HostOptions, reports: Sequence[Report], *, yes: bool, as_json: bool) -> None:
    from kimideploy.apply.mend import Proposed  # noqa: PLC0415
    from kimideploy.cli.hosts import confirmed, places  # noqa: PLC0415
    from kimideploy.views.terminal import tame  # noqa: PLC0415

    done: dict[str, list[str]] = {}
    wanted = [_remedies(report) for report in reports]
    if any(wanted):
        for place, remedies in zip(places(hosts), wanted, strict=True):
            if not remedies:
                continue
            proposed = place.ask("proposed", tuple[Proposed, ...], remedies=remedies)
            for one in proposed:
                for change in one.changes:
                    sys.stderr.write(tame(f"{place.name}: {change.what}\n"))
            names = [one.remedy for one in proposed if one.changes]
            if not names:
                continue
            confirmed(f"change that on {place.name}", yes=yes)
            changed = place.ask("mend", tuple[Proposed, ...], remedies=names)
            done[place.name] = [change.what for one in changed for change in one.changes]
    if as_json:
        import json  # noqa: PLC0415

        sys.stdout.write(json.dumps(done, indent=2, ensure_ascii=False) + "\n")
    elif not done:
        sys.stdout.write("nothing that the doctor may change\n")
    else:
        for name, changes in done.items():
            sys.stdout.writelines(tame(f"{name}: done: {change}\n") for change in changes)
        sys.stdout.write("`kimideploy doctor --undo` takes it back\n")


def _remedies(report: Report) -> list[Remedy]:
    found = [f.remedy for check in report.checks for f in check.findings if f.remedy is not None]
    return list(dict.fromkeys(found))


def _undo(hosts: HostOptions, *, as_json: bool) -> None:
    from kimideploy.cli.hosts import places  # noqa: PLC0415

    undone = {place.name: place.ask("unmend", tuple[str, ...]) for place in places(hosts)}
    if as_json:
        import json  # noqa: PLC0415

        sys.stdout.write(json.dumps(undone, indent=2) + "\n")
        return
    for name, remedies in undone.items():
        sys.stdout.writelines(f"{name}: as it was before: {one}\n" for one in remedies)
