"""From the words of `verify` to a verdict: key, model, promises, and which suite."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from kimideploy.catalog.types import Catalog, Model
from kimideploy.conformance import record as records
from kimideploy.conformance import vendor
from kimideploy.conformance.client import Client
from kimideploy.conformance.promise import Promise, owed
from kimideploy.conformance.run import Patient, discover, run
from kimideploy.conformance.send import Endpoint
from kimideploy.conformance.vendor_files import results
from kimideploy.conformance.verdict import Verdict
from kimideploy.errors import MachineError, RequestError

_DEFAULT = "kimi-k2.7-code"
#: signs of a key; a shorter one could not be masked without touching other words
_SHORTEST = 8
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for, whichever endpoint it is asked of."""

    catalog: Catalog
    model: str | None
    profile: str | None
    suite: str
    timeout: float
    deadline: float
    seed: int | None
    samples: Path | None
    expected: Path | None
    results: Path | None
    concurrency: int
    least_f1: float | None
    tell: Callable[[int, int, str], None]


def verified(
    url: str, key_file: Path | None, wanted: Wanted, *, record: Path | None = None
) -> Verdict:
    """Return the verdict on the endpoint at *url*; MachineError if nobody is there."""
    key = read_key(key_file) if key_file is not None else None
    client = Client(url, key=key)
    if key is not None and not client.place.secure and client.place.host not in _LOOPBACK:
        sys.stderr.write(f"note: the key goes to {client.url} without TLS\n")
    sender = Endpoint(client, watch=lambda *_: None, longest=wanted.timeout, whole=wanted.deadline)
    answer, names, _ = discover(sender, wanted.model)
    if answer.error is not None:
        raise MachineError(
            f"{client.url} can't be asked: {answer.error}",
            hint="is it up, and is that its address? `kimideploy status` shows your own",
        )
    served = wanted.model or _ours(names, wanted.catalog)
    if served is None and names:
        raise RequestError(
            f"{client.url} serves {len(names)} models, and none has a name that is known",
            hint=f"--model with one of them, e.g. {names[0]!a}",
        )
    if served is None:
        raise RequestError(
            f"{client.url}/v1/models names no model: {answer.said}",
            hint="--api-key-file if it wants a key, --model NAME if it lists none",
        )
    promise = replace(promise_of(served, wanted), has_key=key is not None)
    if wanted.suite == "vendor":
        return _vendor(sender, client.url, promise, wanted)
    seed = wanted.seed if wanted.seed is not None else secrets.randbelow(2**31)
    recorder = records.Recorder(sender)
    verdict = run(
        recorder,
        promise,
        url=client.url,
        suite=wanted.suite,
        seed=seed,
        tell=wanted.tell,
    )
    if record is not None:
        records.write(
            record,
            records.Record(
                url=client.url,
                model=served,
                suite=wanted.suite,
                seed=seed,
                has_key=key is not None,
                exchanges=tuple(recorder.exchanges),
            ),
        )
    return verdict


def replayed(folder: Path, wanted: Wanted) -> Verdict:
    """Return the verdict on what the record in *folder* holds."""
    kept = records.read(folder)
    promise = replace(promise_of(kept.model, wanted), has_key=kept.has_key)
    return run(
        records.Replay(kept), promise, url=kept.url, suite=kept.suite, seed=kept.seed,
        tell=wanted.tell,
    )  # fmt: skip


def promise_of(served: str, wanted: Wanted) -> Promise:
    """Return what a model of that name owes; what only its plan knows is left open."""
    model = _profile(served, wanted)
    # Why open: whether the vision part is served is the operator's choice.
    return owed(model, served, images=None if model.vision is not None else False)


def _ours(names: list[str], catalog: Catalog) -> str | None:
    """The model to ask for: the only one, or the first of several that a profile knows."""
    from kimideploy.catalog.find import find_model  # noqa: PLC0415

    if len(names) == 1:
        return names[0]
    for name in names:
        with suppress(RequestError):
            find_model(catalog, name)
            return name
    return None


def _profile(served: str, wanted: Wanted) -> Model:
    from kimideploy.catalog.find import find_model  # noqa: PLC0415

    if wanted.profile is not None:
        return find_model(wanted.catalog, wanted.profile)
    try:
        return find_model(wanted.catalog, served)
    except RequestError:
        sys.stderr.write(f"note: {served!a} is judged as {_DEFAULT}; --as MODEL says otherwise\n")
        return find_model(wanted.catalog, _DEFAULT)


def read_key(path: Path) -> str:
    """Return the key in *path*; raises RequestError if there is none, or one no header can hold."""
    try:
        key = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the key in {path} can't be read: {type(error).__name__}") from error
    if len(key) < _SHORTEST or any(not "!" <= sign <= "~" or sign in '"\\' for sign in key):
        raise RequestError(
            f"{path} holds no key: one line of {_SHORTEST} or more plain signs is asked for"
        )
    return key


def _vendor(sender: Endpoint, url: str, promise: Promise, wanted: Wanted) -> Verdict:
    path = wanted.samples
    if path is None:
        raise RequestError("suite vendor needs requests", hint="--suite vendor samples.jsonl")
    kept = wanted.results or path.with_name(f"{path.stem}.{_file(url)}.results.jsonl")
    expected = results(wanted.expected) if wanted.expected is not None else None
    if wanted.expected is not None and not expected:
        raise RequestError(f"{wanted.expected} holds no results")
    found = vendor.run(
        Patient(sender),
        path,
        kept,
        model=promise.model,
        url=url,
        at_once=wanted.concurrency,
        tell=wanted.tell,
    )
    sys.stderr.write(f"results: {kept}\n")
    sums = vendor.counts(found, expected)
    return vendor.verdict(found, sums, url=url, model=promise.model, least=wanted.least_f1)


def _file(url: str) -> str:
    return "".join(sign if sign.isalnum() else "-" for sign in url.partition("://")[2])
