"""The user's own words for the engine: appended as they are, once they contradict nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kimideploy.catalog.types import Engine
from kimideploy.errors import RequestError

_NUMBER = re.compile(r"-[0-9.]+(?:[eE][-+]?[0-9]+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

#: what to say instead of a flag whose concept the plan decides, emitted or not
_INSTEAD = {
    "model": "--model, --checkpoint or --model-path",
    "served_name": "--served-name",
    "host": "--bind",
    "port": "--port",
    "revision": "--revision",
    "code_revision": "--revision",
    "context": "--context",
    "parallel": "--concurrency",
    "kv_dtype": "--kv-dtype",
    "text_only": "--text-only",
    "mm_data_parallel": "--text-only",
    "mmproj": "--text-only",
    "speculative": "--draft",
    "speculative_algorithm": "--draft",
    "speculative_model": "--draft",
    "speculative_revision": "plan --pin",
    "tensor_parallel": "--hardware, --tier or --goal: the layout is what was proved to fit",
    "pipeline_parallel": "--hardware, --tier or --goal: the layout is what was proved to fit",
    "data_parallel": "--hardware, --tier or --goal: the layout is what was proved to fit",
    "dp_attention": "--hardware, --tier or --goal: the layout is what was proved to fit",
    "decode_context_parallel": "--dcp or --goal context: the layout is what was proved to fit",
    "expert_parallel": "--goal throughput: the layout is what was proved to fit",
    "nnodes": "--hardware NODESxGPUSxNAME",
    "node_rank": "--hardware NODESxGPUSxNAME",
    "headless": "--hardware NODESxGPUSxNAME",
    "master_addr": "--head-address",
    "dist_init": "--head-address",
    "memory_fraction": "--memory-fraction: the plan counts with this number",
    "batch_tokens": "--batch-tokens: the plan counts with this number",
    "chunked_prefill": "--batch-tokens: the plan counts with this number",
    "sequences": "--sequences: the plan counts with this number",
}

_OURS = "the plan's own value"
_KEY = "a guard or proxy in front of the engine: a key in argv is read by every user of the machine"
_PARSERS = "nothing: without its parsers the engine leaves reasoning and tool calls in the content"
_CODE = "nothing: it lets a request run code in the engine"

#: flags that break a promise whatever the plan says
_NEVER = {
    "--api-key": _KEY,
    "--admin-api-key": _KEY,
    "--hf-token": "the environment variable HF_TOKEN",
    "-hft": "the environment variable HF_TOKEN",
    "--no-enable-auto-tool-choice": _PARSERS,
    "--no-jinja": _PARSERS,
    "--no-reasoning-preserve": "nothing: the model is trained to see its earlier reasoning",
    "--enable-custom-logit-processor": _CODE,
    "--trust-request-chat-template": _CODE,
    "--config": "each flag as its own --engine-arg: a file may say anything",
}


def check_words(
    words: Sequence[str],
    argv: Sequence[str],
    engine: Engine,
    synonyms: Sequence[Sequence[str]],
) -> None:
    """Raise RequestError unless *words* may follow *argv*.

    Refused are flags that the plan already says or decides, in any of the engine's spellings,
    and flags that break a promise; what is left is the engine's own parser to judge.
    """
    if words and not _is_flag(words[0]):
        raise RequestError(
            f"--engine-arg {words[0]!r} does not begin with a flag",
            hint="for example: --engine-arg=--seed=7",
        )
    refused = _ours(argv, engine) | _NEVER
    for word in words:
        if _CONTROL.search(word):
            raise RequestError(f"--engine-arg {word!r} holds a control character")
        if not _is_flag(word):
            continue
        flag = _flag(word)
        spellings = {flag}.union(*(group for group in synonyms if flag in group))
        for known, instead in refused.items():
            # Why: argparse takes an unambiguous beginning for the whole flag.
            if known in spellings or (flag.startswith("--") and known.startswith(flag)):
                raise RequestError(
                    f"--engine-arg {word!r}: {known} is not for the operator to set here",
                    hint=f"use {instead}",
                )


def _ours(argv: Sequence[str], engine: Engine) -> dict[str, str]:
    """Every flag of the plan, and what to use instead of it."""
    result = {}
    for word, following in zip(argv, (*argv[1:], "--"), strict=True):
        if _is_flag(word):
            result[word] = _OURS
            if _is_flag(following):
                result[f"--no-{word[2:]}"] = _OURS
    for concept, flag in engine.flags.items():
        if concept in _INSTEAD:
            result[flag.word] = _INSTEAD[concept]
        elif flag.word in argv and "parser" in concept:
            result[flag.word] = _PARSERS
    return result


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1 and not _NUMBER.fullmatch(word)


def _flag(word: str) -> str:
    """The bare flag: no value, no dotted key of a JSON flag, dashes for underscores."""
    name = word.partition("=")[0]
    if not name.startswith("--"):
        return name
    return name.partition(".")[0].replace("_", "-")
