"""`kimideploy client`: the configuration of what is pointed at an endpoint."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kimideploy.cli.completion import clients, models
from kimideploy.cli.options import JsonOpt, ProfilesOpt

if TYPE_CHECKING:
    from kimideploy.catalog.clients import Client

EXAMPLES = [
    "kimideploy client",
    "kimideploy client openai-python > kimi.py",
    "kimideploy client opencode --url http://gpu1:8080/v1 --write",
    "kimideploy client aider --write --to ~/project",
]


def client(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=clients,
            help="of the client; without one, all are listed",
        ),
    ] = None,
    *,
    url: Annotated[
        str, typer.Option(metavar="URL", help="the endpoint, or the guard before it")
    ] = ("http://127.0.0.1:8000/v1"),
    model: Annotated[str, typer.Option(metavar="NAME", help="the name it serves under")] = (
        "kimi-k2.7-code"
    ),
    profile: Annotated[
        str,
        typer.Option("--as", metavar="MODEL", autocompletion=models, help="whose sampling it is"),
    ] = "kimi-k2.7-code",
    key_env: Annotated[
        str, typer.Option(metavar="NAME", help="the variable that holds the key, where one is read")
    ] = "KIMI_API_KEY",
    context: Annotated[
        int | None, typer.Option(min=1024, help="tokens of a request  [default: the model's]")
    ] = None,
    field: Annotated[
        Literal["reasoning", "reasoning_content"],
        typer.Option(help="the field the endpoint uses: vLLM reasoning, the others the longer one"),
    ] = "reasoning",
    write: Annotated[
        bool, typer.Option("--write", help="write it where the client reads it")
    ] = False,
    to: Annotated[
        Path | None, typer.Option(metavar="DIR", help="with --write: into this folder instead")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="overwrite without asking; what was there stays as *.old")
    ] = False,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Print a client's configuration, or write it, with the right field and sampling.

    No key is in it: each names a variable, or where the client asks for one. What is known of the
    client and the reasoning of earlier turns is said beside it.
    """
    from kimideploy.catalog.find import find_model  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.conformance.client import place  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.render.clients import Aim, configured  # noqa: PLC0415

    catalog = load_catalog(user_overlays(profiles or ()))
    if name is None:
        _list(catalog.clients, as_json=as_json)
        return
    found = next((one for one in catalog.clients if one.id == name), None)
    if found is None:
        from kimideploy.places import near  # noqa: PLC0415

        names = [one.id for one in catalog.clients]
        raise RequestError(
            f"no client {name!r} is known{near(name, names)}", hint=f"clients: {', '.join(names)}"
        )
    kind = find_model(catalog, profile)
    aim = Aim(
        url=f"{place(url).url}/v1",
        model=model,
        key=key_env,
        context=context or int(kind.context),
        field=field,
    )
    files = configured(found, aim, kind)
    if write:
        _write(files, to, yes=yes)
    elif as_json:
        import json  # noqa: PLC0415

        sys.stdout.write(json.dumps({"client": name, "files": files}, indent=2) + "\n")
    else:
        _print(files)
    if not as_json:
        _say(found)


def _list(found: tuple[Client, ...], *, as_json: bool) -> None:
    if as_json:
        import msgspec  # noqa: PLC0415

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
        return
    for one in found:
        sys.stdout.write(
            f"{one.id:<14} {one.name:<24} reasoning of earlier turns: {one.reasoning}\n"
        )


def _print(files: Mapping[str, str]) -> None:
    for path, text in files.items():
        if len(files) > 1:
            sys.stdout.write(f"# --- {path}\n")
        sys.stdout.write(text)


def _say(found: Client) -> None:
    from kimideploy.views.terminal import terminal  # noqa: PLC0415

    look = terminal(sys.stderr)
    where = ", ".join(file.path for file in found.files)
    lines = [f"{found.name}: {where}", f"reasoning of earlier turns: {found.reasoning}"]
    if found.note is not None:
        lines.append(f"unproved: {found.note}")
    for line in (*lines, *found.notes):
        sys.stderr.write("\n".join(look.wrapped(line, first="- ", rest="  ")) + "\n")


def _write(files: Mapping[str, str], to: Path | None, *, yes: bool) -> None:
    """Write each file, its folder too; one that is there is kept as *.old, after a question."""
    from kimideploy.errors import MachineError, RequestError  # noqa: PLC0415
    from kimideploy.files import write_whole  # noqa: PLC0415

    places = {
        (to.expanduser() / Path(path).name if to is not None else Path(path).expanduser()): text
        for path, text in files.items()
    }
    there = [path for path, text in places.items() if path.exists() and _differs(path, text)]
    if there and not yes:
        names = ", ".join(map(str, there))
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise RequestError(f"{names}: there is one already", hint="--yes keeps it as *.old")
        if not typer.confirm(f"{names}: replace it, and keep it as *.old?", err=True):
            raise typer.Exit(1)
    for path, text in places.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path in there:
                path.replace(_beside(path))
            write_whole(path, text.encode())
        except OSError as error:
            raise MachineError(f"{path} can't be written: {error.strerror}") from error
        sys.stdout.write(f"{path}\n")


def _beside(path: Path) -> Path:
    """A name for what was there that nothing has yet: the first one is the user's own."""
    names = (f"{path.name}.old{f'.{n}' if n else ''}" for n in itertools.count())
    return next(one for name in names if not (one := path.with_name(name)).exists())


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except (OSError, UnicodeDecodeError):
        return True
