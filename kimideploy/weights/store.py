"""Where weights lie: ROOT/ORG/NAME[/QUANT]/COMMIT, complete or absent.

A folder in the making is `.COMMIT.pull` beside its later name: `files` for what is proved, `parts`
for what is on its way. One rename publishes it. Its lock dies with whoever holds it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import platformdirs

from kimideploy.engines.site import MODELS
from kimideploy.errors import BusyError, KimiError, MachineError, RequestError, WeightsError
from kimideploy.files import sync, write_whole
from kimideploy.weights.manifest import COMMIT, MANIFEST, OWN, Manifest, encode, read_manifest

#: names the folder of all weights
VARIABLE = "KIMIDEPLOY_MODELS"
_PULL = ".pull"


def root(named: Path | None = None) -> Path:
    """Return the folder of all weights: *named*, KIMIDEPLOY_MODELS, or the usual one."""
    told = named if named is not None else os.environ.get(VARIABLE)
    if told:
        top = Path(told).expanduser().absolute()
        if top.exists() and not top.is_dir():
            raise RequestError(
                f"{top} is no folder",
                hint=f"--to or {VARIABLE} names the folder of all weights",
            )
        return top
    if os.access(MODELS, os.W_OK) or os.geteuid() == 0:
        return Path(MODELS)
    return Path(platformdirs.user_data_dir("kimideploy")) / "models"


def home(top: Path, repo: str, quant: str | None) -> Path:
    """Return the folder that holds the commits of one checkpoint."""
    folder = top / repo
    return folder / quant if quant is not None else folder


@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of weights in the store."""

    folder: Path
    manifest: Manifest
    #: False: a pull that has not ended
    complete: bool


def every(top: Path) -> list[Kept]:
    """Return all that the store holds, whole and in the making, by path.

    What lies in a folder that can't be told of must not stop work on the others.
    """
    return scan(top)[0]


def scan(top: Path) -> tuple[list[Kept], list[str]]:
    """Return the same, and why folders of the store are not among them, a sentence each."""
    found = [_kept(folder) for folder in _folders(top)]
    return (
        [kept for kept in found if isinstance(kept, Kept)],
        [why for why in found if isinstance(why, str)],
    )


def _folders(top: Path) -> list[Path]:
    # Why three and four: ORG/NAME/COMMIT, or ORG/NAME/QUANT/COMMIT.
    return sorted(
        folder
        for pattern in ("*/*/*", "*/*/*/*")
        for folder in top.glob(pattern)
        if COMMIT.fullmatch(commit_of(folder)) and folder.is_dir()
    )


def _kept(folder: Path) -> Kept | str | None:
    """Return what lies in *folder*, why that can't be told, or None where nothing does yet."""
    complete = folder.name == commit_of(folder)
    try:
        manifest = read_manifest(folder if complete else folder / "files")
    except KimiError as error:
        return error.message
    return Kept(folder, manifest, complete) if manifest is not None else None


def commit_of(folder: Path) -> str:
    """Return the commit that *folder* is of, whole or in the making, by its name."""
    return folder.name.removeprefix(".").removesuffix(_PULL)


class Staging:
    """A folder in the making."""

    @classmethod
    def of(cls, manifest: Manifest, top: Path) -> Staging:
        """Return where *manifest* is brought below *top*."""
        return cls(home(top, manifest.repo, manifest.quant) / manifest.revision)

    @classmethod
    def at(cls, folder: Path) -> Staging:
        """Return where what lies in *folder* is brought, which is whole or in the making."""
        return cls(folder.with_name(commit_of(folder)))

    def __init__(self, final: Path) -> None:
        self.final = final
        self.folder = final.with_name(f".{final.name}{_PULL}")
        self.files, self.parts = self.folder / "files", self.folder / "parts"

    def place(self, path: str) -> Path:
        """Return where the part of the file *path* lies, without its ending; short for any name."""
        name = path.rpartition("/")[2].encode()[:80].decode(errors="ignore")
        return self.parts / f"{sha256(path.encode()).hexdigest()[:16]}-{name}"

    def part(self, path: str) -> Path:
        """Return where the bytes of the file *path* lie while it comes."""
        return self.place(path).with_name(f"{self.place(path).name}.part")

    def begin(self, manifest: Manifest) -> None:
        """Write down what is going to be here, and sweep out what was begun for other files."""
        for folder in (self.files / OWN, self.parts):
            linked = link_in(self.folder.parent, folder.relative_to(self.folder.parent).as_posix())
            if linked is not None:
                raise MachineError(
                    f"{linked} is a link, and what is swept here would be swept elsewhere",
                    hint="remove it, and find out who may write there",
                )
            folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.files / OWN / MANIFEST, encode(manifest))
        wanted = {self.place(item.path).name for item in manifest.items}
        for path in self.parts.iterdir():
            if path.name.rpartition(".")[0] not in wanted:
                path.unlink()
        names = {item.path for item in manifest.items}
        for path in sorted(self.files.rglob("*"), reverse=True):
            inside = path.relative_to(self.files)
            if inside.parts[0] == OWN:
                continue
            if path.is_dir() and not path.is_symlink():
                with suppress(OSError):
                    path.rmdir()
            elif inside.as_posix() not in names:
                path.unlink()

    def publish(self) -> None:
        """Give the finished folder its name: whole, in one step, and durable."""
        for folder in [self.files, *(p for p in self.files.rglob("*") if p.is_dir())]:
            sync(folder)
        try:
            self.files.rename(self.final)
        except OSError as error:
            raise WeightsError(
                f"{self.final} can't be published: {error.strerror or error}"
            ) from error
        sync(self.final.parent)
        self.remove()

    def remove(self) -> None:
        """Remove what is left of the staging folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a run that was killed after the end of its work left, if that may be."""
        if self.folder.is_dir():
            with suppress(KimiError), claimed(self):
                self.remove()


@contextmanager
def claimed(staging: Staging) -> Iterator[None]:
    """Hold the staging folder; BusyError if someone else pulls the same."""
    try:
        with alone(
            staging.folder / "lock", f"another kimideploy pulls into {staging.final.parent}"
        ):
            yield
    finally:
        # Why rmdir: what holds anything of a pull stays.
        with suppress(OSError):
            staging.folder.rmdir()


@contextmanager
def alone(path: Path, told: str) -> Iterator[None]:
    """Hold the lock file *path*, which dies with us; BusyError with *told* if someone else does."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise MachineError(
                f"{path.parent.parent} can't be written: {error.strerror or error}",
                hint="--to names a folder of your own",
            ) from error
        try:
            if not _locked(descriptor):
                raise BusyError(told, hint="wait for it, or end it: what it did stays")
            # Why again: whoever ended just now has removed the lock that we hold.
            if not _same(path, descriptor):
                continue
            try:
                yield
            finally:
                # Why again: with its folder gone, the lock of that name may be another's.
                if _same(path, descriptor):
                    path.unlink()
            return
        finally:
            os.close(descriptor)


def held(staging: Staging) -> bool:
    """Return whether someone pulls into *staging* right now."""
    try:
        with (staging.folder / "lock").open("r+") as lock:
            return not _locked(lock.fileno())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _locked(descriptor: int) -> bool:
    """Lock an open file and return whether that worked.

    Some network file systems have no locks and say so. There it counts as locked: two pulls of one
    commit write the same bytes, and prove them.
    """
    import fcntl  # noqa: PLC0415

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    return True


def existing(folder: Path) -> Path:
    """Return *folder* or the nearest folder above it that is there."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder if os.access(folder, os.R_OK) else Path("/")


def link_in(folder: Path, path: str) -> Path | None:
    """Return the first link on the way from *folder* to *path* in it, None where there is none."""
    at = folder
    for part in path.split("/"):
        at /= part
        if at.is_symlink():
            return at
    return None


def _same(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    mine = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
