"""The verbs of a host by name: a JSON object in, a JSON value out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from kimideploy.apply import host, mend, peer
from kimideploy.apply.answers import Action
from kimideploy.apply.home import Home
from kimideploy.apply.order import Order
from kimideploy.apply.status import status, story
from kimideploy.doctor.types import Remedy
from kimideploy.errors import RequestError
from kimideploy.facts.types import Strict


class Wish(Strict, frozen=True):
    """What any verb may be given; each takes what it needs."""

    who: str = "unknown"
    order: Order | None = None
    release: int | None = None
    other: int | None = None
    run: str = ""
    wait: float = 0
    action: Action = "stop"
    why: str = ""
    seconds: float = 0
    force: bool = False
    weights: bool = False
    folders: tuple[str, ...] = ()
    token: str = ""
    address: str = ""
    count: int = 20
    remedies: tuple[Remedy, ...] = ()


def _order(wish: Wish) -> Order:
    if wish.order is None:
        raise RequestError("no order came")
    return wish.order


_VERBS: dict[str, Callable[[Home, Wish], Any]] = {
    "scope": lambda home, _: home.scope,
    "status": lambda home, _: status(home),
    "story": lambda home, _: story(home),
    "look": lambda home, wish: host.looked(home, _order(wish), wish.release),
    "apply": lambda home, wish: host.begin(home, _order(wish), wait=wish.wait, token=wish.token),
    "back": lambda home, wish: host.back(home, wish.release, wish.who, wait=wish.wait),
    "asked": lambda home, _: host.asked(home),
    "confirm": lambda home, wish: host.confirm(home, wish.run),
    "service": lambda home, wish: host.service(home, wish.action, wish.who),
    "history": lambda home, wish: host.history(home, wish.count),
    "diff": lambda home, wish: host.differences(home, wish.release, wish.other),
    "holder": lambda home, _: host.held_by(home),
    "hold": lambda home, wish: host.hold(home, wish.who, wish.why, wish.seconds),
    "break": lambda home, wish: host.break_lock(home, wish.who, force=wish.force, run=wish.run),
    "share": lambda home, wish: peer.share(home, wish.folders, wish.address),
    "unshare": lambda home, wish: peer.unshare(home, wish.run),
    "shareable": lambda _, wish: peer.shareable(wish.address),
    "proposed": lambda home, wish: mend.proposed(home, wish.remedies),
    "mend": lambda home, wish: mend.mend(home, wish.remedies, wish.who),
    "unmend": lambda home, wish: mend.undo(home, wish.who),
    "destroy": lambda home, wish: host.destroy(home, wish.who, weights=wish.weights),
}


def answer(home: Home, verb: str, request: bytes) -> bytes:
    """Return the answer to *verb* as JSON; raises KimiError as the verb does."""
    if verb not in _VERBS:
        raise RequestError(f"this kimideploy knows no verb {verb!r}; its version is another")
    try:
        wish = msgspec.json.decode(request or b"{}", type=Wish)
    except msgspec.DecodeError as error:
        raise RequestError(f"the request for {verb} is none: {error}") from error
    return msgspec.json.encode(_VERBS[verb](home, wish), enc_hook=int)
