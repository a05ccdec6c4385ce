"""Which commit and which files are meant: asked of the hub once, or known from an earlier pull."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin
from kimideploy.weights.events import Retried, Tell, Told
from kimideploy.weights.hub import Repository, find, items_of, offline, patiently
from kimideploy.weights.manifest import COMMIT, Item, Manifest, checked, read_manifest
from kimideploy.weights.retry import FIRST, Pause, Trouble
from kimideploy.weights.selection import Wanted, select
from kimideploy.weights.source import Watch
from kimideploy.weights.store import Staging, commit_of
from kimideploy.weights.structure import index_of
from kimideploy.weights.wire import Wire

_MOST_READ = 256 << 20
_WORKERS, _STALL = 8, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How a pull is done. `rate` is bytes per second, `stall` the seconds of a silent stream."""

    workers: int = _WORKERS
    rate: float | None = None
    stall: float = _STALL
    xet: bool = True
    #: seconds before the second try; each further wait is twice as long
    backoff: float = FIRST
    offline: bool = field(default_factory=offline)
    #: folders whose files are taken over where they are right
    adopt: tuple[Path, ...] = ()
    #: take code that differs from what was accepted before
    accept_code: bool = False
    #: what is known already, from a trusted source, of commits that a hub need not be asked about
    manifests: tuple[Manifest, ...] = ()


class Line:
    """What reaches the hub, made when it is first needed and never in an offline run."""

    def __init__(self, ways: Ways, tell: Tell = lambda _: None) -> None:
        self.ways, self.tell = ways, tell
        self.stop = threading.Event()
        self.pause = Pause(
            self.stop,
            ways.backoff,
            lambda what, why, wait: tell(Retried(path=what, why=why, wait=wait)),
        )

    def repository(self, repo: str, revision: str | None) -> Repository:
        if self.ways.offline:
            raise _forbidden(repo)
        return find(repo, revision, self.pause)

    @contextmanager
    def wire(self, repository: Repository) -> Iterator[Wire]:
        wire = Wire(repository, self.pause, timeout=self.ways.stall)
        try:
            yield wire
        finally:
            wire.close()


def resolve(wanted: Wanted, ways: Ways) -> Manifest:
    """Return the manifest of *wanted* as the hub tells it now, checked.

    Raises WeightsError for what the hub refuses or lacks, and for names that could do harm.
    """
    line = Line(ways)
    return found(wanted, line, line.repository(wanted.repo, wanted.revision))


def pinned(
    wanted: Wanted, ways: Ways, tell: Tell = lambda _: None
) -> tuple[str, tuple[CodePin, ...]]:
    """Return the commit that *wanted* is now, and the sha256 of each file of code in it."""
    line = Line(ways, tell)
    repository = line.repository(wanted.repo, wanted.revision)
    manifest = found(wanted, line, repository)
    with line.wire(repository) as wire:
        pins = tuple(
            CodePin(item.path, sha256(_read(item, wire, line)).hexdigest())
            for item in sorted(manifest.code, key=lambda item: item.path)
        )
    return manifest.revision, pins


def found(wanted: Wanted, line: Line, repository: Repository) -> Manifest:
    items = items_of(repository, line.pause)
    with line.wire(repository) as wire:
        chosen = select(items, wanted, lambda item: _index(item, wire, line))
    return checked(Manifest(wanted.repo, repository.revision, chosen, wanted.quant))


def _index(item: Item, wire: Wire, line: Line) -> frozenset[str]:
    """Return the shards that the index names."""
    return frozenset(index_of(_read(item, wire, line)).values())


def _read(item: Item, wire: Wire, line: Line) -> bytes:
    """Return the bytes of a small file, proved."""
    if item.size > _MOST_READ:
        raise WeightsError(f"{item.path} takes {item.size:,} bytes, which is no file of its kind")
    watch = Watch(line.ways.stall)
    watch.start()

    def once() -> bytes:
        small = _Small(item.size)
        body = wire.open(item, 0, item.size)
        try:
            watch.over(body, small, small.take)
        finally:
            body.close()
        hasher = item.hasher()
        hasher.update(small.data)
        if hasher.hexdigest() != item.digest:
            raise Trouble("its hash is not the hub's")
        return bytes(small.data)

    try:
        return patiently(item.path, once, item.path, line.pause)
    finally:
        watch.end()


class _Small:
    """A file that fits into memory, as it comes."""

    def __init__(self, size: int) -> None:
        self.data, self.end = bytearray(), size

    @property
    def at(self) -> int:
        """Where the next byte belongs."""
        return len(self.data)

    def take(self, piece: memoryview) -> None:
        """Add the next bytes."""
        self.data += piece


def planned(wanted: Wanted, folder: Path, line: Line) -> Manifest:
    """Return the manifest that a pull of *wanted* into *folder* ends with.

    A commit that is named, begun or, offline, the only one there, is known without the hub where an
    earlier pull has written its manifest; otherwise the hub tells it now.
    """
    given = _given(wanted, line.ways)
    if given is not None:
        return given
    revision = _revision(wanted, folder, line.ways, line.tell)
    return _known(folder, wanted, revision) or _asked(wanted, folder, revision, line)


def known(wanted: Wanted, folder: Path, ways: Ways) -> Manifest | None:
    """Return that manifest where the hub need not be asked, None where it must be.

    Raises WeightsError where it may not be asked, either.
    """
    given = _given(wanted, ways)
    if given is not None:
        return given
    found = _known(folder, wanted, _revision(wanted, folder, ways, lambda _: None))
    if found is None and ways.offline:
        raise _forbidden(wanted.repo)
    return found


def _given(wanted: Wanted, ways: Ways) -> Manifest | None:
    """Return the manifest of *wanted* that came along with the order to pull it."""
    return next(
        (
            checked(one)
            for one in ways.manifests
            if (one.repo, one.quant) == (wanted.repo, wanted.quant)
            # Why not only None: a branch is what whoever gave the manifest took it for.
            and (not COMMIT.fullmatch(wanted.revision or "") or wanted.revision == one.revision)
            and {*wanted.beside} <= {item.path for item in one.items}
        ),
        None,
    )


def _revision(wanted: Wanted, folder: Path, ways: Ways, tell: Tell) -> str | None:
    """Return the commit that is meant, None where only the hub can tell."""
    revision = wanted.revision
    if revision is None or not COMMIT.fullmatch(revision):
        return _begun(folder, wanted, tell) or _published(folder, wanted, ways)
    return revision


def _forbidden(repo: str) -> WeightsError:
    return WeightsError(
        f"only the hub has {repo}, and --offline or HF_HUB_OFFLINE forbids to ask it",
        hint="pull without it once, or `kimideploy weights unbundle` a bundle",
    )


def _begun(folder: Path, wanted: Wanted, tell: Tell) -> str | None:
    """Return the commit of a pull of the same branch that has not ended: it is gone on with."""
    for path in sorted(folder.glob(".*.pull/asked")):
        revision = commit_of(path.parent)
        try:
            same = path.read_text(encoding="utf-8") == (wanted.revision or "")
        except (OSError, UnicodeDecodeError):
            continue
        if same and COMMIT.fullmatch(revision) and not (folder / revision).exists():
            tell(
                Told(
                    text=f"going on with commit {revision[:12]}, which a pull has begun;"
                    " --revision COMMIT names another"
                )
            )
            return revision
    return None


def _published(folder: Path, wanted: Wanted, ways: Ways) -> str | None:
    """Return the one commit that is there, where the hub may not be asked for the newest."""
    if not ways.offline or wanted.revision is not None:
        return None
    commits = [p.name for p in folder.glob("*") if COMMIT.fullmatch(p.name) and p.is_dir()]
    if len(commits) > 1:
        raise WeightsError(
            f"{folder} holds {len(commits)} commits, and offline none is the newest",
            hint=f"--revision {min(commits)}",
        )
    return commits[0] if commits else None


def _known(folder: Path, wanted: Wanted, revision: str | None) -> Manifest | None:
    """Return the manifest that an earlier pull of *revision* wrote, if it holds what is wanted."""
    if revision is None:
        return None
    final = folder / revision
    for place in (final, Staging(final).files):
        manifest = read_manifest(place)
        if manifest is None:
            continue
        if (manifest.repo, manifest.revision) != (wanted.repo, revision):
            raise WeightsError(f"{place} says it is {manifest.repo} at {manifest.revision[:12]}")
        if {*wanted.beside} <= {item.path for item in manifest.items}:
            return manifest
    return None


def _asked(wanted: Wanted, folder: Path, revision: str | None, line: Line) -> Manifest:
    """Return the hub's manifest; where it can't be had, say what is here all the same."""
    try:
        return found(wanted, line, line.repository(wanted.repo, revision or wanted.revision))
    except WeightsError as error:
        here = [kept.name for kept in folder.glob("*") if COMMIT.fullmatch(kept.name)]
        if wanted.revision is not None or len(here) != 1 or line.ways.offline:
            raise
        raise WeightsError(
            error.message, hint=f"commit {here[0][:12]} is here: --offline takes it as it is"
        ) from error
