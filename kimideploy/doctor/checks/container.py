"""Containers, when they are what runs the engine."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.doctor.case import Case
from kimideploy.doctor.check import Scope, check
from kimideploy.doctor.types import Finding

_TOOLKIT = (
    "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/1.20.1/cdi-support.html"
)
CONTAINER = Scope("engines in a container (--container)", lambda case: case.container is not None)


@check(
    "container-runtime",
    "blocks",
    scope=CONTAINER,
    why="without it no image is run",
)
def container_runtime(case: Case) -> Iterator[Finding]:
    """The container runtime is installed."""
    containers = case.known(case.facts.containers, "services")
    if case.container not in containers.runtimes:
        yield Finding(f"{case.container} is not in PATH", f"install {case.container}")


@check(
    "container-gpus",
    "blocks",
    scope=CONTAINER,
    why="without NVIDIA's toolkit a container sees no GPU",
    link=_TOOLKIT,
)
def container_gpus(case: Case) -> Iterator[Finding]:
    """Containers can be given the GPUs."""
    containers = case.known(case.facts.containers, "services")
    if case.wanted == 0 or (case.site is not None and case.site.amd):
        return
    if not containers.toolkit and not containers.cdi:
        yield Finding(
            "NVIDIA's container toolkit is not installed", "install nvidia-container-toolkit"
        )
    elif case.container == "podman" and not containers.cdi:
        yield Finding(
            "there is no CDI specification of the GPUs",
            "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )
    elif case.container == "docker" and not (containers.docker_runtime or containers.cdi):
        yield Finding(
            "Docker is not told of NVIDIA's runtime",
            "nvidia-ctk runtime configure --runtime=docker, and restart docker",
        )
