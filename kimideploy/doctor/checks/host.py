"""The host: shared memory, limits, memory, what the kernel is set to, the clock."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import BY_HAND, OFFLOADED, PLANNED, PYTHON, SEVERAL_GPUS, check
from kimideploy.doctor.types import Finding
from kimideploy.facts.types import LimitFacts
from kimideploy.quantities import GIB, MIB

_NCCL_SHM = (
    "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting/"
    "runtime_and_mpi_issues.html"
)


@check(
    "shm",
    "blocks",
    scope=SEVERAL_GPUS & PYTHON,
    why="workers talk through /dev/shm, and end where it is too small; Docker gives 64 MiB",
    link=_NCCL_SHM,
)
def shm(case: Case) -> Iterator[Finding]:
    """/dev/shm has room for what the workers say to each other."""
    if case.ours:
        raise Unseen("the release that serves now holds what it needs, and gives it back")
    free = case.known(case.facts.memory.shm_free, "/dev/shm", "memory")
    least = case.bytes("shm_shared") + case.wanted * case.bytes("shm_worker")
    if free < least:
        yield Finding(
            f"/dev/shm has {free / MIB:.0f} MiB free, and {case.wanted} workers need"
            f" {least / MIB:.0f}",
            _shm_fix(case),
            # Why: the arithmetic is vLLM's.
            None if case.site is None or case.site.engine.id == "vllm" else "warns",
            "shm-size",
        )
    elif free < min(case.bytes("shm_wished"), 2 * least):
        yield Finding(
            f"/dev/shm has {free / GIB:.1f} GiB free; NCCL puts segments of its own beside the"
            " engine's",
            _shm_fix(case),
            "warns",
            "shm-size",
        )


@check(
    "memlock",
    "warns",
    scope=SEVERAL_GPUS & BY_HAND,
    why="RDMA cards and pinned buffers need locked memory",
    link=_NCCL_SHM,
)
def memlock(case: Case) -> Iterator[Finding]:
    """Memory may be locked without limit."""
    limit = case.known(_limits(case).memlock, "limits")
    if limit != "unlimited" and limit < case.bytes("memlock"):
        yield Finding(
            f"at most {limit / MIB:.0f} MiB may be locked",
            "ulimit -l unlimited, in a container --ulimit memlock=-1; the unit of"
            " `serve --host` sets it",
        )


@check(
    "nofile",
    "warns",
    scope=BY_HAND,
    why="engines open sockets and files by the thousand, and only warn before they fail",
)
def nofile(case: Case) -> Iterator[Finding]:
    """Enough files may be open."""
    limit = case.known(_limits(case).nofile, "limits")
    files = int(case.count("files"))
    if limit != "unlimited" and limit < files:
        yield Finding(
            f"{limit} files may be open, and engines raise their own limit to {files}",
            f"ulimit -Hn {files}, in a container --ulimit nofile={files}; the unit of"
            " `serve --host` sets it",
        )


@check(
    "tasks",
    "warns",
    scope=BY_HAND,
    why="a cgroup that allows few tasks makes threads fail to start, at any time",
    link="https://www.freedesktop.org/software/systemd/man/latest/systemd.resource-control.html",
)
def tasks(case: Case) -> Iterator[Finding]:
    """The cgroup allows enough tasks."""
    limit = case.known(_limits(case).tasks, "limits")
    if limit != "unlimited" and limit < case.count("tasks"):
        yield Finding(
            f"the cgroup allows {limit} tasks",
            "raise TasksMax= of the slice, in a container --pids-limit -1",
        )


@check(
    "unit-limits",
    "warns",
    why="a unit that was changed or is of an older version may allow the engine too little",
    link="https://www.freedesktop.org/software/systemd/man/latest/systemd.exec.html",
)
def unit_limits(case: Case) -> Iterator[Finding]:
    """The unit of the engine that is deployed here sets no low limits."""
    unit = case.facts.unit
    if unit is None:
        return
    low = [
        f"{name} {value}"
        for name, value, least in (
            ("LimitMEMLOCK", unit.memlock, case.bytes("memlock")),
            ("LimitNOFILE", unit.nofile, case.count("files")),
            ("TasksMax", unit.tasks, case.count("tasks")),
        )
        if isinstance(value, int) and value < least
    ]
    if low:
        yield Finding(
            f"kimideploy.service has {', '.join(low)}",
            "kimideploy doctor --fix writes a drop-in",
            remedy="unit-limits",
        )


@check(
    "memory-limit",
    "blocks",
    scope=PLANNED,
    why="a cgroup that is full while weights are read is killed by the kernel",
    link="https://github.com/vllm-project/vllm/issues/28923",
)
def memory_limit(case: Case) -> Iterator[Finding]:
    """No cgroup limits memory below what the load takes."""
    limit = case.facts.memory.limit
    case.known(case.facts.memory.available, "memory")
    need = sum(share.bytes for share in case.plan.plan.fit.ram) or case.bytes("load")
    if limit is not None and limit < need:
        guess = "" if case.plan.plan.fit.ram else ", a guess on the safe side"
        yield Finding(
            f"a cgroup limits memory to {limit / GIB:.0f} GiB, and the load takes up to"
            f" {need / GIB:.0f}{guess}",
            "raise MemoryMax= of the slice, or --memory of the container",
            None if case.plan.plan.fit.ram else "warns",
        )


@check(
    "ram-load",
    "warns",
    scope=PYTHON,
    why="weights pass through host memory and the page cache while they are loaded",
    link="https://github.com/vllm-project/vllm/issues/28923",
)
def ram_load(case: Case) -> Iterator[Finding]:
    """Host memory suffices to load the weights."""
    if case.ours:
        raise Unseen("the release that serves now holds what it needs, and gives it back")
    if case.plan.plan.fit.ram:
        return
    have = case.known(case.facts.memory.available, "memory")
    need = case.bytes("load")
    if have < need:
        yield Finding(
            f"{have / GIB:.0f} GiB of host memory are free; {need / GIB:.0f} are safe, by a guess",
            "end what takes it, or expect a slow load",
        )


@check(
    "ram-offload",
    "blocks",
    scope=OFFLOADED,
    why="experts that do not fit are read from the disk for each token: 0.2 to 0.7 tokens a second",
    link="https://github.com/asher/gmlx/issues/49",
)
def ram_offload(case: Case) -> Iterator[Finding]:
    """The experts that stay in host memory have room there now."""
    if case.ours:
        raise Unseen("the release that serves now holds what it needs, and gives it back")
    need = sum(share.bytes for share in case.plan.plan.fit.ram)
    # Why with: ZFS gives its cache back, and the kernel does not count that as available.
    have = case.known(case.facts.memory.available, "memory") + (case.facts.memory.arc or 0)
    if have < need:
        yield Finding(
            f"{have / GIB:.0f} GiB of host memory are free, and the plan keeps"
            f" {need / GIB:.0f} GiB there",
            "end what takes it, or plan a smaller quant",
        )


@check(
    "numa-balancing",
    "warns",
    why="the kernel moves pages under the engine, which costs it time",
    link="https://docs.sglang.io/platforms/amd_gpu.html",
)
def numa_balancing(case: Case) -> Iterator[Finding]:
    """The kernel does not move memory between NUMA nodes."""
    settings, nodes = case.facts.settings, case.facts.cpu.numa_nodes
    on = case.known(settings.numa_balancing if settings is not None else None, "NUMA", "kernel")
    if on and nodes != 1:
        yield Finding(
            "kernel.numa_balancing is on",
            "sysctl -w kernel.numa_balancing=0, and a file in /etc/sysctl.d to keep it",
            remedy="numa-balancing",
        )


@check(
    "hugepages",
    "warns",
    why="memory that is set aside for huge pages is nobody's else; experts on small pages cost time"
    " to the first token",
    link="https://github.com/kvcache-ai/ktransformers/pull/848",
)
def hugepages(case: Case) -> Iterator[Finding]:
    """No memory is set aside for huge pages, and they are to be had where experts are computed."""
    settings = case.facts.settings
    reserved = case.known(settings.hugepages_reserved if settings is not None else None, "kernel")
    if reserved > case.bytes("huge_pages"):
        yield Finding(
            f"{reserved / GIB:.0f} GiB are set aside for huge pages, and engines don't use them",
            "sysctl -w vm.nr_hugepages=0",
        )
    word = settings.transparent_hugepages if settings is not None else None
    if word == "never" and case.offloads:
        yield Finding(
            "transparent huge pages are off",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
            "notes",
        )


@check(
    "cpu-governor",
    "notes",
    why="processors that save power are slower, which shows most where they compute experts",
    link="https://github.com/intel/optimization-zone/pull/40",
)
def cpu_governor(case: Case) -> Iterator[Finding]:
    """The processors' clocks are not held low."""
    settings = case.facts.settings
    if settings is None or settings.governors is None:
        # Why no unknown: in most virtual machines clocks are not the guest's to set.
        return
    slow = [name for name in settings.governors if name in ("powersave", "conservative")]
    if slow:
        yield Finding(
            f"the governor is {', '.join(slow)}",
            "cpupower frequency-set -g performance",
            "warns" if case.offloads else None,
        )


@check(
    "clock",
    "warns",
    why="with a clock that is off, certificates and the hub's signed addresses are refused, and"
    " logs of nodes can't be read side by side",
    link="https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.timedate1.html",
)
def clock(case: Case) -> Iterator[Finding]:
    """The clock is right, and something keeps it so."""
    skews = [one.skew for one in case.facts.reach or () if one.skew is not None]
    off = max(skews, key=abs, default=0.0)
    if abs(off) > case.count("skew"):
        way = "ahead of" if off > 0 else "behind"
        yield Finding(
            f"this clock is {abs(off):.0f} s {way} the hub's",
            "timedatectl set-ntp true",
            # Why: signed addresses are refused only to who asks for them.
            "blocks" if case.brings else None,
        )
    kept = case.facts.clock.synchronized if case.facts.clock is not None else None
    if case.known(kept, "clock") is False:
        yield Finding("nothing keeps the clock right", "timedatectl set-ntp true", "notes")


def _limits(case: Case) -> LimitFacts:
    return case.facts.limits if case.facts.limits is not None else LimitFacts()


def _shm_fix(case: Case) -> str:
    wished = case.bytes("shm_wished") // GIB
    containers = case.facts.containers
    if containers is not None and containers.inside is not None:
        return f"run the container with --ipc=host, or --shm-size={wished}g"
    return f"mount -o remount,size={wished}G /dev/shm"
