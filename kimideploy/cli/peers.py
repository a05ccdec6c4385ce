"""`--pull-once`: one host pulls from the hub, and gives the weights to the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kimideploy.views.terminal import tame

if TYPE_CHECKING:
    from kimideploy.apply.answers import Shared
    from kimideploy.apply.order import Order
    from kimideploy.cli.deploy import Wishes
    from kimideploy.remote.bootstrap import Reached
    from kimideploy.remote.places import Place


@contextmanager
def shared(
    orders: list[tuple[Place, Order]],
    found: Sequence[Reached],
    address: str | None,
    wishes: Wishes,
) -> Iterator[list[tuple[Place, Order]]]:
    """Yield the orders as they are carried out while the first host gives its weights away.

    Those for the same weights name it in place of the hub. It stops giving when all is over; if
    nobody is here any more to say so, when nobody has asked for a while.
    """
    wanted = wishes.pull_once and not wishes.dry_run
    takers = _takers(orders) if wanted else set()
    if not takers:
        yield orders
        return
    place = orders[0][0]
    given = _given(orders[0], address or _address(found[0], wishes), wishes)
    try:
        yield [
            (there, _from_peer(order, reached, given) if there.name in takers else order)
            for (there, order), reached in zip(orders, found, strict=True)
        ]
    except KeyboardInterrupt:
        # Why not ended: the hosts go on with what was begun.
        raise
    except BaseException:
        _over(place, takers, orders, found)
        raise
    _over(place, takers, orders, found)


def _over(
    place: Place,
    takers: set[str],
    orders: Sequence[tuple[Place, Order]],
    found: Sequence[Reached],
) -> None:
    """Have nothing given away any more, and no token left; a host that is gone is no failure."""
    from kimideploy.errors import KimiError  # noqa: PLC0415

    with suppress(KimiError):
        place.ask("unshare", bool)
    for (there, _), reached in zip(orders, found, strict=True):
        if there.name in takers:
            with suppress(KimiError):
                reached.shell.run(["rm", "-f", "--", _token(reached)])


def _token(reached: Reached) -> str:
    return f"{reached.settings}/peer.token"


def _takers(orders: Sequence[tuple[Place, Order]]) -> set[str]:
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
    takers = {place.name for place, order in orders[1:] if wants(order) == first}
    for place, _ in orders[1:]:
        if place.name not in takers:
            sys.stderr.write(tame(f"note: {place.name} needs other weights, and pulls them\n"))
    return takers


def _given(head: tuple[Place, Order], address: str, wishes: Wishes) -> Shared:
    """Return where the first host gives its weights away, once it has them."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.answers import Begun, Shared  # noqa: PLC0415
    from kimideploy.cli.changes import begun_on  # noqa: PLC0415

    place, order = head
    first = msgspec.structs.replace(order, prepare=True)
    ended = begun_on(
        [place],
        lambda there: there.ask("apply", Begun, order=first, wait=wishes.wait),
        as_json=wishes.as_json,
    )
    folders = ended[place.name].weights
    return place.ask("share", Shared, folders=folders, address=address)


def _from_peer(order: Order, reached: Reached, given: Shared) -> Order:
    """Return *order* with its weights taken from the other host, which lets it in."""
    import msgspec  # noqa: PLC0415

    from kimideploy.apply.order import Peer  # noqa: PLC0415

    reached.shell.put(given.token.encode() + b"\n", _token(reached), mode=0o600)
    return msgspec.structs.replace(order, peer=Peer(given.url, given.manifests))


def _address(head: Reached, wishes: Wishes) -> str:
    from kimideploy.remote.settings import settings  # noqa: PLC0415

    return settings(head.shell.address, wishes.ssh_config).host
