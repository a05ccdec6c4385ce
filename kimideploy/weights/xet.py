"""Ranges out of the xet store, by hf-xet: chunks that repositories share, from several servers.

It checks no contents (a flipped byte in its store came through when it was tried), so what it
brings is hashed like everything else.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from kimideploy.errors import KimiError
from kimideploy.weights.hub import Repository, asked_once, switched
from kimideploy.weights.manifest import Item
from kimideploy.weights.retry import Pause, Trouble

#: seconds that a request may be silent, and that a token must still hold
_TIMEOUT, _SPARE = 30.0, 60.0


def available() -> bool:
    """Return whether hf-xet is installed, can stream ranges, and HF_HUB_DISABLE_XET lets it."""
    if switched("HF_HUB_DISABLE_XET"):
        return False
    try:
        import hf_xet  # noqa: PLC0415
    except ImportError:
        return False
    return hasattr(hf_xet, "XetSession") and hasattr(hf_xet.XetSession, "new_download_stream_group")


class Xet:
    """A repository's large files from the xet store."""

    name = "xet"

    def __init__(self, repository: Repository, pause: Pause) -> None:
        self._repository, self._pause = repository, pause
        self._lock = threading.Lock()
        self._session: Any = None
        self._token: dict[str, Any] = {}

    def open(self, item: Item, start: int, end: int) -> XetBody:
        """Ask for bytes *start* up to *end* of *item*; Trouble for whatever fails."""
        import hf_xet  # noqa: PLC0415

        if item.xet is None:
            raise Trouble(f"{item.path} is not in the xet store")
        try:
            group = self._group()
            info = hf_xet.XetFileInfo(item.xet, item.size)
            return XetBody(group, group.download_stream(info, start, end))
        except KimiError as error:
            # Why trouble: a mirror may list names of a store that it does not lead to.
            raise Trouble(f"xet: {error.message}") from error
        except (OSError, RuntimeError, ValueError, TypeError, LookupError) as error:
            raise Trouble(f"xet: {str(error)[:200] or type(error).__name__}") from error

    def _group(self) -> Any:
        """Return a group of its own for each range: only a group can be ended from outside.

        One token serves all files of a commit.
        """
        import hf_xet  # noqa: PLC0415

        where = self._repository
        route = f"{where.endpoint}/api/models/{where.repo}/xet-read-token/{where.revision}"
        headers = dict(where.headers)
        with self._lock:
            if int(self._token.get("exp", 0)) - time.time() < _SPARE:
                self._pause.heed()
                self._token = asked_once(lambda: _token(route, headers), where.repo)
            if self._session is None:
                self._session = hf_xet.XetSession()
            session, token = self._session, self._token
        return session.new_download_stream_group(
            endpoint=token["casUrl"],
            token=token["accessToken"],
            token_expiry_unix_secs=int(token["exp"]),
            token_refresh_url=route,
            token_refresh_headers=headers,
        )


class XetBody:
    """A range that comes in order."""

    def __init__(self, group: Any, stream: Any) -> None:
        self._group, self._stream, self._rest = group, stream, memoryview(b"")
        self.came = 0

    def readinto(self, view: memoryview) -> int:
        """Fill *view* from the piece at hand, or the next one."""
        while not self._rest:
            piece = self._next()
            if piece is None:
                return 0
            self._rest = memoryview(piece)
            self.came += len(piece)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bytes | None:
        try:
            piece: bytes | None = next(self._stream, None)
        except (OSError, RuntimeError, ValueError) as error:
            raise Trouble(f"xet: {str(error)[:200] or type(error).__name__}") from error
        return piece

    def abort(self) -> None:
        """End the stream, also while its next piece is waited for."""
        self._group.abort()

    def close(self) -> None:
        """End the stream, if it has not ended."""
        with suppress(Exception):
            self._group.abort()


def _token(route: str, headers: dict[str, str]) -> dict[str, Any]:
    # Why ignored: its documentation lists these names, its type hints don't.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        get_session,
        hf_raise_for_status,
    )

    response = get_session().get(route, headers=headers, timeout=_TIMEOUT)
    hf_raise_for_status(response)
    found: dict[str, Any] = response.json()
    return {name: found[name] for name in ("casUrl", "accessToken", "exp")}
