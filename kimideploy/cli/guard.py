"""`kimideploy guard`: the only door to an engine, which keeps the reasoning contract."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kimideploy.cli.completion import models
from kimideploy.cli.help import examples
from kimideploy.cli.options import JsonOpt, ProfilesOpt

if TYPE_CHECKING:
    from kimideploy.guard.contract import Contract
    from kimideploy.guard.limits import Limits

EXAMPLES = [
    "kimideploy guard key laptop --keys guard.keys",
    "kimideploy guard run http://127.0.0.1:8000 --keys guard.keys",
    "kimideploy guard run http://127.0.0.1:8000 --missing repair",
    "kimideploy guard unit http://127.0.0.1:8000 --keys /etc/guard.keys",
]
app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Serve one door to an engine: allowed paths, keys, limits, and the reasoning kept.",
)

UrlArg = Annotated[str, typer.Argument(metavar="URL", help="the engine, on this machine best")]
KeysOpt = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FILE", help="who may ask: names, and hashes of keys"),
]
HostOpt = Annotated[str, typer.Option("--host", help="where it listens")]
PortOpt = Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one")]
MissingOpt = Annotated[
    Literal["refuse", "repair", "pass"],
    typer.Option(
        "--missing",
        help="a tool call without its reasoning: refuse it, repair it from memory, or let it pass",
    ),
]
SendsOpt = Annotated[
    Literal["both", "reasoning", "reasoning_content"],
    typer.Option("--sends", help="the field clients get the reasoning in"),
]
ReadsOpt = Annotated[
    Literal["auto", "reasoning", "reasoning_content"],
    typer.Option("--reads", help="the field the engine uses; auto asks it once, at the start"),
]


@app.command(epilog=examples(EXAMPLES[1:3]))
def run(
    url: UrlArg,
    *,
    host: HostOpt = "127.0.0.1",
    port: PortOpt = 8080,
    keys: KeysOpt = None,
    missing: MissingOpt = "refuse",
    sends: SendsOpt = "both",
    reads: ReadsOpt = "auto",
    model: Annotated[
        str,
        typer.Option("--as", metavar="MODEL", autocompletion=models, help="whose contract it is"),
    ] = "kimi-k2.7-code",
    engine_key_file: Annotated[
        Path | None,
        typer.Option("--engine-key-file", metavar="FILE", help="the key the engine asks for"),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1, max=4096, help="MiB of a request")] = 64,
    max_under_way: Annotated[int, typer.Option(min=1, help="requests at once, of all keys")] = 256,
    per_minute: Annotated[
        int | None, typer.Option(min=1, help="requests a minute, for each key")
    ] = None,
    memory: Annotated[
        int, typer.Option(min=0, max=65536, help="MiB of thoughts kept for repairs")
    ] = 64,
    certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="serve TLS with it")
    ] = None,
    private: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="the certificate's key")
    ] = None,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="a line for each answer; no content, no key")
    ] = False,
    profiles: ProfilesOpt = None,
) -> None:
    """Serve the door to the engine at URL until Ctrl-C or SIGTERM.

    Its own address goes to stdout. Paths that are not of the API answer 404, whatever the engine
    has there. Beyond loopback it wants --keys.
    """
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.guard import run as server  # noqa: PLC0415
    from kimideploy.guard.app import Settings  # noqa: PLC0415
    from kimideploy.guard.keys import read  # noqa: PLC0415

    if keys is None and not server.is_loopback(host):
        raise RequestError(
            f"--host {host} is reached from elsewhere, and nobody would be asked for a key",
            hint="kimideploy guard key NAME --keys guard.keys, then --keys guard.keys",
        )
    if (certificate is None) != (private is None):
        raise RequestError("--tls-certificate and --tls-key go together")
    contract, upstream, key = _contract(
        url, engine_key_file, model, profiles, missing=missing, sends=sends, reads=reads
    )
    settings = Settings(
        upstream=upstream,
        contract=contract,
        keys=read(keys) if keys is not None else None,
        key=key,
        limits=_limits(max_body, max_under_way, per_minute),
        memory=memory << 20,
        log=_log if access_log else None,
    )
    sock = server.listener(host, port)
    where = f"[{host}]" if ":" in host else host
    scheme = "https" if certificate is not None else "http"
    sys.stdout.write(f"{scheme}://{where}:{sock.getsockname()[1]}/v1\n")
    sys.stdout.flush()
    server.run(settings, sock, certificate=certificate, private=private)


@app.command(epilog=examples(EXAMPLES[:1]))
def key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="whose key it is")],
    *,
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="where hashes are kept")],
    remove: Annotated[bool, typer.Option("--remove", help="take the key away")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Make a key and print it, this once; only its hash is kept.

    A guard that runs reads its keys at its start: restart it.
    """
    from kimideploy.guard import keys as kept  # noqa: PLC0415

    if remove:
        kept.remove(keys, name)
        sys.stderr.write(f"{name} has no key any more; restart the guard\n")
        return
    made = kept.add(keys, name)
    if as_json:
        import json  # noqa: PLC0415

        sys.stdout.write(json.dumps({"name": name, "key": made, "file": str(keys)}) + "\n")
        return
    sys.stdout.write(f"{made}\n")
    sys.stderr.write(f"for {name}; its hash is in {keys}, and the key is shown this once\n")


@app.command(epilog=examples(EXAMPLES[3:]))
def unit(
    url: UrlArg,
    *,
    host: HostOpt = "127.0.0.1",
    port: PortOpt = 8080,
    keys: KeysOpt = None,
    missing: MissingOpt = "refuse",
    sends: SendsOpt = "both",
    reads: ReadsOpt = "auto",
) -> None:
    """Write a hardened systemd unit for a guard next to the engine's.

    To stdout: put it in /etc/systemd/system/kimideploy-guard.service, then
    `systemctl enable --now kimideploy-guard`.
    """
    from kimideploy.conformance.client import place  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.guard.run import is_loopback  # noqa: PLC0415
    from kimideploy.render.guard import guard_unit  # noqa: PLC0415

    if keys is None and not is_loopback(host):
        raise RequestError(f"--host {host} is reached from elsewhere: --keys FILE is needed")
    upstream = place(url)
    words = ["--host", host, "--port", str(port), "--missing", missing, "--sends", sends]
    words += ["--reads", reads]
    sys.stdout.write(
        guard_unit(
            program=_program(),
            upstream=upstream.url,
            words=words,
            port=port,
            keys=str(keys.expanduser().absolute()) if keys is not None else None,
            loopback=is_loopback(host) and is_loopback(upstream.host),
        )
    )


def _program() -> str:
    """The path of kimideploy itself, by which a unit starts it."""
    import shutil  # noqa: PLC0415

    beside = Path(sys.executable).with_name("kimideploy")
    return str(beside) if beside.exists() else shutil.which("kimideploy") or "kimideploy"


def _limits(max_body: int, max_under_way: int, per_minute: int | None) -> Limits:
    from kimideploy.guard.limits import Limits  # noqa: PLC0415

    return Limits(body=max_body << 20, under_way=max_under_way, per_minute=per_minute)


def _contract(
    url: str,
    key_file: Path | None,
    word: str,
    profiles: list[Path] | None,
    *,
    missing: Literal["refuse", "repair", "pass"],
    sends: str,
    reads: str,
) -> tuple[Contract, str, str | None]:
    """The contract of the model, the engine's address and its key."""
    from kimideploy.catalog.find import find_model  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.verifying import read_key  # noqa: PLC0415
    from kimideploy.conformance.client import Client  # noqa: PLC0415
    from kimideploy.conformance.promise import FIELDS  # noqa: PLC0415
    from kimideploy.guard.contract import Contract  # noqa: PLC0415

    model = find_model(load_catalog(user_overlays(profiles or ())), word)
    secret = read_key(key_file) if key_file is not None else None
    client = Client(url, key=secret)
    fields = {name: name for name in FIELDS}
    sampling = {"temperature": model.sampling.temperature, "top_p": model.sampling.top_p}
    contract = Contract(
        field=fields[reads] if reads in fields else _asked(client),
        sends=FIELDS if sends == "both" else (fields[sends],),  # type: ignore[index]
        missing=missing,
        tool_id=model.tool_id,
        sampling=tuple((name, value) for name, value in sampling.items() if value is not None),
        thinks=model.thinking.mode != "none",
    )
    return contract, client.url, secret


def _asked(client: object) -> Literal["reasoning", "reasoning_content"]:
    """The field the engine answers in: by one small request, or else vLLM's."""
    from kimideploy.conformance.client import Client, Unreachable  # noqa: PLC0415
    from kimideploy.errors import MachineError  # noqa: PLC0415
    from kimideploy.guard.field import field_of  # noqa: PLC0415

    assert isinstance(client, Client)  # noqa: S101
    try:
        found = field_of(client)
    except Unreachable as error:
        raise MachineError(
            f"{client.url} can't be asked which field it uses: {error}",
            hint="start the engine first, or say --reads reasoning (vLLM) or reasoning_content",
        ) from error
    sys.stderr.write(f"the engine answers in message.{found}\n")
    return found


def _log(method: str, path: str, status: int, seconds: float, owner: str) -> None:
    from kimideploy.views.terminal import tame  # noqa: PLC0415

    sys.stderr.write(f"{tame(method)} {tame(path)} {status} {seconds * 1000:.0f}ms {owner}\n")
