"""What a plan wants to know of a machine before it is launched there."""

from __future__ import annotations

import posixpath

from kimideploy.engines.llamacpp import first_part
from kimideploy.engines.site import HEAD_ADDRESS, Site
from kimideploy.facts.types import Aims
from kimideploy.planning.types import Launch

#: seconds in which reading the weights is measured
_MEASURE = 0.4


def aims(
    site: Site | None,
    launch: Launch | None,
    *,
    venv: str | None = None,
    weights: str | None = None,
    measure: bool = True,
    imports: bool = True,
    hub: str | None = None,
) -> Aims:
    """Return what the probe is to look for; *hub* None: nothing is fetched.

    *weights* is the folder where a pull would put them, if the plan names none.
    """
    reach = (hub,) if hub is not None else ()
    if site is None or launch is None:
        return Aims(reach=reach, imports=imports)
    several = site.plan.candidate.nodes > 1 and site.rank > 0 and site.head != HEAD_ADDRESS
    return Aims(
        weights=folder_of(site) or weights,
        measure=_MEASURE if measure else 0,
        listen=(f"{_bracketed(launch.host)}:{launch.port}",) if not launch.headless else (),
        # Why: nobody listens there before a launch, and a refusal shows that the way is open.
        reach=(*reach, *((f"{_bracketed(site.head)}:{launch.port}",) if several else ())),
        files=tuple(secret.file for secret in launch.secrets),
        programs=(launch.argv[0],),
        path=(posixpath.join(venv, "bin"),) if venv is not None else (),
        imports=imports,
    )


def folder_of(site: Site) -> str | None:
    """Return the folder that the engine reads weights from; None: it fetches them itself."""
    if site.from_hub and site.engine.id not in ("ktransformers", "llamacpp"):
        return None
    if site.engine.id == "llamacpp":
        return posixpath.dirname(first_part(site))
    return site.folder


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
