"""Where a checkpoint lies: a folder, or a repository of the hub. Parts of files, never whole ones.

Both know their files with sizes and read a few bytes of one, which is all that headers need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from kimideploy.errors import RequestError, WeightsError
from kimideploy.weights.hub import address, asked_once
from kimideploy.weights.retry import Trouble

T = TypeVar("T")
#: files that are listed of a folder; a checkpoint has some hundred
_MOST_FILES = 100_000
_TIMEOUT = 30.0


class Place(Protocol):
    """Files by name, of which parts can be read."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    @property
    def revision(self) -> str | None:
        """The commit, None for a folder."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file."""
        ...

    def read(self, file: str, start: int, size: int) -> bytes:
        """Return *size* bytes of *file* from *start*; WeightsError for fewer."""
        ...


class Folder:
    """A folder on this machine."""

    def __init__(self, path: Path) -> None:
        """Look at the files below *path*, or at *path* itself when it is a file."""
        self.name, self.revision = str(path), None
        if not path.exists():
            raise RequestError(f"{path} is not there")
        self._root = path if path.is_dir() else path.parent
        try:
            found = sorted(path.rglob("*")) if path.is_dir() else [path]
            self.sizes = {
                file.relative_to(self._root).as_posix(): file.stat().st_size
                for file in found[:_MOST_FILES]
                if file.is_file() and not _hidden(file.relative_to(self._root))
            }
        except OSError as error:
            raise RequestError(f"{path} can't be read: {error.strerror or error}") from error

    def read(self, file: str, start: int, size: int) -> bytes:
        """Return *size* bytes of *file* from *start*."""
        try:
            with (self._root / file).open("rb") as stream:
                stream.seek(start)
                data = stream.read(size)
        except OSError as error:
            raise WeightsError(f"{file} can't be read: {error.strerror or error}") from error
        if len(data) < size:
            raise WeightsError(f"{file} ends after {start + len(data):,} bytes")
        return data


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


class Hub:
    """A repository of the hub at one commit; HF_ENDPOINT and HF_TOKEN are heeded."""

    def __init__(self, repo: str, revision: str | None = None) -> None:
        """Resolve *revision* to its commit and list its files: one request."""
        # Why now: the library reads it once, when it is imported, and fails over a wrong one.
        self._endpoint = address()
        from huggingface_hub import HfApi  # noqa: PLC0415

        self.name = repo
        info = self._asked(
            lambda: HfApi(endpoint=self._endpoint).model_info(
                repo, revision=revision, files_metadata=True
            )
        )
        self.revision = info.sha
        files = info.siblings or ()
        self.sizes = {
            f.rfilename: f.size for f in files if f.size is not None and _safe(f.rfilename)
        }

    def read(self, file: str, start: int, size: int) -> bytes:
        """Return *size* bytes of *file* from *start*, over a range request."""
        return self._asked(lambda: self._range(file, start, size))

    def _range(self, file: str, start: int, size: int) -> bytes:
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        # Why ignored: its documentation lists these names, its type hints don't.
        from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
            build_hf_headers,
            hf_raise_for_status,
            http_stream_backoff,
        )

        url = hf_hub_url(self.name, file, revision=self.revision, endpoint=self._endpoint)
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{start + size - 1}"}
        headers["Accept-Encoding"] = "identity"
        with http_stream_backoff(
            "GET", url, headers=headers, follow_redirects=True, timeout=_TIMEOUT, max_retries=3
        ) as response:
            hf_raise_for_status(response)
            # Why before reading: who ignores the range sends ten gigabytes.
            if response.status_code != 206:  # noqa: PLR2004
                raise WeightsError(
                    f"the hub does not send parts of {file}",
                    hint="pull the weights and name their folder instead",
                )
            data = b""
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > size:
                    break
        if len(data) != size:
            raise WeightsError(f"the hub sent {len(data):,} of {size:,} bytes of {file}")
        return data

    def _asked(self, question: Callable[[], T]) -> T:
        """Return the hub's answer; what it refuses is said in plain words."""
        try:
            return asked_once(question, self.name)
        except Trouble as trouble:
            raise WeightsError(
                trouble.why, hint="try again; check the network, HF_ENDPOINT and HF_HUB_OFFLINE"
            ) from trouble


def _safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
