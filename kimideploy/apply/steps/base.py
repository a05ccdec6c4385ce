"""What a step is, and what all of them work on."""

from __future__ import annotations

import difflib
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kimideploy.apply.clock import Clock
from kimideploy.apply.events import Change, Tell
from kimideploy.apply.home import Home
from kimideploy.apply.order import Order
from kimideploy.apply.release import Release
from kimideploy.apply.systemd import Systemd
from kimideploy.catalog.types import Catalog
from kimideploy.planning.types import Plan


@dataclass(kw_only=True)
class Work:
    """What the steps of one change have in common, and what one leaves for the next."""

    home: Home
    systemd: Systemd
    order: Order
    catalog: Catalog
    tell: Tell
    clock: Clock
    run: str
    #: the plan, on weights that are here once these are
    plan: Plan
    #: the release that is proved now, and the one that is made
    previous: Release | None
    number: int
    release: Release | None = None
    #: nobody watches: the dead man goes on with what was begun
    alone: bool = False

    @property
    def venv(self) -> Path | None:
        """The environment the engine is in; None for the stand-in."""
        return venv_of(self.home, self.order, self.plan)


def venv_of(home: Home, order: Order, plan: Plan) -> Path | None:
    """Return the environment the engine is in; None for the stand-in."""
    match order.engine.kind:
        case "venv" | "nano":
            return Path(str(order.engine.path))
        case "install":
            # Why the words, too: what is made anew must not be what the release before runs from.
            words = sha256(repr(plan.pins.requirements).encode()).hexdigest()[:8]
            return home.engine(f"{plan.candidate.engine}-{plan.pins.engine_version}-{words}")
        case _:
            return None


class Step(ABC):
    """One thing about a host. `look` changes nothing; done twice, the second time is empty."""

    name: str

    @abstractmethod
    def look(self, work: Work) -> tuple[Change, ...]:
        """Return what is not yet as it is to be; empty: nothing is to be done."""

    @abstractmethod
    def do(self, work: Work) -> None:
        """Have it be as it is to be; raises KimiError."""

    def undo(self, work: Work) -> bool:
        """Take back what would harm the release before; return whether there was anything.

        Most steps have nothing of the kind: what they made is kept, and the next try needs it.
        """
        del work
        return False


def difference(name: str, before: str | None, after: str) -> str | None:
    """Return the unified diff of a file, None where nothing differs."""
    if before == after:
        return None
    old = (before or "").splitlines()
    lines = difflib.unified_diff(
        old, after.splitlines(), f"{name} (now)", f"{name} (then)", lineterm="", n=2
    )
    return "\n".join(lines)


def program(home: Home) -> str:
    """Return the kimideploy that this host keeps: the link that an update switches, else this."""
    kept = home.programs / "app" / "current" / "bin" / "kimideploy"
    return str(kept) if kept.exists() else str(Path(sys.prefix) / "bin" / "kimideploy")
