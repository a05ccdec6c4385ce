"""decide: facts, profiles and a request in, a Plan or a NoFit out; a function of its arguments."""

from __future__ import annotations

from kimideploy import __version__
from kimideploy.catalog.find import find_model
from kimideploy.catalog.types import Catalog, Engine
from kimideploy.errors import RequestError
from kimideploy.planning.choose import best_first, notices, reasons
from kimideploy.planning.inventory import check
from kimideploy.planning.search import Refused, Weighed, search
from kimideploy.planning.speed import speed_of
from kimideploy.planning.strangers import knowing
from kimideploy.planning.suggest import closest
from kimideploy.planning.types import Decision, Inventory, NoFit, Pins, Plan, Request
from kimideploy.planning.ways import nearest, ways_out

#: alternatives that are listed; the rest differ in detail only
_ALTERNATIVES = 8
_MOST_CONCURRENCY = 65_536
#: no engine runs without anything beside its fraction
_MOST_FRACTION = 0.99
_MOST_DCP = 64


def decide(request: Request, inventory: Inventory, catalog: Catalog) -> Decision:
    """Return the Plan for *request* on *inventory* (without launches yet), or why there is none.

    Raises RequestError for names no profile knows and for numbers that can't be meant.
    """
    catalog = knowing(catalog, inventory)
    model = find_model(catalog, request.model)
    _check(request, catalog, model.context, tuple(c.id for c in model.checkpoints))
    check(inventory)
    fitting, refused = search(request, inventory, catalog, model)
    rejected = tuple(outcome.rejection for outcome in refused)
    ordered = best_first(fitting, request.goal, catalog)
    if not ordered:
        close = nearest(refused)
        rejection = close.rejection if close is not None else None
        return NoFit(
            request=request,
            inventory=inventory,
            reason=_why_not(request, inventory, close, catalog),
            nearest=rejection,
            fit=close.fit if close is not None else None,
            ways_out=ways_out(request, inventory, catalog, model, refused),
            rejected=rejected,
        )
    chosen = ordered[0]
    return Plan(
        request=request,
        inventory=inventory,
        candidate=chosen.candidate,
        fit=chosen.fit,
        why=reasons(chosen, fitting, request.goal, catalog),
        pins=_pins(chosen, catalog),
        served_name=request.served_name or model.id,
        copies=_copies(chosen),
        warnings=notices(chosen, catalog),
        speed=speed_of(chosen, catalog),
        alternatives=tuple(w.candidate for w in ordered[1 : 1 + _ALTERNATIVES]),
        rejected=rejected,
    )


def _check(request: Request, catalog: Catalog, longest: int, checkpoints: tuple[str, ...]) -> None:
    if request.tier is not None:
        tiers = [tier.id for tier in catalog.tiers]
        if request.tier not in tiers:
            raise RequestError(
                f"--tier {request.tier!r} is not a tier{closest(request.tier, tiers)}",
                hint=f"tiers: {', '.join(tiers)}",
            )
    if request.checkpoint is not None and request.checkpoint not in checkpoints:
        raise RequestError(
            f"--checkpoint {request.checkpoint!r} is none of {request.model}"
            f"{closest(request.checkpoint, checkpoints)}",
            hint=f"checkpoints: {', '.join(checkpoints)}",
        )
    for flag, value, most in (
        ("--context", request.context, longest),
        ("--min-context", request.min_context, longest),
        ("--concurrency", request.concurrency, _MOST_CONCURRENCY),
        ("--port", request.port, 65_535),
        ("--batch-tokens", request.batch_tokens, longest),
        ("--sequences", request.sequences, _MOST_CONCURRENCY),
        ("--dcp", request.dcp, _MOST_DCP),
    ):
        if value is not None and not 1 <= value <= most:
            raise RequestError(f"{flag} {value} is outside 1 … {most:,}")
    fraction = request.memory_fraction
    if fraction is not None and not 0 < fraction <= _MOST_FRACTION:
        raise RequestError(f"--memory-fraction {fraction:g} is outside 0 … {_MOST_FRACTION:g}")
    if (
        request.context is not None
        and request.min_context is not None
        and request.min_context > request.context
    ):
        raise RequestError(
            f"--min-context {request.min_context} is more than --context {request.context}"
        )


def _why_not(
    request: Request, inventory: Inventory, close: Refused | None, catalog: Catalog
) -> str:
    note = next((tier.note for tier in catalog.tiers if tier.id == request.tier), None)
    if close is None:
        wanted = f"tier {request.tier}" if request.tier is not None else "the request"
        have = sorted(
            {f"{node.gpus} × {node.gpu}" if node.gpu else "no GPU" for node in inventory.nodes}
        )
        reason = f"{wanted} has no candidate on {', '.join(have)}"
    else:
        reason = close.rejection.reason
    return f"{reason}. {note}" if note and (close is None or close.fit is None) else reason


def _pins(chosen: Weighed, catalog: Catalog) -> Pins:
    s = chosen.subject
    vendor = s.generation.vendor if s.generation is not None else "nvidia"
    engine: Engine = s.engine
    return Pins(
        repo=s.checkpoint.repo,
        revision=s.request.revision or s.checkpoint.revision,
        engine_version=engine.versions.pinned,
        image=engine.images.get(vendor),
        requirements=engine.install.requirements.get(vendor, ()),
        profiles=catalog.digest,
        kimideploy=__version__,
    )


def _copies(chosen: Weighed) -> int:
    candidate, group = chosen.candidate, chosen.group
    if candidate.nodes > 1:
        return len(group.nodes) // candidate.nodes
    per_node = group.node.gpus // candidate.gpus_per_node if candidate.gpus_per_node else 1
    if chosen.fit.ram:
        # Why: each copy wants the host's memory for itself.
        taken = sum(share.bytes for share in chosen.fit.ram)
        per_node = min(per_node, (chosen.fit.ram_capacity or taken) // taken)
    return len(group.nodes) * max(1, per_node)
