"""Whether a tool call's arguments fit the schema of its tool."""

from __future__ import annotations

import json
from typing import Any

from kimideploy.conformance.answers import line, quote


def flaw(arguments: str | None, schema: Any) -> str | None:
    """Return what is wrong with the JSON text *arguments*, None if it is valid for *schema*.

    A schema that is none itself, or points outside itself, is a flaw, too: nothing is fetched.
    """
    from jsonschema import exceptions, validators  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415

    if arguments is None:
        return "there are no arguments"
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return "is no JSON"
    try:
        kind = validators.validator_for(schema, default=validators.Draft202012Validator)
        kind.check_schema(schema)
        # Why the empty registry: without one, an address in $ref is asked for over the network.
        error = exceptions.best_match(kind(schema, registry=Registry()).iter_errors(value))
    except exceptions.SchemaError as wrong:
        return f"the schema is none: {quote(wrong.message)}"
    except Exception as wrong:  # noqa: BLE001  whatever a hostile schema makes it raise
        return f"the schema can't be used: {type(wrong).__name__}"
    if error is None:
        return None
    at = "".join(f".{part}" for part in error.absolute_path)
    return f"{f'at {at}: ' if at else ''}{line(error.message, 120)}"
