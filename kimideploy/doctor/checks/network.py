"""The network of one machine: its port, the hub, its interfaces."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import NODES, PLANNED, SEVERAL_GPUS, check
from kimideploy.doctor.types import Finding
from kimideploy.engines.site import HEAD_ADDRESS
from kimideploy.errors import BusyError

_NCCL_ENV = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"


@check(
    "port",
    "blocks",
    scope=PLANNED,
    why="an engine opens its port when it has loaded, and ends there if it is taken",
    refusal=BusyError,
)
def port(case: Case) -> Iterator[Finding]:
    """The engine may listen where it wants to."""
    launch = case.command
    if launch.headless:
        return
    where = f"port {launch.port} of {launch.host}"
    found = [
        one
        for one in case.known(case.facts.listen, "listen")
        if (one.host.strip("[]"), one.port) == (launch.host, launch.port)
    ]
    if not found:
        raise Unseen("the facts are of another port")
    one = found[0]
    # Why without a pid: who is not root may not see whose port it is.
    ours = bool(case.ours & set(one.pids)) or bool(case.ours and not one.pids)
    if one.state == "taken" and not ours:
        who = f" by {one.holder}" if one.holder is not None else ""
        yield Finding(
            f"{where} is taken{who}", f"end it, or choose another: --port {launch.port + 1}"
        )
    elif one.state == "forbidden":
        yield Finding(
            f"{where} can't be listened on: {one.holder}",
            "--port with one above 1023, --bind with an address of this machine",
        )
    else:
        said = "is held by the release that is replaced" if ours else "is free"
        yield Finding(f"{where} {said}", severity="fine")


@check(
    "hub",
    "warns",
    why="weights that are not here come from there, and an engine that is not told to stay offline"
    " asks it, too",
    link="https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables",
)
def hub(case: Case) -> Iterator[Finding]:
    """The hub answers, where it is needed."""
    told = case.environment.get("HF_HUB_OFFLINE") in ("1", "true", "True") and not case.pulls
    if told or case.offline:
        return
    asked = [one for one in case.known(case.facts.reach, "reach") if "://" in one.target]
    if not asked:
        return
    for one in asked:
        if one.state == "no":
            yield Finding(
                f"{one.target} can't be reached: {one.reason}",
                "check DNS and HTTPS_PROXY; HF_ENDPOINT names a mirror, and a bundle needs no"
                " network: kimideploy weights bundle",
                # Why not then: the hub's own client may know authorities that this Python does not.
                "blocks" if case.brings and "CERTIFICATE" not in str(one.reason) else None,
            )


@check(
    "interface",
    "blocks",
    scope=SEVERAL_GPUS,
    why="NCCL and Gloo that are told a network interface which is not there end at once",
    link=_NCCL_ENV,
)
def interface(case: Case) -> Iterator[Finding]:
    """The interfaces that NCCL and Gloo are told exist and are up."""
    names = {one.name: one for one in case.facts.interfaces}
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        said = case.environment.get(variable)
        if said is None or said.startswith("^"):
            continue
        if not names:
            raise Unseen(case.reason("interfaces") or "no interface is told")
        words = said.removeprefix("=").split(",")
        # Why: NCCL takes a word for the beginning of names, = and Gloo for the whole name; one of
        # several is enough.
        exact = said.startswith("=") or variable.startswith("GLOO")
        fitting = [
            one
            for one in names.values()
            if any(one.name == word or (not exact and one.name.startswith(word)) for word in words)
        ]
        if not fitting:
            yield Finding(
                f"{variable}={said}, and there is no interface {' or '.join(words)}",
                f"{variable} with one of {', '.join(sorted(set(names) - {'lo'}))}",
            )
        elif not any(one.up for one in fitting):
            name = fitting[0].name
            yield Finding(f"{variable}={said}, and {name} is down", f"ip link set {name} up")


@check(
    "node-interface",
    "warns",
    scope=NODES,
    why="with several interfaces NCCL may take one that the other nodes can't reach, and hang",
    link=_NCCL_ENV,
)
def node_interface(case: Case) -> Iterator[Finding]:
    """NCCL is told its interface where there are several."""
    real = [
        one.name
        for one in case.known(case.facts.interfaces or None, "interfaces")
        if one.up and one.is_real and one.addresses
    ]
    lacking = [
        name
        for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
        if name not in case.environment
    ]
    if len(real) > 1 and lacking:
        yield Finding(
            f"{', '.join(real)} are up, and {' and '.join(lacking)} not set",
            f"{lacking[0]}={real[0]} in /etc/kimideploy/engine.env, the one between the nodes",
        )


@check(
    "rdma",
    "warns",
    scope=NODES,
    why="nodes of one model need 100 Gb/s or more between them",
    link="https://docs.vllm.ai/en/stable/serving/parallelism_scaling/",
)
def rdma(case: Case) -> Iterator[Finding]:
    """A fast fabric joins the nodes."""
    ports = [one for one in case.known(case.facts.rdma, "interfaces") if one.state == "ACTIVE"]
    least = int(case.count("fabric"))
    fast = [one for one in ports if (one.gigabits or 0) >= least]
    wide = [one for one in case.facts.interfaces if one.up and (one.megabits or 0) >= 1000 * least]
    if not fast and not wide:
        seen = ", ".join(f"{one.device} {one.gigabits} Gb/s" for one in ports) or "none"
        yield Finding(
            f"no link of {least} Gb/s is up; RDMA ports: {seen}",
            "PP over the nodes needs less than TP; look at the cabling and the ports' state",
        )


@check(
    "head-reachable",
    "blocks",
    scope=NODES,
    why="a node that can't reach the first one waits until its deadline",
    link="https://docs.vllm.ai/en/stable/serving/parallelism_scaling/",
)
def head_reachable(case: Case) -> Iterator[Finding]:
    """The other nodes reach the first one."""
    site = case.plan
    if site.rank == 0 or site.head == HEAD_ADDRESS:
        return
    asked = [one for one in case.known(case.facts.reach, "reach") if "://" not in one.target]
    if not asked:
        raise Unseen("nobody tried")
    for one in asked:
        if one.state == "no":
            yield Finding(
                f"{one.target} does not answer: {one.reason}",
                "let the nodes reach each other on all ports, and nobody else",
            )
