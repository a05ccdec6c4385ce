"""Several at once, by threads that hold nobody up: Ctrl-C is not waited for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def each(work: Callable[[T], R], items: Iterable[T], at_once: int) -> Iterator[tuple[T, R]]:
    """Yield each of *items* with what *work* makes of it, as they are done.

    No more than *at_once* are under way, and items are taken when there is room. What *work* raises
    is raised here. A single one needs no thread.
    """
    if at_once <= 1:
        for item in items:
            yield item, work(item)
        return
    done: queue.Queue[tuple[T, R | None, BaseException | None]] = queue.Queue()

    def one(item: T) -> None:
        try:
            done.put((item, work(item), None))
        except BaseException as error:  # noqa: BLE001  raised where it is waited for
            done.put((item, None, error))

    waiting = iter(items)
    under_way = 0
    more = True
    while more or under_way:
        while more and under_way < at_once:
            try:
                item = next(waiting)
            except StopIteration:
                more = False
                break
            threading.Thread(target=one, args=(item,), daemon=True).start()
            under_way += 1
        if under_way:
            item, found, error = done.get()
            under_way -= 1
            if error is not None:
                raise error
            yield item, found  # type: ignore[misc]
