"""HostFacts for people, in 80 columns, and for programs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kimideploy.facts.types import CpuFacts, DriverFacts, GpuFacts, HostFacts, MemoryFacts
from kimideploy.quantities import GIB

NOTHING = "?"


def as_json(facts: HostFacts) -> str:
    """Return the facts as an indented JSON object; `--facts` reads it again."""
    return msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n"


def as_table(facts: HostFacts) -> RenderableType:
    """Return the facts by part; what could not be had stands at the end, with reasons."""
    parts: list[RenderableType] = [_host(facts)]
    if facts.gpus:
        parts += [*_section("GPUs"), _gpus(facts.gpus)]
    if any(gpu.processes for gpu in facts.gpus):
        parts += [*_section("On the GPUs"), _processes(facts.gpus)]
    if facts.disks:
        parts += [*_section("Disks"), _disks(facts)]
    parts += [*_section("Engines"), _engines(facts)]
    if facts.ports:
        parts += [*_section("Listening"), _indented(_ports(facts))]
    if facts.unknown:
        parts += [*_section("Unknown"), _unknown(facts)]
    return Group(*parts)


def _section(title: str) -> list[RenderableType]:
    return [Text(), Text(title, style="bold")]


def _indented(renderable: RenderableType) -> RenderableType:
    return Padding(renderable, (0, 0, 0, 2))


def _grid(*columns: str) -> Table:
    """A table without lines; a column named `>…` is right-aligned."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column[:1] == ">" else "left")
    return table


def _row(table: Table, *cells: str, style: str = "") -> None:
    """Add text as it is: what other programs said is neither markup nor terminal control."""
    table.add_row(*(Text(_printable(cell), style=style) for cell in cells))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in text)


def _host(facts: HostFacts) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    kernel = f"{facts.system or NOTHING} {facts.kernel or NOTHING}"
    _row(table, "Host", facts.hostname or NOTHING)
    _row(
        table,
        "System",
        _joined(
            facts.distribution,
            kernel,
            _labelled("glibc", facts.glibc),
            _labelled("Python", facts.python),
        ),
    )
    _row(table, "CPU", _cpu(facts.cpu))
    if facts.cpu.flags:
        _row(table, "", " ".join(facts.cpu.flags), style="dim")
    _row(table, "Memory", _memory(facts.memory))
    _row(table, "Driver", _driver(facts.driver))
    return table


def _joined(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part)


def _labelled(label: str, value: object) -> str | None:
    return f"{label} {value}" if value is not None else None


def _count(number: int | None, noun: str) -> str | None:
    return f"{number} {noun}{'' if number == 1 else 's'}" if number is not None else None


def _gib(size: int | None, unit: str = " GiB") -> str:
    return f"{size / GIB:,.1f}{unit}" if size is not None else NOTHING


def _cpu(cpu: CpuFacts) -> str:
    model = cpu.model or cpu.architecture or NOTHING
    return _joined(
        f"{cpu.sockets} x {model}" if cpu.sockets is not None else model,
        _count(cpu.cores, "core"),
        _count(cpu.threads, "thread"),
        _count(cpu.numa_nodes, "NUMA node"),
    )


def _memory(memory: MemoryFacts) -> str:
    return _joined(
        _gib(memory.total),
        f"{_gib(memory.available)} available",
        f"limited to {_gib(memory.limit)}" if memory.limit is not None else None,
        f"/dev/shm {_gib(memory.shm_free)} free" if memory.shm_free is not None else None,  # noqa: S108
    )


def _driver(driver: DriverFacts | None) -> str:
    if driver is None:
        return "none"
    return _joined(
        driver.version or NOTHING,
        _labelled("CUDA up to", driver.cuda),
        _labelled("read by", driver.source),
    )


def _gpus(gpus: Sequence[GpuFacts]) -> RenderableType:
    table = _grid(">#", "Name", ">GiB", ">Used", "CC", "NVLinks", ">Peers", "PCIe", ">Watts")
    notes = Table.grid(padding=(0, 2, 0, 0))
    for gpu in gpus:
        limit = gpu.power_limit_watts
        _row(
            table,
            str(gpu.index),
            gpu.name or NOTHING,
            _gib(gpu.memory_total, ""),
            _gib(gpu.memory_used, ""),
            gpu.compute_capability or NOTHING,
            _links(gpu),
            NOTHING if gpu.error is not None else str(_linked(gpu)),
            _pcie(gpu),
            f"{limit:.0f}" if limit is not None else NOTHING,
        )
        if gpu.error is not None:
            _row(notes, f"GPU {gpu.index}", gpu.error, style="red")
        elif _notes(gpu):
            _row(notes, f"GPU {gpu.index}", _notes(gpu), style="yellow")
    return _indented(Group(table, notes) if notes.row_count else table)


def _linked(gpu: GpuFacts) -> int:
    return sum(peer.link == "nvlink" for peer in gpu.peers)


def _links(gpu: GpuFacts) -> str:
    """18/18: the links that are up, and those the driver knows of."""
    if gpu.nvlinks_total is None:
        return NOTHING
    return f"{gpu.nvlinks_active}/{gpu.nvlinks_total}" if gpu.nvlinks_total else "none"


def _pcie(gpu: GpuFacts) -> str:
    if gpu.pcie_generation is None or gpu.pcie_width is None:
        return NOTHING
    return f"gen{gpu.pcie_generation} x{gpu.pcie_width}"


def _notes(gpu: GpuFacts) -> str:
    narrow = (gpu.pcie_width or 0) < (gpu.pcie_width_max or 0)
    down = (gpu.nvlinks_total or 0) - (gpu.nvlinks_active or 0)
    return _joined(
        "MIG is on" if gpu.mig else None,
        "ECC is off" if gpu.ecc is False else None,
        "persistence mode is off" if gpu.persistence is False else None,
        f"{down} of {gpu.nvlinks_total} NVLinks down" if down else None,
        f"PCIe x{gpu.pcie_width} of x{gpu.pcie_width_max}" if narrow else None,
        f"the driver asks for: {gpu.recovery}" if gpu.recovery not in (None, "none") else None,
        "broken memory rows can't be replaced" if gpu.rows_failed else None,
        "memory rows wait for a reset" if gpu.rows_pending and not gpu.rows_failed else None,
        f"{gpu.ecc_uncorrected} uncorrected memory errors" if gpu.ecc_uncorrected else None,
        f"fabric {gpu.fabric}" if gpu.fabric not in (None, "up") else None,
        *(gpu.slowdowns or ()),
    )


def _processes(gpus: Sequence[GpuFacts]) -> RenderableType:
    table = _grid(">GPU", ">PID", ">GiB", "Process")
    for gpu in gpus:
        for process in gpu.processes:
            used = _gib(process.used, "")
            _row(table, str(gpu.index), str(process.pid), used, process.name or NOTHING)
    return _indented(table)


def _disks(facts: HostFacts) -> RenderableType:
    table = _grid("Mounted at", "Type", ">Free GiB", ">of GiB", "Device")
    for disk in facts.disks:
        free, total = _gib(disk.free, ""), _gib(disk.total, "")
        _row(table, disk.mount, disk.filesystem or NOTHING, free, total, disk.device or NOTHING)
    return _indented(table)


def _engines(facts: HostFacts) -> RenderableType:
    if not facts.engines:
        return _indented(Text("none found in PATH; `--venv DIR` looks into an environment"))
    table = _grid("Engine", "Version", "Program")
    for engine in facts.engines:
        _row(table, engine.engine, engine.version or NOTHING, engine.path)
    return _indented(table)


def _ports(facts: HostFacts) -> Text:
    return Text(", ".join(f"{_bracketed(port.address)}:{port.port}" for port in facts.ports))


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _unknown(facts: HostFacts) -> RenderableType:
    table = _grid("What", "Why")
    table.show_header = False
    table.columns[0].style = "yellow"
    for gap in facts.unknown:
        _row(table, gap.what, gap.reason)
    return _indented(table)
