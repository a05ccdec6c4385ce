"""`kimideploy serve`: run a plan on this machine until its endpoint has proved itself, and stay."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from kimideploy.cli.admission import SkipOpt
from kimideploy.cli.hosts import HostOptions
from kimideploy.cli.options import JsonOpt, NodeOpt, PlanFileOpt, PlanOptions, VenvOpt, takes
from kimideploy.cli.pull import AcceptOpt, OfflineOpt, ToOpt

if TYPE_CHECKING:
    from kimideploy.apply.events import Rehearsal
    from kimideploy.apply.job import Job
    from kimideploy.catalog.types import Catalog
    from kimideploy.planning.types import Decision, Plan
    from kimideploy.weights.resolve import Ways

EXAMPLES = [
    "kimideploy serve --rehearse --once",
    "kimideploy serve --rehearse --hardware 2x8xH100-80GB --dry-run",
    "kimideploy serve --model-path /srv/models/Kimi-K2.7-Code --venv ~/vllm",
    "kimideploy plan --json | kimideploy serve --plan - --venv ~/vllm",
    "kimideploy serve --rehearse=vllm --venv ~/vllm-cpu --once",
    "kimideploy serve --host root@gpu1 --skip-check clock --dry-run",
    "kimideploy serve --host root@gpu1 --host root@gpu2 --pull-once",
]
#: the environment the real vLLM is rehearsed in, where --venv does not name it
_VLLM_VENV = "KIMIDEPLOY_VLLM_VENV"


class Command(TyperCommand):
    """`--rehearse` may stand alone, which means the stand-in."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give the bare word the value it stands for."""
        said = ["--rehearse=stand-in" if word == "--rehearse" else word for word in args]
        return super().parse_args(ctx, said)


#: Why an app of its own: the command needs its own class
app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command)
@takes(HostOptions, "hosts")
@takes(PlanOptions)
def serve(
    *,
    options: PlanOptions,
    hosts: HostOptions,
    plan: PlanFileOpt = None,
    node: NodeOpt = 0,
    venv: VenvOpt = None,
    rehearse: Annotated[
        str | None,
        typer.Option(
            "--rehearse",
            metavar="[=vllm]",
            help="without GPU and weights: a stand-in, or with =vllm the real vLLM on the CPU",
        ),
    ] = None,
    pull: Annotated[
        bool,
        typer.Option("--pull/--no-pull", help="fetch and prove weights that are not here first"),
    ] = True,
    to: ToOpt = None,
    offline: OfflineOpt = False,
    accept_code: AcceptOpt = False,
    once: Annotated[bool, typer.Option("--once", help="end after the smoke requests")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done")] = False,
    ready_timeout: Annotated[
        float | None,
        typer.Option(help="seconds the log may bring nothing new while it loads", min=1),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="where the engine's output goes")] = None,
    adopt: Annotated[
        list[str] | None,
        typer.Option("--adopt", metavar="DIR", help="with --host: weights that lie there"),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="DIR", help="with --host: a bundle to send along"),
    ] = None,
    hub: Annotated[
        str | None, typer.Option("--hub", metavar="URL", help="with --host: a mirror of the hub")
    ] = None,
    hub_token_file: Annotated[
        Path | None,
        typer.Option("--hub-token-file", metavar="FILE", help="with --host: the hub's token"),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="with --host: only bring engine and weights, touch nothing that runs"
        ),
    ] = False,
    pull_once: Annotated[
        bool,
        typer.Option(
            "--pull-once", help="with --host: the first host pulls, the others take it from there"
        ),
    ] = False,
    share_address: Annotated[
        str | None,
        typer.Option(
            "--share-address",
            metavar="ADDRESS",
            help="with --pull-once: the first host as the others reach it  [default: as it is"
            " reached from here]",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[int, typer.Option(help="with --host: releases kept to return to", min=1)] = 3,
    wait: Annotated[
        float, typer.Option(help="with --host: seconds to wait for somebody else's change")
    ] = 0,
    skip_check: SkipOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Serve a model here until Ctrl-C, or on hosts for good.

    With --host the plan is made for that machine and carried out there, as a service that outlives
    this command; Ctrl-C leaves it alone, and `kimideploy attach` shows it again.
    The plan comes from --plan, or is made from the options of `kimideploy plan`. Weights that no
    --model-path names are pulled first, as `kimideploy pull` does. Before all of it the machine is
    examined, as `kimideploy doctor` does, and what blocks there refuses here.
    The exit code is 1 when nothing fits or the endpoint breaks a promise, 5 when the engine fails.
    """
    from kimideploy.doctor.examine import known_names  # noqa: PLC0415

    known_names(skip_check or (), skipping=True)
    rehearsal = _rehearsal(rehearse)
    hosts = dataclasses.replace(hosts, host=list(hosts.named(options.config)) or None)
    if hosts.host:
        from kimideploy.cli.deploy import Wishes, deploy  # noqa: PLC0415

        _only_here(node=node, once=once, log=log, to=to)
        deploy(
            options,
            hosts,
            Wishes(
                plan=plan,
                ssh_config=hosts.ssh_config,
                venv=venv,
                rehearsal=rehearsal,
                offline=offline,
                accept_code=accept_code,
                adopt=tuple(adopt or ()),
                bundle=bundle.resolve() if bundle is not None else None,
                hub=hub,
                hub_token=hub_token_file,
                ready_timeout=ready_timeout,
                keep=keep,
                wait=wait,
                prepare=prepare,
                pull_once=pull_once,
                share_address=share_address,
                skip=tuple(skip_check or ()),
                dry_run=dry_run,
                as_json=as_json,
            ),
        )
        return
    _only_there(adopt=adopt, bundle=bundle, hub=hub, hub_token_file=hub_token_file,
                prepare=prepare, pull_once=pull_once, share_address=share_address)  # fmt: skip
    # Why here: what serves on this machine takes long to load, and hosts don't need it here.
    from kimideploy.apply.job import job  # noqa: PLC0415
    from kimideploy.apply.serve import serve as run  # noqa: PLC0415
    from kimideploy.apply.weights import foretold  # noqa: PLC0415
    from kimideploy.cli.plan import refuse  # noqa: PLC0415
    from kimideploy.cli.pull import ways as pull_ways  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.serve import shown  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415

    notes: list[str] = []
    decision, catalog = (
        _saved(plan, options) if plan is not None else _decided(options, rehearsal, notes)
    )
    if not isinstance(decision, Plan):
        refuse(decision, as_json=as_json)
    if rehearsal == "vllm":
        decision = _nano(decision, notes)
        venv = venv or (Path(os.environ[_VLLM_VENV]) if os.environ.get(_VLLM_VENV) else None)

    def jobs(found: Plan) -> Job:
        return job(
            found,
            catalog,
            node=node,
            venv=venv,
            log=log,
            ready_timeout=ready_timeout,
            rehearsal=rehearsal,
            once=once,
            notes=tuple(notes),
            skip=tuple(skip_check or ()),
        )

    first: Sequence[str] = ()
    pulls = pull and decision.request.model_path is None
    jobs(decision)  # Why: what is wrong with --node and --venv is said before anything is looked at
    if rehearsal is None and not dry_run:
        from kimideploy.cli.admission import admit_here  # noqa: PLC0415
        from kimideploy.cli.examining import Subject  # noqa: PLC0415

        subject = Subject(node=node, venv=venv, pulls=pulls, offline=offline)
        admit_here(decision, catalog, subject, to=to, skip=skip_check or (), as_json=as_json)
    if pulls and rehearsal is None:
        ways = pull_ways(offline=offline, accept_code=accept_code)
        if dry_run:
            decision, first = foretold(decision, catalog, root(to), ways)
        else:
            decision = _on_weights(decision, catalog, root(to), ways, as_json=as_json)
    what = jobs(decision)
    if dry_run:
        _tell(what, first, as_json=as_json)
        return
    with shown(out, err, as_json=as_json) as tell:
        verdict = run(what, tell)
    if not verdict.ok:
        raise typer.Exit(1)


def _only_here(*, node: int, once: bool, log: Path | None, to: Path | None) -> None:
    """Raise RequestError for an option that means nothing on a host."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    given = {"--node": node, "--once": once, "--log": log, "--to": to}
    for flag, value in given.items():
        if value:
            raise RequestError(f"{flag} is for serving on this machine; leave it out with --host")


def _only_there(**given: object) -> None:
    """Raise RequestError for an option that means nothing on this machine."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    for name, value in given.items():
        if value:
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(f"{flag} is for hosts, and none is named", hint="--host USER@HOST")


def _on_weights(plan: Plan, catalog: Catalog, top: Path, ways: Ways, *, as_json: bool) -> Plan:
    """Return *plan* on weights that are here, pulled first where they were not."""
    from kimideploy.apply.interrupts import interrupts  # noqa: PLC0415
    from kimideploy.apply.weights import bring  # noqa: PLC0415
    from kimideploy.views import pull as view  # noqa: PLC0415
    from kimideploy.views.console import err  # noqa: PLC0415

    with interrupts() as caught, view.shown(err, err, as_json=as_json) as tell:
        caught.allow()
        return bring(plan, catalog, top, ways, tell)


def _rehearsal(word: str | None) -> Rehearsal | None:
    from kimideploy.errors import RequestError  # noqa: PLC0415

    match word:
        case None | "stand-in" | "vllm":
            return word
        case _:
            raise RequestError(
                f"--rehearse={word} is no way to rehearse",
                hint="--rehearse for the stand-in, --rehearse=vllm for the real vLLM on the CPU",
            )


def _saved(name: str, options: PlanOptions) -> tuple[Decision, Catalog]:
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.saved import name_of, nothing_else, text_of  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.planning.saved import plan_from  # noqa: PLC0415

    nothing_else(options, name)
    text = text_of(name)
    catalog = load_catalog(user_overlays(options.profiles or ()))
    found = plan_from(text, name=name_of(name))
    return (found if found.launches else complete(found, catalog)), catalog


def _decided(
    options: PlanOptions, rehearsal: Rehearsal | None, notes: list[str]
) -> tuple[Decision, Catalog]:
    """Plan for the machine; a rehearsal that can't be of this one is of the usual one."""
    from kimideploy.cli.plan import REHEARSED, decide_from_options  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415

    if rehearsal is None or _names_a_machine(options):
        return decide_from_options(options)
    from kimideploy.facts.local import inspect_local  # noqa: PLC0415

    usual = dataclasses.replace(options, hardware=REHEARSED)
    if not inspect_local().gpus:
        notes.append(f"this machine has no GPU: {REHEARSED} is rehearsed, or say --hardware")
        return decide_from_options(usual)
    decision, catalog = decide_from_options(options)
    if isinstance(decision, Plan):
        return decision, catalog
    notes.append(f"this machine is too small: {REHEARSED} is rehearsed, or say --hardware")
    return decide_from_options(usual)


def _names_a_machine(options: PlanOptions) -> bool:
    from kimideploy.cli.config import read_config  # noqa: PLC0415

    config, _ = read_config(options.config)
    return bool(options.hardware or options.facts or config.hardware or config.facts)


def _nano(plan: Plan, notes: list[str]) -> Plan:
    """Return the plan on the nano Kimi, and note what had to be changed for that."""
    import platformdirs  # noqa: PLC0415

    from kimideploy.rehearsal.nano import write_nano  # noqa: PLC0415
    from kimideploy.rehearsal.real import on_nano  # noqa: PLC0415

    folder = Path(platformdirs.user_cache_dir("kimideploy")) / "nano-kimi"
    write_nano(folder)
    nano, changes = on_nano(plan, folder)
    notes.extend(changes)
    return nano


def _tell(what: Job, first: Sequence[str], *, as_json: bool) -> None:
    from kimideploy.apply.job import steps  # noqa: PLC0415

    lines = [*first, *steps(what)]
    if as_json:
        import json  # noqa: PLC0415

        document = {"argv": what.argv, "env": dict(what.launch.env), "steps": lines}
        sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in (*[f"# {n}" for n in what.notes], *lines))
