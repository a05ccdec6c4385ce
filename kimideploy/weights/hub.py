"""The hub: a revision's commit, its files with their hashes, and what a refusal means.

Names, authentication and metadata are huggingface_hub's; the bytes are not (see `wire` and `xet`).
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies are heeded.
"""

from __future__ import annotations

import logging
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from kimideploy.errors import KimiError, RequestError, WeightsError
from kimideploy.weights.manifest import COMMIT, Item
from kimideploy.weights.retry import Patience, Pause, Trouble, asked, transient

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

T = TypeVar("T")
_MOST_ITEMS = 100_000
#: seconds that the hub may say nothing; tries of a question before anything has come of it
_TIMEOUT, _TRIES = 30.0, 5
#: of each thread: what it has asked for a question that is to be asked once, None for others
_own = threading.local()


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit, and how it is asked for."""

    repo: str
    revision: str
    endpoint: str
    #: what the hub itself is told: the token and who is asking. Never shown.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def url(self, path: str) -> str:
        """Return the address of one file."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415

        return hf_hub_url(self.repo, path, revision=self.revision, endpoint=self.endpoint)


def offline() -> bool:
    """Return whether the environment forbids requests to the hub."""
    return switched("HF_HUB_OFFLINE") or switched("TRANSFORMERS_OFFLINE")


def switched(name: str) -> bool:
    """Return whether a variable of the environment says yes, as the hub's client reads it."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def find(repo: str, revision: str | None, pause: Pause) -> Repository:
    """Resolve *revision*, None for the default branch, to its commit: one request, if any.

    Raises WeightsError for what the hub refuses, RequestError for a name that is none.
    """
    # Why before the library: it reads the variable, too, and fails over a wrong one.
    endpoint = address()
    from huggingface_hub import HfApi  # noqa: PLC0415

    # Why ignored: its documentation lists the name, its type hints don't.
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # noqa: PLC0415
        build_hf_headers,
    )

    headers = build_hf_headers()
    if not all(value.isascii() and value.isprintable() for value in headers.values()):
        raise RequestError("HF_TOKEN holds signs that no token has", hint="copy it again")
    if revision is None or not COMMIT.fullmatch(revision):
        told = revision or "the default branch"
        info = patiently(
            f"{told} of {repo} can't be resolved",
            lambda: HfApi(endpoint=endpoint).model_info(repo, revision=revision),
            repo,
            pause,
        )
        revision = info.sha
    if revision is None or not COMMIT.fullmatch(revision):
        raise WeightsError(f"the hub names no commit of {repo}")
    return Repository(repo, revision, endpoint, headers)


def address() -> str:
    """Return the hub's address: HF_ENDPOINT or the usual one; RequestError for what is none."""
    endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if not endpoint:
        from huggingface_hub import constants  # noqa: PLC0415

        return constants.ENDPOINT
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint:
        # Why not always: what stands before an @ is a password.
        shown = f" {endpoint[:80]!r}" if "@" not in endpoint else ""
        raise RequestError(
            f"HF_ENDPOINT{shown} is no address",
            hint="it is https:// or http://, a host, and maybe :PORT and a path",
        )
    return endpoint


def items_of(repository: Repository, pause: Pause) -> tuple[Item, ...]:
    """Return every file of *repository* with its hash; paged requests.

    Names are as the hub tells them: what is taken of them goes through `manifest.checked`.
    """
    from huggingface_hub import HfApi  # noqa: PLC0415
    from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

    def listed() -> list[Item]:
        api = HfApi(endpoint=repository.endpoint)
        tree = api.list_repo_tree(repository.repo, recursive=True, revision=repository.revision)
        found: list[Item] = []
        for entry in tree:
            if not isinstance(entry, RepoFile):
                continue
            found.append(_item(entry, repository.repo))
            if len(found) > _MOST_ITEMS:
                raise WeightsError(f"{repository.repo} lists more than {_MOST_ITEMS:,} files")
        return found

    told = f"the files of {repository.repo} can't be listed"
    return tuple(patiently(told, listed, repository.repo, pause))


def _item(entry: RepoFile, repo: str) -> Item:
    """Return a file of the tree; WeightsError for one whose size or hash is none."""
    lfs = entry.lfs
    try:
        return msgspec.convert(
            {
                "path": entry.path,
                "size": lfs.size if lfs is not None else entry.size,
                "sha256": lfs.sha256 if lfs is not None else None,
                "oid": None if lfs is not None else entry.blob_id,
                "xet": getattr(entry, "xet_hash", None),
            },
            Item,
        )
    except msgspec.ValidationError as error:
        raise WeightsError(f"the hub lists a file of {repo} that can't be: {error}") from error


def patiently(told: str, question: Callable[[], T], repo: str, pause: Pause) -> T:
    """Return the hub's answer, asked again while its failures may pass."""
    patience = Patience(told, pause.first, _TRIES)
    while True:
        pause.heed()
        try:
            with _once():
                return asked_once(question, repo)
        except Trouble as trouble:
            wait = patience.wait(trouble)
            pause.told(repo, trouble.why, wait)
            pause.sleep(wait)


def asked_once(question: Callable[[], T], repo: str) -> T:
    """Return the hub's answer; Trouble where it may come later, WeightsError for a refusal."""
    from huggingface_hub import errors as hub  # noqa: PLC0415

    try:
        _limited()
        return question()
    except hub.HFValidationError as error:
        raise RequestError(f"{repo!r} is no name of a repository") from error
    except hub.OfflineModeIsEnabled as error:
        raise WeightsError(
            "HF_HUB_OFFLINE forbids to ask the hub", hint="unset it, or name a commit and a folder"
        ) from error
    except hub.HfHubHTTPError as error:
        status, headers = error.response.status_code, dict(error.response.headers)
        if transient(status):
            raise Trouble(f"the hub answered {status}", asked(headers)) from error
        raise refusal(repo, None, status, headers) from error
    except (hub.HTTPError, OSError) as error:  # type: ignore[attr-defined]
        if _untrusted(error):
            raise WeightsError(
                f"the hub's certificate is not trusted: {error}",
                hint="SSL_CERT_FILE names a file of certificates to trust",
            ) from error
        raise Trouble(f"the hub can't be reached: {str(error) or type(error).__name__}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        # Why so wide: an answer that is no JSON, or lacks what it must have, is the server's doing.
        raise Trouble(f"the hub's answer can't be read: {type(error).__name__}") from error


@contextmanager
def _once() -> Iterator[None]:
    """Have the hub's client ask once: to ask again, to wait and to tell of it is up to us."""
    _own.asked = set()
    try:
        yield
    finally:
        _own.asked = None


def _limited() -> None:
    """Have the hub's client give up a request that brings nothing; by itself it waits for ever."""
    # Why ignored: its documentation lists the name, its type hints don't.
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # noqa: PLC0415

    client = get_session()
    hooks = client.event_hooks
    if _requested not in hooks["request"]:
        # Why: it tells of each failure on stderr, in the middle of what we tell.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        client.event_hooks = {
            "request": [*hooks["request"], _requested],
            "response": [*hooks["response"], _answered],
        }


def _requested(request: Any) -> None:
    wanted = request.extensions.get("timeout") or {}
    request.extensions["timeout"] = {
        name: wanted.get(name) or _TIMEOUT for name in ("connect", "read", "write", "pool")
    }
    asked_before: set[str] | None = getattr(_own, "asked", None)
    if asked_before is not None:
        if str(request.url) in asked_before:
            raise Trouble("the hub did not answer")
        asked_before.add(str(request.url))


def _answered(response: Any) -> None:
    if getattr(_own, "asked", None) is not None and transient(response.status_code):
        raise Trouble(f"the hub answered {response.status_code}", asked(dict(response.headers)))


def _untrusted(error: BaseException | None) -> bool:
    """Whether a certificate is behind *error*: no other try will find it trusted."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def refusal(repo: str, path: str | None, status: int, headers: Mapping[str, str]) -> KimiError:
    """Return why a hub that was reached gives nothing, in plain words, with the way out."""
    lower = {name.lower(): value for name, value in headers.items()}
    match lower.get("x-error-code"), status:
        case "GatedRepo", _:
            return WeightsError(
                f"{repo} is gated: its licence wants to be accepted first",
                hint=f"accept it on {address()}/{repo}, then set HF_TOKEN",
            )
        case "RevisionNotFound", _:
            return WeightsError(
                f"{repo} has no such revision",
                hint="a commit is named by all its 40 digits; without --revision it is the newest",
            )
        case ("RepoNotFound", _) | (None, 401 | 403 | 404) if path is None:
            return WeightsError(
                f"the hub knows no {repo}, or HF_TOKEN may not see it",
                hint="a private or gated repository needs HF_TOKEN of someone who may read it",
            )
        case _, 401 | 403:
            return WeightsError(
                f"the hub refuses {path or repo} ({status})",
                hint="HF_TOKEN may have run out, or may not read this repository",
            )
        case _, 404:
            what = f"{path}, a file" if path is not None else "a file"
            return WeightsError(f"{repo} lacks {what} that it lists")
        case _:
            return WeightsError(f"the hub answered {status} for {path or repo}")
