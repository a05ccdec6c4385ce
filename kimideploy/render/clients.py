"""Configurations of clients: each template gives the shape, and is fed with finished words."""

from __future__ import annotations

import json
from dataclasses import dataclass

from kimideploy.catalog.clients import Client
from kimideploy.catalog.types import Model
from kimideploy.errors import RequestError
from kimideploy.render.files import template


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What a client is pointed at. `url` ends in /v1; `key` names a variable of the environment."""

    url: str
    model: str
    key: str
    context: int
    field: str


def configured(client: Client, aim: Aim, model: Model) -> dict[str, str]:
    """Return path → text of each file of *client*; raises RequestError for a name that fits none.

    Words are written as JSON strings, which YAML, TOML and Python read as what they are.
    """
    if not (aim.key.isascii() and aim.key.isidentifier()):
        raise RequestError(f"{aim.key!r} is no name of a variable", hint="--key-env KIMI_API_KEY")
    if any(not " " <= sign <= "~" or sign in "{}" for sign in aim.model + aim.url):
        raise RequestError("model and URL must be plain text")
    words = {
        "url": aim.url,
        "base": aim.url.removesuffix("/v1"),
        "model": aim.model,
        "key": aim.key,
        "field": aim.field,
        "provider": f"hosted_vllm/{aim.model}",
        "openai_model": f"openai/{aim.model}",
        "local_model": f"local/{aim.model}",
        "key_of_litellm": f"os.environ/{aim.key}",
        "key_of_opencode": f"{{env:{aim.key}}}",
        "key_of_continue": f"${{{{ secrets.{aim.key} }}}}",
        "key_helper": f"printenv {aim.key}",
    }
    numbers = {
        "context": aim.context,
        # Why half: a request over the context is refused, and the prompt needs room, too.
        "max_tokens": min(model.answer_tokens, aim.context // 2),
        "temperature": model.sampling.temperature,
        "top_p": model.sampling.top_p if model.sampling.top_p is not None else 1.0,
    }
    values = {name: json.dumps(word) for name, word in words.items()} | numbers
    return {file.path: template(f"clients/{file.template}", values) for file in client.files}
