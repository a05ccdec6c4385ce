"""`--pull-once`: one host pulls from the hub, and gives the weights to the others."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from kimideploy.views.terminal import tame

if TYPE_CHECKING:
    from kimideploy.apply.answers import Shared
    from kimideploy.apply.order import Order
    from kimideploy.cli.deploy import Wishes
    from kimideploy.remote.places import Place

Orders = list[tuple["Place", "Order"]]


def brought(orders: Orders, address: str, wishes: Wishes) -> Orders:
    """Return the orders once each host has its weights: those of the first came from the hub, the
    others took them from there.

    Nothing that runs was touched. Each order carries the manifests, so that all hosts serve the
    same commit. Ctrl-C leaves the hosts at it; the same command goes on from there.
    """
    from kimideploy.apply.answers import Holder, Shared  # noqa: PLC0415
    from kimideploy.errors import BusyError  # noqa: PLC0415

    takers = _takers(orders)
    if not takers:
        return orders
    place = orders[0][0]
    place.ask("shareable", bool, address=address)
    for other, _ in takers:
        # Why: a run that Ctrl-C left alone may be taking weights right now.
        holder = other.ask("holder", Holder | None)  # type: ignore[arg-type]
        if holder is not None and holder.run is not None:
            raise BusyError(
                f"{other.name} is being changed: {holder.why}",
                hint=f"kimideploy attach --host {other.name} shows it",
            )
    folders = _prepared(orders[:1], wishes)[place.name]
    given = place.ask("share", Shared, folders=folders, address=address)
    try:
        _prepared([(other, _from_peer(order, given)) for other, order in takers], wishes, given)
    except KeyboardInterrupt:
        # Why not ended: the hosts go on with what was begun.
        raise
    except BaseException:
        _over(place, given)
        raise
    _over(place, given)
    served = {place.name, *(other.name for other, _ in takers)}
    return [
        (there, _known(order, given) if there.name in served else order) for there, order in orders
    ]


def _takers(orders: Orders) -> Orders:
    """Return the hosts that need what the first one has; the others pull by themselves."""
    from kimideploy.apply.order import catalog_of  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415
    from kimideploy.weights.wanted import of_plan  # noqa: PLC0415

    def wants(order: Order) -> set[tuple[str, str | None, str | None]]:
        if order.plan.request.model_path is not None:
            raise RequestError(
                "--model-path names weights that are there; leave --pull-once out",
                hint="without --model-path they are pulled",
            )
        wishes = of_plan(order.plan, catalog_of(order))
        return {(one.repo, one.quant, one.revision) for one in wishes}

    first = wants(orders[0][1])
    takers = [(place, order) for place, order in orders[1:] if wants(order) == first]
    for place, order in orders[1:]:
        if (place, order) not in takers:
            sys.stderr.write(tame(f"note: {place.name} needs other weights, and pulls them\n"))
    return takers


def _prepared(
    orders: Sequence[tuple[Place, Order]], wishes: Wishes, given: Shared | None = None
) -> dict[str, tuple[str, ...]]:
    """Return the folders of weights of each host, now that they are there."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.answers import Begun  # noqa: PLC0415
    from kimideploy.cli.changes import begun_on  # noqa: PLC0415

    first = {place.name: msgspec.structs.replace(order, prepare=True) for place, order in orders}
    token = given.token if given is not None else ""
    ended = begun_on(
        [place for place, _ in orders],
        lambda there: there.ask(
            "apply", Begun, order=first[there.name], wait=wishes.wait, token=token
        ),
        as_json=wishes.as_json,
    )
    return {name: one.weights for name, one in ended.items()}


def _from_peer(order: Order, given: Shared) -> Order:
    """Return *order* with its weights taken from the host that gives them."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.order import Peer  # noqa: PLC0415

    # Why not offline: what is forbidden is the hub, and this is no hub.
    return msgspec.structs.replace(
        order, peer=Peer(given.manifests, given.url), bundle=None, offline=False
    )


def _known(order: Order, given: Shared) -> Order:
    """Return *order* for the very commits that were given."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.order import Peer  # noqa: PLC0415

    return msgspec.structs.replace(order, peer=Peer(given.manifests), bundle=None)


def _over(place: Place, given: Shared) -> None:
    """Have nothing given away any more; a host that is gone meanwhile is no failure of that."""
    from kimideploy.errors import KimiError  # noqa: PLC0415

    with suppress(KimiError):
        place.ask("unshare", bool, run=given.id)
