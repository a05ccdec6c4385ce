"""What stop, start and restart have in common: every host is told, and says how it stands then."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

from kimideploy.views.terminal import tame

if TYPE_CHECKING:
    from kimideploy.cli.hosts import HostOptions


def told(action: Literal["stop", "start", "restart"], hosts: HostOptions, *, as_json: bool) -> None:
    """Have every host do *action*; raises the first error after all were told."""
    from kimideploy.cli.hosts import places  # noqa: PLC0415
    from kimideploy.errors import KimiError  # noqa: PLC0415
    from kimideploy.remote.places import each  # noqa: PLC0415

    where = places(hosts)
    states = each(where, lambda place: place.ask("service", str, action=action))
    said = {
        place.name: state
        for place, state in zip(where, states, strict=True)
        if not isinstance(state, KimiError)
    }
    if as_json:
        sys.stdout.write(json.dumps(said, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.writelines(tame(f"{name}  {state}\n") for name, state in said.items())
    for state in states:
        if isinstance(state, KimiError):
            raise state
