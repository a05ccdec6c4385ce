"""Engines: from a Plan to the words each node runs. Flag logic is Python, words are profiles."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from kimideploy.catalog.types import Catalog, EngineId
from kimideploy.engines import ktransformers, llamacpp, sglang, vllm
from kimideploy.engines.extra import check_words
from kimideploy.engines.site import (
    API_KEY_FILE,
    FIRST_PART,
    HEAD_ADDRESS,
    LOOPBACK,
    Site,
    sites,
    unresolved,
)
from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Notice, Plan, Secret

__all__ = ["complete", "unresolved"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class _Maker:
    """How one engine is started; `api_key` is the variable it reads its key from, if any."""

    command: Callable[[Site], tuple[str, ...]]
    environment: Callable[[Site], dict[str, str]]
    synonyms: tuple[tuple[str, ...], ...]
    api_key: str | None


_MAKERS: dict[EngineId, _Maker] = {
    "vllm": _Maker(vllm.command, vllm.environment, vllm.SYNONYMS, "VLLM_API_KEY"),
    "sglang": _Maker(sglang.command, sglang.environment, sglang.SYNONYMS, None),
    "ktransformers": _Maker(
        ktransformers.command, ktransformers.environment, sglang.SYNONYMS, None
    ),
    "llamacpp": _Maker(llamacpp.command, llamacpp.environment, llamacpp.SYNONYMS, "LLAMA_API_KEY"),
}


def complete(plan: Plan, catalog: Catalog) -> Plan:
    """Return *plan* with one Launch a node, and a warning for each thing nobody has said yet.

    Raises RequestError for engine arguments that contradict the plan, for names and paths that
    can't be passed on, and for a listening address that would have no key.
    """
    _check(plan)
    maker = _MAKERS[plan.candidate.engine]
    places = sites(plan, catalog)
    launches = tuple(_launch(site, maker) for site in places)
    told = {notice.code for notice in plan.warnings}
    warnings = tuple(n for n in _notices(places[0], launches) if n.code not in told)
    return msgspec.structs.replace(plan, launches=launches, warnings=(*plan.warnings, *warnings))


def _launch(site: Site, maker: _Maker) -> Launch:
    request = site.plan.request
    argv = maker.command(site)
    check_words(request.engine_args, argv, site.engine, maker.synonyms)
    env = {"DO_NOT_TRACK": "1", **maker.environment(site)}
    if site.plan.candidate.engine != "llamacpp":
        # Why: packages in ~/.local were seen to shadow the engine's own.
        env["PYTHONNOUSERSITE"] = "1"
        if not site.from_hub and not site.draft_from_hub:
            # Why: a folder that was hashed must not be amended from the hub.
            env["HF_HUB_OFFLINE"] = "1"
    return Launch(
        node=site.rank,
        argv=(*argv, *request.engine_args),
        env=tuple(sorted(env.items())),
        host=request.bind,
        port=site.port,
        headless=site.rank > 0,
        secrets=_secrets(site, maker),
    )


def _secrets(site: Site, maker: _Maker) -> tuple[Secret, ...]:
    """The key a listener beyond loopback needs, by reference."""
    if site.plan.request.bind in LOOPBACK:
        return ()
    if maker.api_key is None:
        raise RequestError(
            f"{site.engine.name} can't listen on {site.plan.request.bind}: it takes its key only"
            " in argv, where every user of the machine reads it",
            hint="leave --bind out and put a proxy that asks for a key in front of 127.0.0.1",
        )
    return (Secret(variable=maker.api_key, file=API_KEY_FILE),)


def _check(plan: Plan) -> None:
    request = plan.request
    if not _NAME.fullmatch(plan.served_name):
        raise RequestError(
            f"{plan.served_name!r} can't be a served model name",
            hint="letters, digits and . _ / : - make one, for example kimi-k2.7-code",
        )
    path = request.model_path
    if path is not None and (
        not path or path[0] in "-~" or path.strip() != path or _CONTROL.search(path)
    ):
        raise RequestError(
            f"--model-path {path!r} can't be passed to an engine as it is",
            hint="write the whole path, from / on",
        )
    for flag, address in (("--bind", request.bind), ("--head-address", request.head_address)):
        if address is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]*|::1?", address):
            raise RequestError(f"{flag} {address!r} is no address or host name")


def _notices(site: Site, launches: tuple[Launch, ...]) -> list[Notice]:
    notices = []
    missing = {name for launch in launches for name in unresolved(launch)}
    if HEAD_ADDRESS in missing:
        notices.append(
            Notice(
                "head-address",
                f"{HEAD_ADDRESS} stands for the first node's address as the others reach it; "
                "say --head-address",
            )
        )
    if FIRST_PART in missing:
        notices.append(
            Notice(
                "first-part",
                f"{FIRST_PART} stands for the first part of the GGUF, whose number of parts no "
                "profile knows; say --model-path FILE",
            )
        )
    if site.engine.id == "ktransformers" and (site.cores is None or site.numa is None):
        notices.append(
            Notice(
                "cores-guess",
                "--kt-cpuinfer and --kt-threadpool-count are guesses where cores and NUMA nodes "
                "are not known; say --cores and --numa",
            )
        )
    if site.plan.candidate.text_only and site.engine.id in ("sglang", "ktransformers"):
        notices.append(
            Notice("text-only", f"{site.engine.name} has no flag that leaves the vision tower out")
        )
    return notices
