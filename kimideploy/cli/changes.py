"""Changes of hosts: begun on each, watched together, told as one answer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kimideploy.views.terminal import tame

if TYPE_CHECKING:
    from kimideploy.apply.answers import Begun, Looked
    from kimideploy.apply.events import Ended, Event
    from kimideploy.apply.order import Order
    from kimideploy.errors import KimiError
    from kimideploy.remote.places import Place


def applied(
    orders: Sequence[tuple[Place, Order]], *, wait: float, dry_run: bool, as_json: bool
) -> None:
    """Carry out each order on its host, the first before the others; or only say what it means."""
    if dry_run:
        _told(orders, as_json=as_json)
        return
    from kimideploy.apply.answers import Begun  # noqa: PLC0415

    by_name = {place.name: order for place, order in orders}
    begun_on(
        [place for place, _ in orders],
        lambda place: place.ask("apply", Begun, order=by_name[place.name], wait=wait),
        as_json=as_json,
    )


def begun_on(
    where: Sequence[Place], begin: Callable[[Place], Begun], *, as_json: bool
) -> dict[str, Ended]:
    """Begin a change on each host, and watch them all; one that fails leaves the others alone.

    Returns how each ended; raises the first failure.
    """
    from kimideploy.errors import KimiError  # noqa: PLC0415

    runs: list[tuple[Place, str]] = []
    ended: dict[str, Ended | KimiError] = {}
    for place in where:
        try:
            found = begin(place)
        except KimiError as error:
            ended[place.name] = error
            continue
        if found.run is not None:
            runs.append((place, found.run))
        elif found.ended is not None:
            ended[place.name] = found.ended
    return watched(runs, as_json=as_json, before=ended)


def watched(
    runs: Sequence[tuple[Place, str]],
    *,
    as_json: bool,
    before: dict[str, Ended | KimiError] | None = None,
) -> dict[str, Ended]:
    """Show every run until it has ended, then all answers; raises the first failure."""
    from kimideploy.errors import KimiError  # noqa: PLC0415
    from kimideploy.remote.host import error_of  # noqa: PLC0415
    from kimideploy.remote.places import each  # noqa: PLC0415
    from kimideploy.views.hosts import shown  # noqa: PLC0415

    ended = dict(before or {})
    together = _Together(
        failed=any(isinstance(one, KimiError) for one in ended.values()), well=len(ended)
    )
    names = [*ended, *(place.name for place, _ in runs)]
    try:
        with shown(names, as_json=as_json) as board:

            def follow(one: tuple[Place, str]) -> Ended:
                place, run = one

                def tell(event: Event) -> None:
                    together.take(place, event)
                    board.take(place.name, event)

                found = place.follow(run, tell, lambda text: board.note(place.name, text))
                together.over(place, found)
                return found

            for (place, _), result in zip(runs, each(list(runs), follow), strict=True):
                ended[place.name] = result
            for name, found in ended.items():
                board.ended(name, found)
    except KeyboardInterrupt:
        where = " ".join(f"--host {place.name}" for place, _ in runs if place.name in names)
        sys.stderr.write(f"\nthe change goes on; kimideploy attach {where} shows it\n")
        raise
    failures = [
        found if isinstance(found, KimiError) else error_of(found, name)
        for name, found in ended.items()
        if isinstance(found, KimiError) or found.code != 0
    ]
    for failure in failures[1:] if not as_json else ():
        sys.stderr.write(tame(f"error: {failure.message}\n"))
    if failures:
        raise failures[0]
    return {name: found for name, found in ended.items() if not isinstance(found, KimiError)}


def replanned(place: Place, profiles: Sequence[Path]) -> Order:
    """Return what *place* was asked for, planned anew on what it is now."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.order import Order, overlay  # noqa: PLC0415
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.engines import complete  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.planning.decide import decide  # noqa: PLC0415
    from kimideploy.planning.types import Plan  # noqa: PLC0415
    from kimideploy.remote.host import who  # noqa: PLC0415

    before = place.ask("asked", Order)
    folders = user_overlays(profiles)
    catalog = load_catalog(folders)
    # Why the same inventory: the hardware is what was paid for; the checks look at it as it is.
    decision = decide(before.plan.request, before.plan.inventory, catalog)
    if not isinstance(decision, Plan):
        raise RequestError(f"{place.name}: nothing fits any more: {decision.reason}")
    return msgspec.structs.replace(
        before, plan=complete(decision, catalog), profiles=overlay(folders), bundle=None, who=who()
    )


class _Together:
    """Nodes of one model: each is confirmed when all are well, and given up when one is not."""

    def __init__(self, *, failed: bool, well: int) -> None:
        self._waiting: dict[str, tuple[Place, str]] = {}
        self._failed, self._well, self._nodes = failed, well, 0
        self._lock = threading.Lock()

    def take(self, place: Place, event: Event) -> None:
        """Take in that a node waits; the last of them lets all go on."""
        from kimideploy.apply.events import Awaiting  # noqa: PLC0415

        if not isinstance(event, Awaiting):
            return
        with self._lock:
            self._nodes = event.nodes
            self._waiting[place.name] = (place, event.run)
        self._judge()

    def over(self, place: Place, ended: Ended) -> None:
        """Take in that a node has ended; if it failed, those that wait need wait no longer."""
        with self._lock:
            self._waiting.pop(place.name, None)
            self._well += ended.code == 0
            self._failed = self._failed or ended.code != 0
        self._judge()

    def _judge(self) -> None:
        with self._lock:
            failed, waiting = self._failed, list(self._waiting.values())
            ready = len(waiting) + self._well >= self._nodes
        if waiting and failed:
            _each_of(waiting, "break", force=True)
        elif waiting and ready:
            _each_of(waiting, "confirm")


def _each_of(waiting: Sequence[tuple[Place, str]], verb: str, **wish: bool) -> None:
    """Say *verb* of its run to each node. What one can't be told is no failure of another's."""
    from kimideploy.errors import KimiError  # noqa: PLC0415

    for place, run in waiting:
        try:
            place.ask(verb, object, run=run, **wish)
        except KimiError as error:
            sys.stderr.write(tame(f"note: {place.name}: {error.message}\n"))


def _told(orders: Sequence[tuple[Place, Order]], *, as_json: bool) -> None:
    from kimideploy.apply.answers import Looked  # noqa: PLC0415
    from kimideploy.views.console import out  # noqa: PLC0415
    from kimideploy.views.hosts import as_json as json_of  # noqa: PLC0415
    from kimideploy.views.hosts import looked_lines  # noqa: PLC0415

    found: dict[str, tuple[Looked, ...]] = {}
    for place, order in orders:
        found[place.name] = place.ask("look", tuple[Looked, ...], order=order)
    if as_json:
        sys.stdout.write(json_of(found))
        return
    for name, steps in found.items():
        out.print(looked_lines(name, steps), soft_wrap=True)
