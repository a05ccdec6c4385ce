"""`kimideploy.yaml`: the options of `plan` and `serve`, written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from kimideploy.cli.options import PlanOptions
from kimideploy.documents import read_document
from kimideploy.errors import RequestError
from kimideploy.facts.types import Strict
from kimideploy.planning.types import Request

DEFAULT = Path("kimideploy.yaml")
_THOUSANDS = {"k": 1024, "m": 1024 * 1024}


class Config(Strict, frozen=True, kw_only=True):
    """The machine and the request; every key but `request` describes the machine."""

    hardware: str | None = None
    facts: tuple[str, ...] = ()
    ram: str | None = None
    cores: int | None = None
    numa: int | None = None
    disk: str | None = None
    profiles: tuple[str, ...] = ()
    request: Request = Request()


def read_config(given: Path | None) -> tuple[Config, Path | None]:
    """Return the file that was named, or ./kimideploy.yaml if it is there, and where it lies."""
    path = given if given is not None else DEFAULT if DEFAULT.is_file() else None
    if path is None:
        return Config(), None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise RequestError(f"--config {path} can't be read: {error}") from error
    return read_document(text, Config, name=str(path)), path


def request_from(options: PlanOptions, base: Request) -> Request:
    """Return *base* with what the options say instead; raises RequestError for a wrong word."""
    said: dict[str, Any] = {
        "model": options.model,
        "tier": options.tier,
        "engine": options.engine,
        "checkpoint": options.checkpoint,
        "context": _tokens("--context", options.context),
        "min_context": _tokens("--min-context", options.min_context),
        "concurrency": options.concurrency,
        "kv_dtype": options.kv_dtype,
        "goal": options.goal,
        "text_only": options.text_only or None,
        "draft": options.draft or None,
        "allow_tight": options.allow_tight or None,
        "model_path": options.model_path,
        "revision": options.revision,
        "served_name": options.served_name,
        "host": options.host,
        "port": options.port,
        "head_address": options.head_address,
        "engine_args": tuple(options.engine_arg) if options.engine_arg else None,
    }
    values = msgspec.structs.asdict(base) | {k: v for k, v in said.items() if v is not None}
    _check_words(values)
    return msgspec.convert(values, Request)


def _check_words(values: dict[str, Any]) -> None:
    from typing import get_args, get_type_hints  # noqa: PLC0415

    from kimideploy.planning.suggest import closest  # noqa: PLC0415

    hints = get_type_hints(Request)
    for name in ("engine", "kv_dtype", "goal"):
        words = _words(hints[name], get_args)
        value = values[name]
        if value is not None and value not in words:
            flag = f"--{name.replace('_', '-')}"
            raise RequestError(
                f"{flag} {value!r} is not one of {', '.join(words)}{closest(value, words)}"
            )


def _words(annotation: Any, get_args: Any) -> list[str]:
    found: list[str] = []
    for part in get_args(annotation):
        found += [part] if isinstance(part, str) else _words(part, get_args)
    return found


def _tokens(flag: str, text: str | None) -> int | None:
    """`131072`, `128k` or `1m` as tokens."""
    if text is None:
        return None
    word = text.strip().lower().replace("_", "").replace(",", "")
    scale = _THOUSANDS.get(word[-1:], 1)
    digits = word[:-1] if scale > 1 else word
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):  # noqa: PLR2004
        raise RequestError(f"{flag} {text!r} is no number of tokens", hint=f"{flag} 128k")
    return int(digits) * scale
