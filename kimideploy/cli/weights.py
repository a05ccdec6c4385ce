"""`kimideploy weights`: what is on this machine, whether it is right, and how it travels."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kimideploy.cli import bundles
from kimideploy.cli.help import examples
from kimideploy.cli.kept import kept
from kimideploy.cli.options import JsonOpt, ProfilesOpt
from kimideploy.cli.pull import FilesOpt, OfflineOpt, RevisionOpt, ToOpt

if TYPE_CHECKING:
    from kimideploy.weights.manifest import Manifest
    from kimideploy.weights.resolve import Ways
    from kimideploy.weights.selection import Wanted

EXAMPLES = [
    "kimideploy weights list --code",
    "kimideploy weights verify --full",
    "kimideploy weights bundle moonshotai/Kimi-K2.7-Code -o /mnt/disk",
]
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, verify, bundle and remove the weights on this machine.",
)
app.command(epilog=examples(bundles.BUNDLE))(bundles.bundle)
app.command(epilog=examples(bundles.UNBUNDLE))(bundles.unbundle)
WhichArg = Annotated[
    str | None,
    typer.Argument(metavar="MODEL_REPO_OR_FOLDER", help="what a pull fetched, or any folder"),
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

    # Why always for programs: an empty list would say that there is none.
    found = listing(root(to), with_code=code or as_json, measure=speed)
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
    from kimideploy.weights.verify import damaged  # noqa: PLC0415
    from kimideploy.weights.verify import verify as look  # noqa: PLC0415

    options = ways(offline=offline)
    if repo is not None:
        from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
        from kimideploy.weights.wanted import of_repository  # noqa: PLC0415

        catalog = load_catalog(user_overlays(profiles or ()))
        folders = [_claimed(which, of_repository(catalog, repo, revision, files), options)]
    else:
        folders = kept(which, to, revision)
    ok, bad = True, None
    with interrupts() as caught, shown(out, err, as_json=as_json) as tell:
        caught.allow()
        for folder, manifest in folders:
            right = True
            # Why every byte: a record that lies in somebody's folder is theirs.
            for event in look(folder, manifest, full=full or repo is not None):
                tell(event)
                right = event.ok if isinstance(event, Verified) else right
            broken = damaged(folder, manifest) if not right else []
            if broken and repair:
                mend(folder, manifest, broken, options, tell)
                right = True
                for event in look(folder, manifest):
                    tell(event)
                    right = event.ok if isinstance(event, Verified) else right
            elif broken:
                bad = folder
            ok = ok and right
    if bad is not None and not as_json:
        words = f"{shlex.quote(str(bad))}{f' --repo {repo}' if repo is not None else ''}"
        sys.stderr.write(f"\nhint: kimideploy weights verify {words} --repair\n")
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

    What someone pulls right now stays, and what a release of this host serves from. On a terminal
    it asks first; elsewhere it wants --yes.
    """
    import json  # noqa: PLC0415

    from kimideploy.apply.release import weights_in_use  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.quantities import decimal  # noqa: PLC0415
    from kimideploy.views.terminal import tame  # noqa: PLC0415
    from kimideploy.weights.listing import prunable, remove  # noqa: PLC0415
    from kimideploy.weights.store import root  # noqa: PLC0415

    found = prunable(root(to), old=old, in_use=weights_in_use())
    if not as_json:
        for folder, size in found.going:
            sys.stdout.write(f"{decimal(size):>9}  {tame(str(folder))}\n")
        for folder in found.busy:
            sys.stderr.write(f"note: {tame(str(folder))} stays: a pull is under way\n")
        for folder, who in found.used:
            sys.stderr.write(f"note: {tame(str(folder))} stays: {who} serves from it\n")
    ask = bool(found.going) and not dry_run and not yes
    if ask and not sys.stdin.isatty():
        raise RequestError(
            f"{decimal(found.freed)} would go, and nobody is here to be asked",
            hint="--yes removes them",
        )
    if ask and not typer.confirm(f"remove these {decimal(found.freed)}?", err=True):
        sys.stderr.write("nothing was removed\n")
        raise typer.Exit(1)
    if not dry_run:
        for folder, _ in found.going:
            remove(folder)
    if as_json:
        document = {
            "removed": not dry_run,
            "bytes": found.freed,
            "folders": [{"folder": str(folder), "bytes": size} for folder, size in found.going],
            "busy": [str(folder) for folder in found.busy],
            "used": {str(folder): who for folder, who in found.used},
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stderr.write(f"{decimal(found.freed)} {'would go' if dry_run else 'removed'}\n")


def _claimed(which: str | None, wanted: Wanted, options: Ways) -> tuple[Path, Manifest]:
    """Return a folder, and the manifest of the repository that it is said to be of."""
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights.resolve import resolve  # noqa: PLC0415

    if which is None or not Path(which).is_dir():
        raise RequestError("--repo says what a folder is of: name the folder")
    return Path(which).absolute(), resolve(wanted, options)
