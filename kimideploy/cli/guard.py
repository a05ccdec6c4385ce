"""`kimideploy guard`: the only door to an engine, which keeps the reasoning contract."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kimideploy.cli.completion import models
from kimideploy.cli.help import examples
from kimideploy.cli.options import JsonOpt, ProfilesOpt, takes

if TYPE_CHECKING:
    from kimideploy.conformance.client import Client
    from kimideploy.guard.contract import Contract

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


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """What a guard is told, by hand or by its unit."""

    host: Annotated[str, typer.Option("--host", help="where it listens")] = "127.0.0.1"
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one")] = 8080
    keys: Annotated[
        Path | None,
        typer.Option("--keys", metavar="FILE", help="who may ask: names, and hashes of keys"),
    ] = None
    missing: Annotated[
        Literal["refuse", "repair", "pass"],
        typer.Option(
            "--missing",
            help="a tool call without its reasoning: refuse it, repair it from memory, or pass it",
        ),
    ] = "refuse"
    sends: Annotated[
        Literal["both", "reasoning", "reasoning_content"],
        typer.Option("--sends", help="the field clients get the reasoning in"),
    ] = "both"
    reads: Annotated[
        Literal["auto", "reasoning", "reasoning_content"],
        typer.Option("--reads", help="the field the engine uses; auto asks it once, at the start"),
    ] = "auto"
    model: Annotated[
        str,
        typer.Option("--as", metavar="MODEL", autocompletion=models, help="whose contract it is"),
    ] = "kimi-k2.7-code"
    engine_key_file: Annotated[
        Path | None,
        typer.Option("--engine-key-file", metavar="FILE", help="the key the engine asks for"),
    ] = None
    max_body: Annotated[
        int, typer.Option("--max-body", min=1, max=1024, help="MiB of a request")
    ] = 16
    max_under_way: Annotated[
        int, typer.Option("--max-under-way", min=1, help="requests at once, of all keys")
    ] = 256
    per_minute: Annotated[
        int | None, typer.Option("--per-minute", min=1, help="requests a minute, for each key")
    ] = None
    silence: Annotated[
        float, typer.Option("--silence", min=1, help="seconds the engine may say nothing")
    ] = 600
    memory: Annotated[
        int, typer.Option("--memory", min=0, max=65536, help="MiB of thoughts kept for repairs")
    ] = 64
    tls_certificate: Annotated[
        Path | None, typer.Option("--tls-certificate", metavar="FILE", help="serve TLS with it")
    ] = None
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="the certificate's key")
    ] = None
    access_log: Annotated[
        bool, typer.Option("--access-log", help="a line for each answer; no content, no key")
    ] = False

    def check(self) -> None:
        """Raise RequestError for words that do not go together; warn of keys without TLS."""
        from kimideploy.errors import RequestError  # noqa: PLC0415
        from kimideploy.guard.listen import is_loopback  # noqa: PLC0415

        if (self.tls_certificate is None) != (self.tls_key is None):
            raise RequestError("--tls-certificate and --tls-key go together")
        if is_loopback(self.host):
            return
        if self.keys is None:
            raise RequestError(
                f"--host {self.host} is reached from elsewhere, nobody would be asked for a key",
                hint="kimideploy guard key NAME --keys guard.keys, then --keys guard.keys",
            )
        if self.tls_certificate is None:
            sys.stderr.write("note: without --tls-certificate keys travel in the clear\n")

    def words(self) -> tuple[list[str], dict[str, str]]:
        """Return the words that differ from the usual, and flag → path of those that are files."""
        words = ["--host", self.host, "--port", str(self.port)]
        files: dict[str, str] = {}
        for field in dataclasses.fields(self):
            flag = "--as" if field.name == "model" else f"--{field.name.replace('_', '-')}"
            value = getattr(self, field.name)
            if value == field.default or field.name in ("host", "port"):
                continue
            if isinstance(value, Path):
                files[flag] = str(value.expanduser().absolute())
            else:
                words += [flag] if value is True else [flag, str(value)]
        return words, files


@app.command(epilog=examples(EXAMPLES[1:3]))
@takes(GuardOptions)
def run(url: UrlArg, *, options: GuardOptions, profiles: ProfilesOpt = None) -> None:
    """Serve the door to the engine at URL until Ctrl-C or SIGTERM.

    Its own address goes to stdout. Paths that are not of the API answer 404, whatever the engine
    has there. Beyond loopback it wants --keys.
    """
    from kimideploy.guard import listen  # noqa: PLC0415
    from kimideploy.guard import run as server  # noqa: PLC0415
    from kimideploy.guard.app import Settings  # noqa: PLC0415
    from kimideploy.guard.keys import read  # noqa: PLC0415
    from kimideploy.guard.limits import Limits  # noqa: PLC0415

    options.check()
    contract, upstream, key = _contract(url, options, profiles)
    settings = Settings(
        upstream=upstream,
        contract=contract,
        keys=read(options.keys) if options.keys is not None else None,
        key=key,
        limits=Limits(
            body=options.max_body << 20,
            under_way=options.max_under_way,
            per_minute=options.per_minute,
            silence=options.silence,
        ),
        memory=options.memory << 20,
        log=_log if options.access_log else None,
    )
    sock = listen.listener(options.host, options.port)
    made = server.server(settings, certificate=options.tls_certificate, private=options.tls_key)
    where = f"[{options.host}]" if ":" in options.host else options.host
    scheme = "https" if options.tls_certificate is not None else "http"
    sys.stdout.write(f"{scheme}://{where}:{sock.getsockname()[1]}/v1\n")
    sys.stdout.flush()
    server.run(made, sock)


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
@takes(GuardOptions)
def unit(url: UrlArg, *, options: GuardOptions) -> None:
    """Write a hardened systemd unit for a guard next to the engine's.

    To stdout: put it in /etc/systemd/system/kimideploy-guard.service, then
    `systemctl enable --now kimideploy-guard`. Files are handed over as credentials.
    """
    from kimideploy.conformance.client import place  # noqa: PLC0415
    from kimideploy.guard.listen import is_loopback  # noqa: PLC0415
    from kimideploy.render.guard import guard_unit  # noqa: PLC0415

    options.check()
    upstream = place(url)
    words, files = options.words()
    sys.stdout.write(
        guard_unit(
            program=_program(),
            python=(str(Path(sys.executable).resolve()), sys.base_prefix),
            upstream=upstream.url,
            words=words,
            files=files,
            port=options.port,
            loopback=is_loopback(options.host) and is_loopback(upstream.host),
        )
    )


def _program() -> str:
    """The path of kimideploy itself, by which a unit starts it."""
    import shutil  # noqa: PLC0415

    beside = Path(sys.executable).with_name("kimideploy")
    return str(beside) if beside.exists() else shutil.which("kimideploy") or "kimideploy"


def _contract(
    url: str, options: GuardOptions, profiles: list[Path] | None
) -> tuple[Contract, str, str | None]:
    """The contract of the model, the engine's address and its key."""
    from kimideploy.catalog.find import find_model  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli.verifying import read_key  # noqa: PLC0415
    from kimideploy.conformance.client import Client  # noqa: PLC0415
    from kimideploy.conformance.promise import FIELDS  # noqa: PLC0415
    from kimideploy.guard.contract import Contract  # noqa: PLC0415

    model = find_model(load_catalog(user_overlays(profiles or ())), options.model)
    secret = read_key(options.engine_key_file) if options.engine_key_file is not None else None
    client = Client(url, key=secret)
    sampling = {"temperature": model.sampling.temperature, "top_p": model.sampling.top_p}
    contract = Contract(
        field=_asked(client) if options.reads == "auto" else options.reads,
        sends=FIELDS if options.sends == "both" else (options.sends,),
        missing=options.missing,
        tool_id=model.tool_id,
        sampling=tuple((name, value) for name, value in sampling.items() if value is not None),
        thinks=model.thinking.mode != "none",
        switchable=model.thinking.mode == "switchable",
    )
    return contract, client.url, secret


def _asked(client: Client) -> Literal["reasoning", "reasoning_content"]:
    """The field the engine answers in: by one small request, or else vLLM's."""
    from kimideploy.conformance.client import Unreachable  # noqa: PLC0415
    from kimideploy.errors import MachineError  # noqa: PLC0415
    from kimideploy.guard.field import field_of  # noqa: PLC0415

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
