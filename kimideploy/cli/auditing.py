"""Run an audit: the upstream listens, something passes through, and what arrived is compared."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kimideploy.apply.command import run as run_command
from kimideploy.cli.verifying import read_key
from kimideploy.conformance.audit import compare, drive
from kimideploy.conformance.audit.report import Fate, Report
from kimideploy.conformance.client import Client
from kimideploy.errors import RequestError
from kimideploy.rehearsal import upstream as far
from kimideploy.rehearsal.upstream import STEPS, Arrived, Upstream, upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is audited: a proxy at `through`, a command, or whoever comes."""

    model: str
    port: int
    strict: bool
    through: str | None = None
    #: the name the proxy knows the model by
    as_model: str | None = None
    key_file: Path | None = None
    command: tuple[str, ...] = ()
    timeout: float = 300.0


def audit(subject: Subject, say: Callable[[str], None]) -> Report:
    """Return what became of everything on its way; *say* is told where to point things."""
    with upstream(subject.model, subject.port, strict=subject.strict) as there:
        if subject.through is not None:
            return _through(subject, there)
        if subject.command:
            name = Path(subject.command[0]).name
            named = next((Path(one).name for one in subject.command[1:] if one.endswith(".py")), "")
            code = _run(subject, there)
            return _arrived(f"{name} {named}".strip(), subject.model, there.arrived, code)
        say(f"{there.url}/v1")
        _until_interrupted()
        return _arrived("whoever came", subject.model, there.arrived, None)


def _run(subject: Subject, there: Upstream) -> int:
    """Run the command, with the address in its words and in its environment."""
    filled = [
        word.replace("{url}", f"{there.url}/v1").replace("{model}", subject.model)
        for word in subject.command
    ]
    env = {
        **os.environ,
        "OPENAI_BASE_URL": f"{there.url}/v1",
        "OPENAI_API_BASE": f"{there.url}/v1",
        "OPENAI_API_KEY": "none",
        "KIMIDEPLOY_MODEL": subject.model,
    }
    return run_command(filled, env, subject.timeout)


def _until_interrupted() -> None:
    over = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: over.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _steps() -> tuple[compare.Step, ...]:
    """What the upstream answers, with the tool that everybody offers."""
    return _steps_with("run_python")


def _steps_with(tool: str) -> tuple[compare.Step, ...]:
    return tuple(
        compare.Step(
            far.thought(step),
            far.said(step),
            tuple((one.id, one.name, one.arguments) for one in far.calls(step, tool)),
        )
        for step in range(STEPS)
    )


def _tool(arrived: Sequence[Arrived]) -> str:
    """The tool that was offered first, which the upstream calls."""
    for one in arrived:
        if one.step is not None:
            return str(one.body["tools"][0]["function"]["name"])
    return "run_python"


def _arrived(name: str, model: str, arrived: Sequence[Arrived], code: int | None) -> Report:
    """The report on what came from a framework of which nothing else is known."""
    loop = [one for one in arrived if one.body.get("tools") or one.refusal is not None]
    if not loop:
        raise RequestError(
            "nothing arrived that offers a tool: there was no loop to look at",
            hint="the command must send chat completions with tools to {url}, turn after turn",
        )
    bodies = [one.body for one in loop]
    return Report(
        subject=name,
        model=model,
        requests=len(arrived),
        steps=_reached(loop),
        fates=compare.history(bodies, _steps_with(_tool(loop))),
        whole=STEPS,
        exit_code=code,
        refusal=next((one.refusal for one in loop if one.refusal is not None), None),
    )


def _reached(arrived: Sequence[Arrived]) -> int:
    return max((one.step + 1 for one in arrived if one.step is not None), default=0)


def _through(subject: Subject, there: Upstream) -> Report:
    """The report on a proxy: both ends are ours, so that everything is known."""
    key = read_key(subject.key_file) if subject.key_file is not None else None
    client = Client(str(subject.through), key=key)
    model = subject.as_model or subject.model
    fates: list[Fate] = []
    refusal = None
    for streamed in (False, True):
        begin = len(there.arrived)
        found = drive.drive(client, model, streamed=streamed, steps=STEPS)
        arrived = there.arrived[begin:]
        if not arrived:
            raise RequestError(
                f"nothing of what {client.url} was asked arrived: {found.error or 'no word'}",
                hint=f"point its upstream to {there.url}/v1, and --port keeps that address",
            )
        refusal = refusal or next((a.refusal for a in arrived if a.refusal), None) or found.error
        fates += compare.history([one.body for one in arrived], _steps())
        fates += drive.answers(found, _steps(), streamed=streamed)
        for sent, one in zip(found.sent, arrived, strict=False):
            fates += compare.request(sent, one.body)
            fates += compare.unknown(sent["messages"], one.body.get("messages", []))
        if streamed:
            gone = tuple(_events(one) for one in arrived)
            fate = drive.stream_fate(found.pieces, gone)
            fates += [fate] if fate is not None else []
    return Report(
        subject=client.url,
        model=model,
        requests=len(there.arrived),
        steps=_reached(there.arrived),
        fates=tuple(_each_once(fates)),
        whole=STEPS,
        refusal=refusal,
    )


def _events(arrived: Arrived) -> int:
    """How many events the upstream sent: the answer in pieces, and what stands around it."""
    from kimideploy.rehearsal.stream import pieces_of  # noqa: PLC0415

    if arrived.step is None:
        return 0
    step = min(arrived.step, STEPS - 1)
    texts = [far.thought(step), far.said(step) or ""]
    made = far.calls(step, _tool([arrived]))
    return sum(map(pieces_of, texts)) + sum(1 + pieces_of(one.arguments) for one in made) + 3


def _each_once(fates: Iterable[Fate]) -> Iterator[Fate]:
    """Each field of each way once: with the first fate that is not "kept", if there is one."""
    found: dict[tuple[str, str], Fate] = {}
    for fate in fates:
        at = (fate.way, fate.field)
        if at not in found or (found[at].what == "kept" and fate.what != "kept"):
            found[at] = fate
    order: dict[Any, int] = {"history": 0, "answer": 1, "request": 2}
    yield from sorted(found.values(), key=lambda fate: order[fate.way])
