"""The options that say which hosts a command is for, and how they are reached."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from kimideploy.views.terminal import tame

if TYPE_CHECKING:
    from kimideploy.remote.access import Access
    from kimideploy.remote.bootstrap import Reached, Supply
    from kimideploy.remote.places import Place

HostOpt = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="USER@HOST", help="a machine to reach by SSH; once for each"),
]
SshOpt = Annotated[
    Literal["auto", "paramiko", "openssh"] | None,
    typer.Option(
        "--ssh", help="which SSH  [default: paramiko, or ssh where the configuration needs it]",
        show_default=False,
    ),
]  # fmt: skip
SshConfigOpt = Annotated[
    Path | None,
    typer.Option("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config"),
]
AcceptNewOpt = Annotated[
    bool,
    typer.Option("--accept-new-host-key", help="write down the key of a host not seen before"),
]
HostKeyOpt = Annotated[
    str | None,
    typer.Option("--host-key", metavar="SHA256:…", help="the only new key that is accepted"),
]
SudoFileOpt = Annotated[
    Path | None,
    typer.Option(
        "--sudo-password-file", metavar="FILE", help="the password of sudo, where it wants one"
    ),
]
ScopeOpt = Annotated[
    Literal["auto", "system", "user"] | None,
    typer.Option(
        "--scope", show_default=False,
        help="as root, or as a service of who logs in  [default: root where sudo is there]",
    ),
]  # fmt: skip
WheelhouseOpt = Annotated[
    Path | None,
    typer.Option(
        "--wheelhouse", metavar="DIR", help="packages to send to hosts that reach no index"
    ),
]
IndexOpt = Annotated[
    str | None,
    typer.Option("--index-url", metavar="URL", help="the package index that hosts use"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """Which hosts, and how they are reached."""

    host: HostOpt = None
    ssh: SshOpt = None
    ssh_config: SshConfigOpt = None
    accept_new_host_key: AcceptNewOpt = False
    host_key: HostKeyOpt = None
    sudo_password_file: SudoFileOpt = None
    scope: ScopeOpt = None
    wheelhouse: WheelhouseOpt = None
    index_url: IndexOpt = None

    @property
    def names(self) -> tuple[str, ...]:
        """The hosts that were named, by flags or by kimideploy.yaml; none: this machine."""
        return self.named(None)

    def named(self, config: Path | None) -> tuple[str, ...]:
        """The same, where another file than kimideploy.yaml may be the one that counts."""
        from kimideploy.cli.config import read_config  # noqa: PLC0415

        found = tuple(self.host or ()) or read_config(config)[0].hosts
        return tuple(dict.fromkeys(found))


def access_of(options: HostOptions) -> Access:
    """Return how hosts are reached as the options say; a person is asked only on a terminal."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.remote.access import Access, checked_fingerprint  # noqa: PLC0415

    config = options.ssh_config
    if config is not None and not config.is_file():
        raise RequestError(f"--ssh-config {config} is no file")
    is_there = sys.stdin.isatty() and sys.stderr.isatty()
    return Access(
        ssh=options.ssh or "auto",
        config=config.absolute() if config is not None else None,
        accept_new=options.accept_new_host_key,
        host_key=checked_fingerprint(options.host_key) if options.host_key is not None else None,
        ask=_trusted if is_there else None,
        password=_password if is_there else None,
        sudo_password=_secret(options.sudo_password_file),
    )


def supply_of(options: HostOptions) -> Supply:
    """Return where hosts get packages from."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.remote.bootstrap import Supply  # noqa: PLC0415

    if options.index_url is not None and "@" in options.index_url.partition("://")[2]:
        raise RequestError(
            "--index-url with a password would be read by every user of the host",
            hint="put it into the host's uv.toml or ~/.netrc",
        )
    wheels = options.wheelhouse
    if wheels is not None and not any(wheels.glob("*.whl")):
        raise RequestError(
            f"--wheelhouse {wheels} holds no wheels",
            hint="kimideploy weights bundle MODEL --wheelhouse -o DIR collects them",
        )
    return Supply(index=options.index_url, wheels=wheels)


def reaches(name: str, options: HostOptions, *, install: bool = True) -> partial[Reached]:
    """Return what connects to the host *name*, with kimideploy on it if *install*."""
    from kimideploy.remote.address import parse  # noqa: PLC0415
    from kimideploy.remote.bootstrap import reach  # noqa: PLC0415

    return partial(
        reach,
        parse(name),
        access_of(options),
        supply_of(options),
        scope=options.scope or "auto",
        note=noted,
        install=install,
    )


def places(options: HostOptions) -> list[Place]:
    """Return where the command acts: each host, reached, or this machine.

    Raises the error of the first host that can't be reached.
    """
    from kimideploy.errors import KimiError  # noqa: PLC0415
    from kimideploy.remote.places import Here, There, each  # noqa: PLC0415

    if not options.names:
        return [Here()]
    makers = {name: reaches(name, options) for name in options.names}
    found: list[Place] = []
    for name, result in zip(makers, each(list(makers.values()), lambda make: make()), strict=True):
        if isinstance(result, KimiError):
            raise result
        found.append(There(result, makers[name]))
    return found


def one_place(options: HostOptions) -> Place:
    """Return the one place of a command that is for one; RequestError for several."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if len(options.names) > 1:
        raise RequestError("this is asked of one host at a time", hint="--host with one of them")
    return places(options)[0]


def confirmed(question: str, *, yes: bool) -> None:
    """Return if a person on a terminal says yes, or --yes did; RequestError where nobody can."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise RequestError(f"{question}: nobody is here to say so", hint="--yes")
    if not _says_yes(f"{question} [y/N] "):
        raise typer.Abort


def noted(text: str) -> None:
    with suppress(OSError):
        sys.stderr.write(tame(f"note: {text}\n"))


#: one question at a time: an answer must be about what was read last
_PERSON = threading.Lock()


def _trusted(shown: str) -> bool:
    with _PERSON:
        return _says_yes(f"{shown}\nIs it the host's own? [y/N] ")


def _says_yes(question: str) -> bool:
    sys.stderr.write(tame(question))
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _password(prompt: str) -> str:
    import getpass  # noqa: PLC0415

    with _PERSON:
        try:
            return getpass.getpass(prompt, stream=sys.stderr)
        except EOFError as error:
            raise typer.Abort from error


def _secret(path: Path | None) -> str | None:
    from kimideploy.errors import RequestError  # noqa: PLC0415

    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"--sudo-password-file {path} can't be read: {error}") from error
    if mode & 0o077:
        raise RequestError(
            f"--sudo-password-file {path} can be read by others", hint=f"chmod 600 {path}"
        )
    if "\n" in text:
        raise RequestError(f"--sudo-password-file {path} has more than one line")
    return text
