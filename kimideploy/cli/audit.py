"""`kimideploy audit`: whether what lies between keeps the reasoning."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kimideploy.cli.options import JsonOpt
from kimideploy.cli.verify import KeyFileOpt

EXAMPLES = [
    "kimideploy audit -- python agent.py --base-url {url} --model {model}",
    "kimideploy audit --port 9009 --through http://127.0.0.1:4000",
    "kimideploy audit --port 9009",
]


def audit(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND …]", help="a tool loop to run; {url} and {model} are filled in"
        ),
    ] = None,
    *,
    through: Annotated[
        str | None,
        typer.Option(metavar="URL", help="a proxy whose upstream is the audit's own address"),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="of that address; 0 takes a free one")
    ] = 0,
    model: Annotated[str, typer.Option(metavar="NAME", help="the model's name upstream")] = (
        "kimi-k2.7-code"
    ),
    as_model: Annotated[
        str | None, typer.Option("--as-model", metavar="NAME", help="its name at the proxy")
    ] = None,
    api_key_file: KeyFileOpt = None,
    strict: Annotated[
        bool,
        typer.Option("--strict/--lenient", help="refuse lost reasoning, as Moonshot's API does"),
    ] = True,
    timeout: Annotated[float, typer.Option(min=1, help="seconds the command may take")] = 300,
    as_json: JsonOpt = False,
) -> None:
    """Lead a tool loop through a proxy or framework, and say what became of each field.

    A strict stand-in is the far end. What arrives there is held against what was sent: reasoning
    dropped, renamed or cut, tool ids rewritten, the system prompt moved, streams merged, fields
    taken away. Without proxy and command it prints its address and reports at Ctrl-C. The exit code
    is 1 where something breaks the model.
    """
    from kimideploy.cli import auditing  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if through is not None and command:
        raise RequestError("--through and a command are two audits", hint="one after the other")
    if through is not None and port == 0:
        raise RequestError(
            "a proxy must know where its upstream is", hint="--port 9009, and point the proxy there"
        )
    subject = auditing.Subject(
        model=model,
        port=port,
        strict=strict,
        through=through,
        as_model=as_model,
        key_file=api_key_file,
        command=tuple(command or ()),
        timeout=timeout,
    )
    report = auditing.audit(subject, _say)
    if as_json:
        import msgspec  # noqa: PLC0415

        document = {**msgspec.to_builtins(report), "ok": report.ok}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
    else:
        from kimideploy.views.audit import shown  # noqa: PLC0415
        from kimideploy.views.terminal import terminal  # noqa: PLC0415

        sys.stdout.write(shown(report, terminal(sys.stdout)))
    if not report.ok:
        raise typer.Exit(1)


def _say(url: str) -> None:
    sys.stderr.write(f"{url} is the upstream; Ctrl-C when the loop is over\n")
    sys.stderr.flush()
