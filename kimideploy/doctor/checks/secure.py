"""Secure defaults: who can reach the engine, and who can read its key."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import NODES, PLANNED, check
from kimideploy.doctor.types import Finding
from kimideploy.engines.site import HEAD_ADDRESS, LOOPBACK
from kimideploy.errors import RequestError

_SECURITY = "https://docs.vllm.ai/en/stable/usage/security/"
#: what a mode gives to others than the owner
_OTHERS = 0o077


@check(
    "bind-key",
    "blocks",
    scope=PLANNED,
    why="whoever reaches the port uses the machine, and more than /v1 is open there",
    link=_SECURITY,
    refusal=RequestError,
)
def bind_key(case: Case) -> Iterator[Finding]:
    """An engine that listens beyond loopback asks for a key."""
    launch = case.command
    if launch.host in LOOPBACK or launch.headless:
        return
    if not launch.secrets:
        yield Finding(
            f"it would listen on {launch.host} without a key",
            "leave --bind out, and put `kimideploy guard` before it",
        )
    elif launch.host in ("0.0.0.0", "::"):  # noqa: S104
        yield Finding(
            f"it would listen on all addresses ({launch.host}), and a key does not cover all of an"
            " engine's paths",
            "leave --bind out, and put `kimideploy guard` before it",
            "warns",
        )


@check(
    "key-mode",
    "blocks",
    scope=PLANNED,
    why="a key that others can read is no key",
    link=_SECURITY,
)
def key_mode(case: Case) -> Iterator[Finding]:
    """The key's file is there, and nobody else can read it."""
    if not case.command.secrets:
        return
    for one in case.known(case.facts.files, "files"):
        if one.error is not None:
            raise Unseen(f"{one.path}: {one.error}")
        if one.exists is False:
            yield Finding(
                f"there is no {one.path}",
                f"kimideploy guard key > {one.path}, with mode 0600",
            )
        elif (one.mode or 0) & _OTHERS:
            yield Finding(
                f"{one.path} has mode {one.mode:04o}: others can read it", f"chmod 600 {one.path}"
            )


@check(
    "node-ports",
    "blocks",
    scope=NODES,
    why="the ports between nodes take pickled objects from anybody (CVE-2025-32444, 30165)",
    link=_SECURITY,
)
def node_ports(case: Case) -> Iterator[Finding]:
    """The nodes talk over a private network."""
    head = case.plan.head
    if head == HEAD_ADDRESS:
        raise Unseen("the first node's address is not said")
    try:
        address = ipaddress.ip_address(head)
    except ValueError:
        raise Unseen(f"{head} is a name, and what it leads to was not looked up") from None
    if address.is_global:
        yield Finding(
            f"{head} is a public address, and the nodes' ports are open on it",
            "--head-address with one of a private network; let only the nodes reach each other",
        )


@check(
    "dev-mode",
    "blocks",
    why="vLLM's development endpoints run code for whoever asks",
    link=_SECURITY,
)
def dev_mode(case: Case) -> Iterator[Finding]:
    """No variable opens development endpoints or unpickles what comes in."""
    for name in ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION"):
        if case.environment.get(name, "0") not in ("", "0"):
            yield Finding(f"{name}={case.environment[name]}", f"unset {name}")


@check(
    "preload",
    "notes",
    why="a library that is loaded first changes what every program does",
)
def preload(case: Case) -> Iterator[Finding]:
    """Nothing is preloaded into the engine."""
    said = case.environment.get("LD_PRELOAD")
    if said:
        yield Finding(f"LD_PRELOAD={said}", "unset LD_PRELOAD, unless you put it there")
