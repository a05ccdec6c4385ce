"""Before a launch: the doctor is asked of each machine, and what blocks there refuses here."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.cli.deploy import Mine, Wishes
    from kimideploy.cli.examining import Subject
    from kimideploy.cli.options import PlanOptions
    from kimideploy.doctor.types import Report
    from kimideploy.errors import KimiError
    from kimideploy.planning.types import Plan
    from kimideploy.remote.bootstrap import Reached

SkipOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--skip-check",
        metavar="NAME",
        help="a check of `doctor` that must not refuse; `all` for every one; repeatable",
    ),
]


def admit_here(
    plan: Plan,
    catalog: Catalog,
    subject: Subject,
    *,
    to: Path | None,
    skip: Sequence[str],
    as_json: bool,
) -> None:
    """Raise what the doctor says against serving *plan* here, before anything is fetched."""
    from kimideploy.cli.examining import case_of, looked_here, stored  # noqa: PLC0415
    from kimideploy.doctor.examine import examine  # noqa: PLC0415

    if subject.pulls:
        subject = dataclasses.replace(subject, store=stored(plan, catalog, to))
    case = case_of(plan, catalog, looked_here(plan, catalog, subject), subject)
    report = examine(case, skip=skip)
    _tell("this machine", report, as_json=as_json)
    error = _refusal(report, None)
    if error is not None:
        raise error


def admit_hosts(
    options: PlanOptions, found: Sequence[Reached], plans: Sequence[Mine], wishes: Wishes
) -> dict[int, KimiError]:
    """Return what the doctor says against serving on hosts, by their places in *found*.

    Raises it where it is said of all of them, or of a node that the others can't do without.
    """
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.examining import looked_there  # noqa: PLC0415
    from kimideploy.doctor.examine import examine  # noqa: PLC0415

    catalog = load_catalog(user_overlays(options.profiles or ()))
    subjects = [
        subject_of(rank, one, mine, wishes, catalog)
        for rank, (one, mine) in enumerate(zip(found, plans, strict=True))
    ]

    cases = looked_there(found, [mine.plan for mine in plans], catalog, subjects)
    reports = [
        (str(one.shell.address), examine(case, skip=wishes.skip))
        for one, case in zip(found, cases, strict=True)
    ]
    for name, report in reports:
        _tell(name, report, as_json=wishes.as_json)
    errors: dict[int, KimiError] = {}
    for at, (name, report) in enumerate(reports):
        error = _refusal(report, name if len(reports) > 1 else None)
        if error is not None:
            errors[at] = error
    if errors and (len(errors) == len(found) or plans[0].plan.candidate.nodes > 1):
        raise next(iter(errors.values()))
    return errors


def subject_of(rank: int, one: Reached, mine: Mine, wishes: Wishes, catalog: Catalog) -> Subject:
    """Return how a host is going to serve its part of a plan."""
    from kimideploy.cli.examining import Subject, stored  # noqa: PLC0415

    named = mine.plan.request.model_path is not None or mine.plan.local is not None
    # Why: of weights that come from elsewhere it is not known what is there already.
    elsewhere = bool(wishes.adopt) or wishes.bundle is not None
    return Subject(
        node=mine.node,
        venv=wishes.venv,
        pulls=not named,
        offline=wishes.offline or wishes.bundle is not None or (wishes.pull_once and rank > 0),
        store=None if named or elsewhere else stored(mine.plan, catalog, Path(one.models)),
        hub=wishes.hub,
        installs=wishes.venv is None,
        unit=True,
    )


def _refusal(report: Report, name: str | None) -> KimiError | None:
    """Return what the first blocking check says, with how to skip what blocks; None: nothing."""
    from kimideploy.doctor.examine import refusal  # noqa: PLC0415

    error = refusal(report)
    if error is None:
        return None
    where = f"{name}: " if name is not None else ""
    others = len(report.blocked) - 1
    more = f" ({others} more block)" if others else ""
    names = " ".join(f"--skip-check {one.name}" for one in report.blocked)
    return type(error)(
        f"{where}{error.message}{more}",
        hint=f"{error.hint or 'see above'}; to go on all the same: {names}",
    )


def _tell(name: str, report: Report, *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415

    from kimideploy.views.doctor import shown  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    if as_json:
        # Why stdout: the events of the launch follow there, one JSON object a line.
        line = msgspec.json.encode({"event": "examined", "place": name, "report": report})
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    else:
        sys.stderr.write(shown(report, terminal(sys.stderr)) + "\n")
        sys.stderr.flush()
