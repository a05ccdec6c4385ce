"""`kimideploy weights`: what is on this machine, whether it is right, and how it travels."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli.help import examples
from kimideploy.cli.options import JsonOpt, ProfilesOpt, amount
from kimideploy.cli.pull import AcceptOpt, FilesOpt, OfflineOpt, RevisionOpt, ToOpt

if TYPE_CHECKING:
    from kimideploy.weights.manifest import Manifest
    from kimideploy.weights.resolve import Ways
    from kimideploy.weights.selection import Wanted

EXAMPLES = [
    "kimideploy weights list --code",
    "kimideploy weights verify --full",
    "kimideploy weights bundle moonshotai/Kimi-K2.7-Code -o /mnt/disk",
]
#: bytes of a volume: what most file systems and object stores take, in a number that can be copied
_VOLUME = 10_000_000_000
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, verify, bundle and remove the weights on this machine.",
)
WhichArg = Annotated[
    str | None,
    typer.Argument(metavar="REPO_OR_FOLDER", help="what a pull fetched, or any folder of weights"),
]


@app.command(
    "list",
    epilog=examples(["kimideploy weights list", "kimideploy weights list --speed --code"]),
)
def list_weights(
    *,
    to: ToOpt = None,
    code: Annotated[
        bool, typer.Option("--code", help="the code that engines run, with its hashes")
    ] = False,
    speed: Annotated[
        bool, typer.Option("--speed", help="read some seconds from each, past the page cache")
    ] = False,
    as_json: JsonOpt = False,
) -> None:
    """List the weights on this machine."""
    from kimideploy.planning.types import encode  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415
    from kimideploy.views.weights import listed  # noqa: PLC0415
    from kimideploy.weights.listing import listing  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415

    found = listing(root(to), with_code=code, measure=speed)
    text = encode(found).decode() if as_json else listed(found, terminal(sys.stdout), code=code)
    sys.stdout.write(text)


@app.command(
    epilog=examples(
        [
            "kimideploy weights verify",
            "kimideploy weights verify moonshotai/Kimi-K2.7-Code --full --repair",
            "kimideploy weights verify /srv/Kimi --repo moonshotai/Kimi-K2.7-Code",
        ]
    ),
)
def verify(
    which: WhichArg = None,
    *,
    to: ToOpt = None,
    repo: Annotated[
        str | None,
        typer.Option("--repo", metavar="ORG/NAME", help="what a folder without a manifest is of"),
    ] = None,
    revision: RevisionOpt = None,
    files: FilesOpt = None,
    full: Annotated[
        bool, typer.Option("--full", help="read every byte, also of what has not changed")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="fetch again what is damaged, and nothing else")
    ] = False,
    offline: OfflineOpt = False,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Prove the bytes of weights again.

    Hashes, and the headers against the index. The exit code is 1 when something is wrong and
    stays so.
    """
    from kimideploy.apply.interrupts import interrupts  # noqa: PLC0415
    from kimideploy.cli.pull import ways  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.pull import shown  # noqa: PLC0415
    from kimideploy.weights.events import Verified  # noqa: PLC0415
    from kimideploy.weights.pull import repair as mend  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415
    from kimideploy.weights.verify import damaged  # noqa: PLC0415
    from kimideploy.weights.verify import verify as look  # noqa: PLC0415

    options = ways(offline=offline)
    if repo is not None:
        from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
        from kimideploy.weights.wanted import of_repository  # noqa: PLC0415

        catalog = load_catalog(user_overlays(profiles or ()))
        folders = [_claimed(which, of_repository(catalog, repo, revision, files), options)]
    else:
        folders = _kept(root(to), which, revision)
    ok = True
    with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
        caught.allow()
        for folder, manifest in folders:
            right = True
            for event in look(folder, manifest, full=full):
                tell(event)
                right = event.ok if isinstance(event, Verified) else right
            if not right and repair:
                mend(folder, manifest, damaged(folder, manifest), options, tell)
                right = True
                for event in look(folder, manifest):
                    tell(event)
                    right = event.ok if isinstance(event, Verified) else right
            ok = ok and right
    if not ok:
        raise typer.Exit(1)


@app.command(
    epilog=examples(["kimideploy weights prune --dry-run", "kimideploy weights prune --old --yes"]),
)
def prune(
    *,
    to: ToOpt = None,
    old: Annotated[
        bool, typer.Option("--old", help="also every commit but the one published last")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would go")] = False,
    as_json: JsonOpt = False,
) -> None:
    """Remove pulls that were never finished.

    What someone pulls right now stays. On a terminal it asks first; elsewhere it wants --yes.
    """
    import json  # noqa: PLC0415

    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.quantities import decimal  # noqa: PLC0415
    from kimideploy.weights.listing import disk_of, prunable, remove  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415

    going = [(folder, disk_of(folder)) for folder in prunable(root(to), old=old)]
    total = sum(size for _, size in going)
    if not as_json:
        for folder, size in going:
            sys.stdout.write(f"{decimal(size):>9}  {folder}\n")
    ask = bool(going) and not dry_run and not yes
    if ask and not sys.stdin.isatty():
        raise RequestError(
            f"{decimal(total)} would go, and nobody is here to be asked", hint="--yes removes them"
        )
    if ask:
        typer.confirm(f"remove these {decimal(total)}?", abort=True, err=True)
    if not dry_run:
        for folder, _ in going:
            remove(folder)
    if as_json:
        rows = [{"folder": str(folder), "bytes": size} for folder, size in going]
        document = {"removed": not dry_run, "bytes": total, "folders": rows}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stderr.write(f"{decimal(total)} {'would go' if dry_run else 'removed'}\n")


@app.command(
    epilog=examples(
        [
            "kimideploy weights bundle moonshotai/Kimi-K2.7-Code -o /mnt/disk",
            "kimideploy weights bundle ORG/NAME -o . --split 4GB --wheelhouse",
        ]
    ),
)
def bundle(
    which: Annotated[
        str, typer.Argument(metavar="REPO_OR_FOLDER", help="weights that a pull fetched")
    ],
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="where the volumes go")
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
    from kimideploy.errors import WeightsError  # noqa: PLC0415
    from kimideploy.views.console import err, out  # noqa: PLC0415
    from kimideploy.views.pull import shown  # noqa: PLC0415
    from kimideploy.weights import bundle as tar  # noqa: PLC0415
    from kimideploy.weights.events import Verified  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415
    from kimideploy.weights.tape import name_of  # noqa: PLC0415
    from kimideploy.weights.verify import verify as look  # noqa: PLC0415

    ((folder, manifest),) = _kept(root(to), which, revision)
    with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
        caught.allow()
        # Why every byte: what is wrong in it is found where nobody can fetch it again.
        for event in look(folder, manifest, full=True):
            tell(event)
            if isinstance(event, Verified) and not event.ok:
                raise WeightsError(
                    f"{folder} is not bundled: it is not what its manifest says",
                    hint=f"kimideploy weights verify {which} --repair",
                )
        volumes = tar.bundle(folder, manifest, output, split=split or _VOLUME, tell=tell)
        if wheelhouse:
            from kimideploy.apply.wheelhouse import collect  # noqa: PLC0415

            tar.add(manifest, output, collect(output / "wheelhouse"))
    if not as_json:
        sys.stdout.write(f"{volumes[0].parent / name_of(manifest)}.sha256\n")


@app.command(
    epilog=examples(
        [
            "kimideploy weights unbundle /mnt/disk",
            "kimideploy weights unbundle /mnt/disk/Kimi-K2.7-Code.sha256 --to /data",
        ]
    ),
)
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
        folder, _ = run(where, root(to), accept_code=accept_code, tell=tell)
    if not as_json:
        sys.stdout.write(f"{folder}\n")


def _kept(top: Path, which: str | None, revision: str | None) -> list[tuple[Path, Manifest]]:
    """Return the complete folders that *which* names, all of the store where it names none."""
    from kimideploy.errors import RequestError, WeightsError  # noqa: PLC0415
    from kimideploy.weights.manifest import read_manifest  # noqa: PLC0415
    from kimideploy.weights.store import every  # noqa: PLC0415

    if which is not None and Path(which).is_dir():
        folder = Path(which).absolute()
        manifest = read_manifest(folder)
        if manifest is None:
            raise WeightsError(
                f"{folder} has no manifest to verify it by",
                hint="--repo ORG/NAME --revision COMMIT names what it should be",
            )
        return [(folder, manifest)]
    found = [
        (kept.folder, kept.manifest)
        for kept in every(top)
        if kept.complete
        and which in (None, kept.manifest.repo, f"{kept.manifest.repo}/{kept.manifest.quant}")
        and kept.manifest.revision.startswith(revision or "")
    ]
    if not found:
        raise RequestError(
            f"{which or 'nothing'} is not in {top}" if which else f"{top} holds no weights",
            hint="kimideploy weights list",
        )
    if which is not None and len(found) > 1:
        some = ", ".join(manifest.revision[:12] for _, manifest in found)
        if revision is None:
            raise RequestError(f"{which} is there {len(found)} times: {some}", hint="--revision")
    return found


def _claimed(which: str | None, wanted: Wanted, options: Ways) -> tuple[Path, Manifest]:
    """Return a folder, and the manifest of the repository that it is said to be of."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights.resolve import resolve  # noqa: PLC0415

    if which is None or not Path(which).is_dir():
        raise RequestError("--repo says what a folder is of: name the folder")
    return Path(which).absolute(), resolve(wanted, options)
