"""A decision as one HTML page that asks for nothing: no script, no request, no clock.

Whatever a plan file says is escaped, signs that show nothing become ?, and only http and https
addresses become links. The page's Content-Security-Policy allows its own style and no more.
"""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from kimideploy import __version__
from kimideploy.planning.bill import Bill
from kimideploy.planning.types import (
    Decision,
    Inventory,
    NoFit,
    Plan,
    Rejection,
    encode,
)
from kimideploy.quantities import MIB
from kimideploy.resources import shipped
from kimideploy.views.charts import COLOURS, number, plain
from kimideploy.views.figures import (
    gib,
    memory_section,
    speed_section,
)
from kimideploy.views.money import cost_section

if TYPE_CHECKING:
    from jinja2 import Environment

#: rows of rejected candidates, so that no plan file makes a page nobody can open
MOST_REJECTED = 500
_VERDICTS = {"yes": "It fits", "tight": "It only just fits", "no": "It does not fit"}
_WEB = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)


def page(decision: Decision, *, commands: Sequence[str] = (), cost: Bill | str = "") -> str:
    """Return the page of *decision*, the same text for the same arguments.

    `commands` are finished shell commands, one for each launch of the plan; *cost* is what a
    traffic costs, or why nobody can say.
    """
    from markupsafe import Markup  # noqa: PLC0415

    shapes = _shapes()
    style = shapes.get_template("report.css.j2").render(colours=COLOURS)
    rejected = decision.rejected[:MOST_REJECTED]
    values: dict[str, Any]
    match decision:
        case Plan() as plan:
            values = _plan(plan, commands, cost)
        case NoFit() as no:
            values = _no_fit(no)
    return shapes.get_template("report.html.j2").render(
        {
            **values,
            "rejected": _alike(rejected),
            "rejected_count": len(decision.rejected),
            "rejected_shown": len(rejected),
            "version": __version__,
            "schema": decision.schema,
            "digest": sha256(encode(decision)).hexdigest(),
            # Why Markup: the style is ours alone, and its hash is of these very bytes.
            "style": Markup(style),  # noqa: S704
            "style_hash": b64encode(sha256(style.encode()).digest()).decode(),
        }
    )


def _plan(plan: Plan, commands: Sequence[str], cost: Bill | str) -> dict[str, Any]:
    candidate, fit, pins = plan.candidate, plan.fit, plan.pins
    hardware = _machines(candidate.nodes, candidate.gpus_per_node, candidate.gpu)
    sections = (
        memory_section(fit, candidate.nodes * candidate.gpus_per_node),
        speed_section(plan.speed),
        cost_section(cost),
    )
    copies = f"{plan.copies:,} such plans fit on this hardware"
    weights = f"{pins.repo or 'unknown'} at {pins.revision or 'its newest revision'}"
    return {
        "title": f"{plan.served_name} on {hardware}",
        "verdict": {"kind": fit.verdict, "words": _VERDICTS[fit.verdict]},
        "lead": candidate.label,
        "figures": list(_figures(plan)),
        "facts": [
            ("Model", plan.request.model),
            ("Checkpoint", f"{candidate.checkpoint} ({candidate.format}), tier {candidate.tier}"),
            ("Weights", plan.request.model_path or weights),
            ("Engine", f"{candidate.engine} {pins.engine_version}"),
            ("Layout", f"{candidate.layout}, KV cache in {candidate.kv_dtype}"),
            ("Hardware", hardware),
            *([("Copies", copies)] if plan.copies > 1 else []),
            *(("Note", note) for note in plan.inventory.notes),
        ],
        "sections": [section for section in sections if section is not None],
        "commands": list(_commands(plan, commands)),
        "why": plan.why,
        "warnings": plan.warnings,
        "pins": [
            ("Weights", weights),
            ("Engine", f"{candidate.engine} {pins.engine_version}"),
            *([("Image", pins.image)] if pins.image is not None else []),
            *([("Packages", " ".join(pins.requirements))] if pins.requirements else []),
            ("Profiles", pins.profiles),
            ("kimideploy", pins.kimideploy),
        ],
        "alternatives": [other.label for other in plan.alternatives],
        "ways_out": (),
        "nearest": None,
    }


def _no_fit(no: NoFit) -> dict[str, Any]:
    machines = _inventory(no.inventory)
    gpus = no.nearest.candidate.nodes * no.nearest.candidate.gpus_per_node if no.nearest else 1
    memory = memory_section(no.fit, gpus) if no.fit is not None else None
    asked = {
        name: value
        for name, value in msgspec.to_builtins(no.request).items()
        if value != getattr(type(no.request)(), name) and value and name != "model"
    }
    return {
        "title": f"{no.request.model} on {machines}",
        "verdict": {"kind": "no", "words": "Nothing fits"},
        "lead": no.reason,
        "figures": (),
        "facts": [
            ("Model", no.request.model),
            ("Hardware", machines),
            *((_titled(name), _asked(value)) for name, value in asked.items()),
            *(("Note", note) for note in no.inventory.notes),
        ],
        "sections": [memory] if memory is not None else [],
        "commands": (),
        "why": (),
        "warnings": (),
        "pins": (),
        "alternatives": (),
        "ways_out": [
            {
                "change": way.change,
                "flags": flags if (flags := shlex.join(way.flags)) not in way.change else "",
                "proved": way.proved,
            }
            for way in no.ways_out
        ],
        "nearest": _rejection(no.nearest) if no.nearest is not None else None,
    }


def _figures(plan: Plan) -> Iterator[dict[str, str]]:
    """Yield the few numbers that are read first."""
    fit, speed = plan.fit, plan.speed
    yield {"name": "Context", "value": f"{fit.context:,}", "note": "tokens a request may take"}
    yield {
        "name": "KV cache",
        "value": f"{fit.kv_tokens:,}",
        "note": f"tokens: {fit.max_concurrency:,g} requests of that length at once",
    }
    if speed is None or not speed.points:
        return
    one = min(speed.points, key=lambda at: (at.concurrency, at.context))
    most = max(speed.points, key=lambda at: at.total.typical)
    each = "One user" if one.concurrency == 1 else f"Each of {one.concurrency:,} users"
    together = f"{most.concurrency:,} users together"
    for name, at, value in ((each, one, one.per_user), (together, most, most.total)):
        yield {
            "name": name,
            "value": f"{number(value.typical)} tok/s",
            "note": f"{number(value.low)} to {number(value.high)}, {at.context:,}-token context",
        }


def _commands(plan: Plan, commands: Sequence[str]) -> Iterator[dict[str, Any]]:
    from markupsafe import Markup, escape  # noqa: PLC0415

    nodes = [node.name for node in plan.inventory.nodes]
    for launch, text in zip(plan.launches, commands, strict=True):
        named = 0 <= launch.node < len(nodes)
        yield {
            "where": f"on {nodes[launch.node]}" if named else f"on node {launch.node}",
            "odd": any(not sign.isprintable() and sign != "\n" for sign in text),
            # Why: a browser reads a carriage return as a newline, and a command must be exact.
            "text": escape(text).replace("\r", Markup("&#13;")),
        }


def _rejection(one: Rejection) -> dict[str, Any]:
    numbers = ""
    # Why only large ones: small numbers are counts, and the reason names them.
    if one.need is not None and one.need >= MIB:
        have = f", {gib(one.have)} there" if one.have is not None else ""
        numbers = f" ({gib(one.need)} needed{have})"
    return {
        "label": one.candidate.label,
        "rule": one.rule,
        "reason": one.reason + numbers,
        "way_out": one.way_out or "",
        "link": one.link,
    }


def _alike(rejected: Sequence[Rejection]) -> list[dict[str, Any]]:
    """Candidates that one rule rejected with the same words share a row."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in map(_rejection, rejected):
        key = tuple(value for name, value in row.items() if name != "label")
        rows.setdefault(key, {**row, "labels": []})["labels"].append(row["label"])
    return list(rows.values())


def _machines(nodes: int, gpus: int, gpu: str | None) -> str:
    each = f"{gpus}×{gpu}" if gpu is not None else "CPU"
    return f"{nodes}×{each}" if nodes > 1 else each


def _inventory(inventory: Inventory) -> str:
    kinds = [(node.gpus, node.gpu) for node in inventory.nodes]
    return " and ".join(_machines(kinds.count(kind), *kind) for kind in dict.fromkeys(kinds))


def _titled(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _asked(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _is_web(address: object) -> bool:
    return isinstance(address, str) and _WEB.match(address) is not None and address.isprintable()


def _shown(value: Any) -> Any:
    """Every word of the page passes here before it is escaped; Markup is finished already."""
    return plain(value) if type(value) is str else value


def _shapes() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    shapes = Environment(
        loader=FileSystemLoader(shipped("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
        finalize=_shown,
    )
    shapes.tests["web"] = _is_web
    return shapes
