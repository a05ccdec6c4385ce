"""A Case: one machine, and what it is to serve, if anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kimideploy.catalog.find import gpu_by_driver_name
from kimideploy.catalog.types import Catalog
from kimideploy.engines.site import Site
from kimideploy.facts.types import DiskFacts, EngineFacts, GpuFacts, HostFacts
from kimideploy.planning.types import Launch


class Unseen(Exception):  # noqa: N818  no error: the answer is "unknown"
    """The machine did not say what a check must know; the reason is its text."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is judged. `site` and `launch` are None where no plan is known."""

    facts: HostFacts
    catalog: Catalog
    site: Site | None = None
    launch: Launch | None = None
    #: the other nodes of the plan
    others: tuple[HostFacts, ...] = ()
    #: the weights that are not here are pulled first, from the hub unless it is offline; the engine
    #: that is not here is installed
    pulls: bool = False
    offline: bool = False
    installs: bool = False
    #: the engine runs as a unit of ours, which sets its own limits
    unit: bool = False
    #: docker or podman runs the engine
    container: str | None = None

    @property
    def plan(self) -> Site:
        """The site; only checks whose scope is a plan ask for it."""
        if self.site is None:
            raise Unseen("no plan is known")
        return self.site

    @property
    def command(self) -> Launch:
        """What is going to be run."""
        if self.launch is None:
            raise Unseen("no plan is known")
        return self.launch

    def bytes(self, name: str) -> int:
        """Return a size of `thresholds.yaml`."""
        return int(self.catalog.thresholds.sizes[name].bytes)

    def count(self, name: str) -> float:
        """Return a count of `thresholds.yaml`."""
        return self.catalog.thresholds.counts[name].value

    @property
    def wanted(self) -> int:
        """GPUs of this node that the plan uses; without a plan all that are here."""
        if self.site is None:
            return len(self.facts.gpus)
        return self.site.plan.candidate.gpus_per_node

    @property
    def offloads(self) -> bool:
        """Whether experts stay in host memory."""
        return self.site is not None and bool(self.site.plan.fit.ram)

    @property
    def brings(self) -> bool:
        """Whether weights are to come from the hub, as far as can be told."""
        folder = self.facts.weights
        return self.pulls and not self.offline and not (folder is not None and folder.sizes)

    @property
    def size(self) -> int | None:
        """Bytes of the weights: what lies there, or what is going to; None if nobody knows."""
        folder = self.facts.weights
        if folder is not None and folder.sizes and not self.pulls:
            return sum(folder.sizes.values())
        size = self.plan.checkpoint.size
        return int(size) if size is not None else None

    @property
    def cards(self) -> tuple[GpuFacts, ...]:
        """The GPUs that the engine may come to use: those of the plan's kind that it is left.

        A card that no longer gives a name is among them; what else is in the machine is not.
        """
        visible = self.environment.get("CUDA_VISIBLE_DEVICES", "")
        numbers = [int(word) for word in visible.split(",") if word.strip().isdecimal()]
        left = [gpu for gpu in self.facts.gpus if not numbers or gpu.index in numbers]
        wanted = self.site.node.gpu if self.site is not None else None
        if wanted is None or wanted not in self.catalog.gpus:
            return tuple(left)
        mine = [gpu for gpu in left if self.kind(gpu) in (wanted, None)]
        return tuple(mine or left)

    @property
    def gpus(self) -> tuple[GpuFacts, ...]:
        """As many of `cards` as the plan uses that answer; raises Unseen if there is none."""
        sound = tuple(gpu for gpu in self.cards if gpu.error is None)
        if not sound:
            raise Unseen(self.reason("GPUs", "gpus", "driver") or "no GPU answers")
        return sound[: self.wanted] if self.site is not None and self.wanted else sound

    def kind(self, gpu: GpuFacts) -> str | None:
        """Return the profile's id of a GPU; None where no profile knows it, or it has no name."""
        found = gpu_by_driver_name(self.catalog, gpu.name, gpu.memory_total) if gpu.name else None
        return found.id if found is not None else None

    def each(self, field: str) -> Iterator[tuple[GpuFacts, Any]]:
        """Yield each GPU with its *field*; raises Unseen if no GPU says it."""
        found = [(gpu, getattr(gpu, field)) for gpu in self.gpus]
        known = [(gpu, value) for gpu, value in found if value is not None]
        if not known:
            raise Unseen(self.reason("of GPU", "GPUs in full") or "the driver does not say")
        yield from known

    def known(self, value: Any, *sources: str) -> Any:
        """Return *value*; raises Unseen with the reason of one of *sources* if it is None."""
        if value is None:
            raise Unseen(self.reason(*sources) or "the machine does not say")
        return value

    def reason(self, *sources: str) -> str | None:
        """Return why something of *sources* is not known."""
        gaps = self.facts.unknown
        return next((gap.reason for word in sources for gap in gaps if word in gap.what), None)

    @property
    def ours(self) -> frozenset[int]:
        """The processes of the release that serves here now, which ends before the next begins."""
        unit = self.facts.unit
        return frozenset(unit.pids) if unit is not None and self.unit else frozenset()

    @property
    def environment(self) -> dict[str, str]:
        """The variables the engine would find: the machine's, and the launch's own over them."""
        given = dict(self.facts.environment) if not self.unit else {}
        return given | dict(self.launch.env if self.launch is not None else ())

    @property
    def engine(self) -> EngineFacts | None:
        """The installed engine that the command would start; None: none is, or another one will.

        Raises Unseen for a program of which nothing is known.
        """
        if self.installs or self.container is not None:
            return None
        found = engine_of(self.facts, self.plan, self.command)
        program = program_of(self.facts, self.command)
        if found is None and program is not None:
            raise Unseen(f"what engine {program} is can't be told")
        return found

    def disk(self, path: str) -> DiskFacts | None:
        """Return the mounted file system that *path* lies on."""
        inside = [disk for disk in self.facts.disks if _holds(disk.mount, path)]
        return max(inside, key=lambda disk: len(disk.mount), default=None)


def engine_of(facts: HostFacts, site: Site, launch: Launch) -> EngineFacts | None:
    """Return the facts of the engine that the first word of the command leads to."""
    mine = [engine for engine in facts.engines if engine.engine == site.engine.id]
    program = program_of(facts, launch)
    if program is None:
        return mine[0] if mine and facts.programs is None else None
    real = next((one.real for one in facts.programs or () if one.path == program), None)
    folders = {path.rpartition("/")[0] for path in (program, real) if path is not None}
    return next((engine for engine in mine if engine.path.rpartition("/")[0] in folders), None)


def program_of(facts: HostFacts, launch: Launch) -> str | None:
    """Return where the first word of the command leads."""
    found = facts.programs or ()
    return next((one.path for one in found if one.word == launch.argv[0]), None)


def _holds(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")
