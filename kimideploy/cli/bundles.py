"""`kimideploy weights bundle` and `unbundle`: weights for a machine without a network."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from kimideploy.cli.kept import kept
from kimideploy.cli.options import JsonOpt, amount, folder
from kimideploy.cli.pull import AcceptOpt, RevisionOpt, ToOpt

BUNDLE = [
    "kimideploy weights bundle moonshotai/Kimi-K2.7-Code -o /mnt/disk",
    "kimideploy weights bundle ORG/NAME -o . --split 4GB --wheelhouse",
]
UNBUNDLE = [
    "kimideploy weights unbundle /mnt/disk",
    "kimideploy weights unbundle Kimi-K2.7-Code-0123456789ab.sha256 --to /data",
]
#: bytes of a volume: what most file systems and object stores take, in a number that can be copied
_VOLUME = 10_000_000_000


def bundle(
    which: Annotated[
        str, typer.Argument(metavar="MODEL_REPO_OR_FOLDER", help="weights that a pull fetched")
    ],
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", parser=folder, help="where the volumes go"),
    ],
    split: Annotated[
        int | None,
        typer.Option(
            "--split", metavar="SIZE", parser=amount, help="bytes of one volume  [default: 10GB]"
        ),
    ] = None,
    wheelhouse: Annotated[
        bool, typer.Option("--wheelhouse", help="add the wheels that kimideploy needs")
    ] = False,
    to: ToOpt = None,
    revision: RevisionOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Write weights as a tar in volumes, with checksums.

    Every byte is read and proved first. Run again, it goes on after the last volume that was
    finished. `unbundle` takes it where there is no network; so do `cat NAME.tar.* | tar x` and
    `sha256sum -c`.
    """
    from kimideploy.apply.interrupts import interrupts  # noqa: PLC0415
    from kimideploy.apply.wheelhouse import collect, install  # noqa: PLC0415
    from kimideploy.errors import WeightsError  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.pull import shown  # noqa: PLC0415
    from kimideploy.weights import bundle as tar  # noqa: PLC0415
    from kimideploy.weights.events import Told, Verified  # noqa: PLC0415
    from kimideploy.weights.tape import name_of  # noqa: PLC0415
    from kimideploy.weights.verify import verify as look  # noqa: PLC0415

    ((weights, manifest),) = kept(which, to, revision)
    size = split if split is not None else _VOLUME
    tar.check(weights, output, split=size)
    with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
        caught.allow()
        # Why first: it needs a network, and is over in a minute.
        wheels = collect(output / "wheelhouse") if wheelhouse else []
        # Why every byte: what is wrong in it is found where nobody can fetch it again.
        for event in look(weights, manifest, full=True):
            tell(event)
            if isinstance(event, Verified) and not event.ok:
                raise WeightsError(
                    f"{weights} is not bundled: it is not what its manifest says",
                    hint=f"kimideploy weights verify {shlex.quote(str(weights))} --repair",
                )
        tar.bundle(weights, manifest, output, split=size, tell=tell)
        if wheels:
            tar.add(manifest, output, wheels)
            tell(Told(text=f"on the other side: {install(output)}"))
    if not as_json:
        sys.stdout.write(f"{output / name_of(manifest)}.sha256\n")


def unbundle(
    where: Annotated[
        Path, typer.Argument(metavar="DIR_OR_FILE", help="the bundle's folder or .sha256 file")
    ],
    *,
    to: ToOpt = None,
    accept_code: AcceptOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Unpack a bundle and prove every file of it.

    No request is sent. A damaged volume is named, and only what is in it is asked for again.
    """
    from kimideploy.apply.interrupts import interrupts  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.pull import shown  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415
    from kimideploy.weights.unbundle import unbundle as run  # noqa: PLC0415

    with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
        caught.allow()
        weights, _ = run(where, root(to), accept_code=accept_code, tell=tell)
    if not as_json:
        sys.stdout.write(f"{weights}\n")
