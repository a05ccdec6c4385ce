"""Files from a Plan: each template gives the shape, and is fed with finished, quoted words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kimideploy.catalog.types import Catalog
from kimideploy.engines.site import Site, sites, unresolved
from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Plan, encode
from kimideploy.render.quoting import (
    file_assignment,
    shell_assignment,
    shell_words,
    systemd_assignment,
    systemd_path,
    systemd_words,
)
from kimideploy.resources import shipped

Kind = Literal["shell", "systemd", "env"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """How a unit on a host runs its engine: by kimideploy's own words, which watch over it.

    `quiet` is the longest silence in seconds while it loads; `venv` is where the engine is, None
    for a rehearsal.
    """

    words: tuple[str, ...]
    venv: str | None
    settings: str
    quiet: float
    rehearsal: bool = False
    user: bool = False


_USUAL = ("/usr/local/bin", "/usr/bin", "/bin")
#: where a host keeps an engine's virtual environment, and a site its own settings
VENVS = "/opt/kimideploy"
SETTINGS = "/etc/kimideploy"
#: Bytes per second and seconds, both guesses: 595 GB came in at 127 MB/s from a busy network file
#: system (https://github.com/huggingface/physics-intern), and compiling takes minutes more.
_SLOW_DISK = 100_000_000
_COMPILE = 30 * 60
#: seconds; the longest wait those operators allow, taken where the size is not known
_LONGEST = 4 * 60 * 60
#: /proc/devices calls the driver nvidia or, in older versions, nvidia-frontend; names that do not
#: resolve are ignored
_NVIDIA = (
    "char-nvidia",
    "char-nvidia-frontend",
    "char-nvidia-uvm",
    "char-nvidia-caps",
    "char-nvidia-nvswitch",
)
_AMD = ("/dev/kfd", "char-drm")
_RDMA = "char-infiniband*"
#: Why a shell: systemd hands credentials over as files, and engines read their key from a variable.
_WITH_SECRETS = (
    'for name in {names}; do export "$name=$(cat "$CREDENTIALS_DIRECTORY/$name")"; done; exec "$@"'
)


def render(plan: Plan, kind: Kind, catalog: Catalog) -> dict[str, str]:
    """Return file name → text, one file a node.

    `plan` carries its launches. Raises RequestError for a word that the file's reader can't
    represent and for a path that a unit can't see.
    """
    places = sites(plan, catalog)
    if len(plan.launches) != len(places):
        raise RequestError("the plan has no launches: it was not completed for its engine")
    files = {}
    for launch, site in zip(plan.launches, places, strict=True):
        header = _header(plan, launch, site)
        if kind == "shell":
            name, text = "launch{}.sh", template("launch.sh.j2", _shell(launch, header))
        elif kind == "systemd":
            name, text = (
                _slug(plan) + "{}.service",
                template("engine.service.j2", _unit(plan, launch, site, header)),
            )
        else:
            name, text = _slug(plan) + "{}.env", template("engine.env.j2", _env(launch, header))
        files[name.format(f"-node{launch.node}" if len(places) > 1 else "")] = text
    return files


def unit(plan: Plan, node: int, how: Supervised, catalog: Catalog) -> str:
    """Return the unit by which a host keeps *node* of *plan* running; raises as `render` does."""
    launch, site = plan.launches[node], sites(plan, catalog)[node]
    header = _header(plan, launch, site)
    return template("engine.service.j2", _unit(plan, launch, site, header, how))


def plan_digest(plan: Plan) -> str:
    """Return the sha256 of the plan's own JSON, which names it in every file."""
    return hashlib.sha256(encode(plan)).hexdigest()


def _header(plan: Plan, launch: Launch, site: Site) -> list[str]:
    where = f" on {site.node.name}" if plan.candidate.nodes > 1 else ""
    lines = [
        f"{plan.served_name}{where}: {plan.candidate.label}",
        f"http://{launch.host}:{launch.port}" if not launch.headless else "no endpoint of its own",
        "",
        f"plan sha256:{plan_digest(plan)}",
        f"For {site.engine.name} {plan.pins.engine_version}, by kimideploy {plan.pins.kimideploy}",
        "Change the plan, not this file.",
    ]
    lines += [
        f"REPLACE {name}: it stands for a word nobody has said." for name in unresolved(launch)
    ]
    return ["".join(sign if sign.isprintable() else "?" for sign in line) for line in lines]


def _shell(launch: Launch, header: list[str]) -> dict[str, Any]:
    return {
        "header": header,
        "environment": [shell_assignment(name, value) for name, value in launch.env],
        "secrets": [
            {"variable": secret.variable, "file": shell_words([secret.file])}
            for secret in launch.secrets
        ],
        "lines": [shell_words(words) for words in _by_flag(launch.argv)],
    }


def _env(launch: Launch, header: list[str]) -> dict[str, Any]:
    return {
        "header": header,
        "environment": [file_assignment(name, value) for name, value in launch.env],
    }


def _unit(
    plan: Plan, launch: Launch, site: Site, header: list[str], how: Supervised | None = None
) -> dict[str, Any]:
    rehearsal = how is not None and how.rehearsal
    local = not site.from_hub or plan.candidate.engine in ("ktransformers", "llamacpp")
    local = local and not rehearsal
    if local:
        check_path("--model-path", site.folder)
    if how is not None and how.venv is not None:
        check_path("--venv", how.venv)
    seconds = _load_seconds(site) if how is None else int(how.quiet) + 120
    vendor = site.generation.vendor if site.generation is not None and not rehearsal else "none"
    cluster = plan.candidate.nodes > 1
    paths = [f"{VENVS}/{plan.candidate.engine}/bin"] if how is None else []
    if how is not None and how.venv is not None:
        paths = [f"{how.venv}/bin"]
    return {
        "supervised": how is not None,
        "user": how is not None and how.user,
        "cluster": cluster,
        "header": header,
        "description": header[0].replace("%", "%%"),
        "weights": systemd_path(site.folder) if local else None,
        "command": systemd_words(_wrapped(launch) if how is None else how.words),
        "path": systemd_assignment("PATH", ":".join([*paths, *_USUAL])),
        "environment": [systemd_assignment(name, value) for name, value in launch.env],
        "overrides": f"{SETTINGS}/{_slug(plan)}.env" if how is None else how.settings,
        "secrets": launch.secrets,
        "timeout": f"{seconds // 60}min",
        "timeout_why": (
            "Time to load and compile on a slow disk, a guess; Type=exec needs less."
            if how is None
            else "The longest silence; whoever runs the engine extends it while the load moves."
        ),
        "vendor": vendor,
        "devices": [*(_AMD if vendor == "amd" else _NVIDIA), *([_RDMA] if cluster else [])],
        "home": (local and in_a_home(site.folder)) or any(map(in_a_home, paths)),
        "alone": (local or rehearsal) and not cluster and not launch.secrets and site.draft is None,
    }


def _wrapped(launch: Launch) -> tuple[str, ...]:
    """The words of ExecStart=. Why env: it looks the program up in the unit's own PATH."""
    if not launch.secrets:
        return ("/usr/bin/env", *launch.argv)
    names = " ".join(secret.variable for secret in launch.secrets)
    return ("/bin/sh", "-c", _WITH_SECRETS.format(names=names), "sh", *launch.argv)


def _load_seconds(site: Site) -> int:
    size = site.checkpoint.size
    seconds = _LONGEST if size is None else int(size) // _SLOW_DISK + _COMPILE
    return -(-seconds // 300) * 300


def in_a_home(path: str) -> bool:
    """Return whether *path* lies where a unit's ProtectHome hides it."""
    return path.startswith(("/home/", "/root/"))


def check_path(flag: str, path: str) -> None:
    """Raise RequestError for a path that a unit would not find."""
    if not path.startswith("/"):
        raise RequestError(
            f"{flag} {path!r} is relative, and a unit has no folder to start from",
            hint="write the whole path, from / on",
        )
    if path.startswith(("/tmp/", "/var/tmp/", "/run/user/")):  # noqa: S108
        raise RequestError(
            f"{flag} {path!r} is hidden from the unit, which has its own /tmp",
            hint="keep it where it lasts, weights for example under /srv/models",
        )


def _by_flag(argv: tuple[str, ...]) -> Iterator[list[str]]:
    """Yield the command's own words, then each flag with its values."""
    group: list[str] = []
    for word in argv:
        if word.startswith("--") and group:
            yield group
            group = []
        group.append(word)
    yield group


def _slug(plan: Plan) -> str:
    return plan.served_name.replace("/", "-").replace(":", "-")


def template(name: str, values: dict[str, Any]) -> str:
    """Return the shipped template *name* filled with *values*."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    # Why no autoescape: no HTML here, and every word is already quoted for its reader.
    shapes = Environment(
        loader=FileSystemLoader(shipped("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    return shapes.get_template(name).render(values)
