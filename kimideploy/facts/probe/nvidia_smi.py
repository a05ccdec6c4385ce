"""GPUs by nvidia-smi, where NVML's binding is not installed."""

import re
import time
from typing import Any, Dict, List, Set, Tuple

from kimideploy.facts.probe.base import MIB, Facts, Unknown, find_program, number, run, said
from kimideploy.facts.probe.vendor import Refused, bare_name, numa_of

#: field of `nvidia-smi --query-gpu`: field of ours
SMI_FIELDS = {
    "index": "index",
    "name": "name",
    "uuid": "uuid",
    "pci.bus_id": "pci_bus_id",
    "memory.total": "memory_total",
    "memory.used": "memory_used",
    "memory.free": "memory_free",
    "memory.reserved": "memory_reserved",
    "compute_cap": "compute_capability",
    "mig.mode.current": "mig",
    "ecc.mode.current": "ecc",
    "persistence_mode": "persistence",
    "enforced.power.limit": "power_limit_watts",
    "pcie.link.gen.current": "pcie_generation",
    "pcie.link.gen.max": "pcie_generation_max",
    "pcie.link.width.current": "pcie_width",
    "pcie.link.width.max": "pcie_width_max",
    "driver_version": "driver",
}
TEXTS = ("name", "uuid", "pci_bus_id", "compute_capability", "driver")
STATES = {"Enabled": True, "Disabled": False}
NOT_A_FIELD = re.compile(r'Field "([^"]+)" is not a valid field')
NO_HANDLE = re.compile(
    r"device handle for GPU\s*(?:([0-9]+):\s+)?"
    r"([0-9A-Fa-f]+:[0-9A-Fa-f]+:[0-9A-Fa-f]+\.[0-9A-Fa-f]+)\s*:\s*(.+)"
)


def over_nvidia_smi(root: str, unknown: Unknown, end: float) -> Facts:
    program = find_program("nvidia-smi", "/usr/lib/wsl/lib")
    if program is None:
        raise Refused("not in PATH")
    fields, output = query_gpus(program, unknown, end)
    gpus = {}  # type: Dict[int, Facts]
    driver = None
    strays = []
    for line in output.splitlines():
        words = [word.strip() for word in line.split(", ")]
        index = number(words[0])
        if len(words) == len(fields) and index is not None:
            gpu = {ours: smi_value(ours, word) for ours, word in zip(fields, words)}
            driver = gpu.pop("driver", None) or driver
            if gpu.get("name") is None:
                gpu["error"] = words[fields.index("name")].strip("[]")
            gpu["numa_node"] = numa_of(root, gpu.get("pci_bus_id"))
            gpus[index] = gpu
        elif line.strip():
            strays.append(line.strip())
    for line in strays:
        found = NO_HANDLE.search(line)
        if found is None:
            if not gpus:
                raise Refused(" ".join(strays)[:300])
            unknown.add("GPUs", line)
            continue
        index = number(found.group(1))
        if index is None:  # Why: older versions name the address alone
            index = next(i for i in range(len(gpus) + 1) if i not in gpus)
        gpus[index] = {"index": index, "pci_bus_id": found.group(2), "error": found.group(3)}
    if not gpus:
        raise Refused("it lists no GPU")
    add_processes(program, gpus, unknown, end)
    add_topology(program, gpus, unknown, end)
    facts = {"version": driver, "source": "nvidia-smi"}  # type: Facts
    try:
        banner = run([program], end - time.monotonic())[1]
    except TimeoutError as error:
        unknown.add("CUDA version of the driver", error)
    else:
        found = re.search(r"CUDA (?:UMD )?Version\s*:\s*([0-9]+\.[0-9]+)", banner)
        facts["cuda"] = found.group(1) if found else None
    return {"gpus": [gpus[index] for index in sorted(gpus)], "driver": facts}


def query_gpus(program: str, unknown: Unknown, end: float) -> Tuple[List[str], str]:
    """Return our names of the columns and the rows; fields an old driver lacks are left out."""
    fields = dict(SMI_FIELDS)
    while True:
        query = "--query-gpu=" + ",".join(fields)
        try:
            code, output = run(
                [program, query, "--format=csv,noheader,nounits"], end - time.monotonic()
            )
        except (OSError, TimeoutError) as error:
            raise Refused(error if isinstance(error, TimeoutError) else said(error))
        unknown_field = NOT_A_FIELD.search(output)
        if unknown_field is not None and unknown_field.group(1) in fields:
            unknown.add(unknown_field.group(1), "this nvidia-smi does not know the field")
            del fields[unknown_field.group(1)]
            continue
        if code and not output.strip():
            raise Refused("it ended with status %d and said nothing" % code)
        return list(fields.values()), output


def smi_value(field: str, word: str) -> Any:
    """Return the value, None for what nvidia-smi puts in brackets: [N/A], [Unknown Error] …"""
    if word.startswith("[") or word in ("", "N/A"):
        return None
    if field in TEXTS:
        return word
    if field in ("mig", "ecc", "persistence"):
        return STATES.get(word)
    if field == "power_limit_watts":
        return float(word) if re.match(r"^[0-9.]+$", word) else None
    amount = number(word)
    return amount * MIB if amount is not None and field.startswith("memory_") else amount


def add_processes(program: str, gpus: Dict[int, Facts], unknown: Unknown, end: float) -> None:
    query = ["--query-compute-apps=gpu_uuid,pid,process_name,used_memory"]
    try:
        code, output = run(
            [program] + query + ["--format=csv,noheader,nounits"], end - time.monotonic()
        )
    except TimeoutError as error:
        unknown.add("GPU processes", error)
        return
    if code:
        unknown.add("GPU processes", output.strip()[:300])
        return
    by_uuid = {gpu.get("uuid"): gpu for gpu in gpus.values()}
    for line in output.splitlines():
        words = line.split(", ")
        gpu, pid = by_uuid.get(words[0]), number(words[1]) if len(words) > 3 else None
        if gpu is not None and pid is not None:
            used = number(words[-1])
            name = bare_name(", ".join(words[2:-1]))
            process = {"pid": pid, "name": name}  # type: Facts
            process["used"] = used * MIB if used is not None else None
            gpu.setdefault("processes", []).append(process)


def add_topology(program: str, gpus: Dict[int, Facts], unknown: Unknown, end: float) -> None:
    """Set the peers from the matrix of `nvidia-smi topo -m`."""
    try:
        code, output = run([program, "topo", "-m"], end - time.monotonic())
    except TimeoutError as error:
        unknown.add("topology", error)
        return
    rows = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines()]
    header = next((row for row in rows if row[:1] == ["GPU0"] and "X" not in row), None)
    if code or header is None:
        unknown.add("topology", output.strip()[:300] or "`nvidia-smi topo -m` says nothing")
        return
    for row in rows:
        here = (
            number(row[0][3:]) if row and row[0].startswith("GPU") and row is not header else None
        )
        if here is None or here not in gpus:
            continue
        peers = []
        for column, word in zip(header, row[1:]):
            there = number(column[3:]) if column.startswith("GPU") else None
            if there is None or word == "X":
                continue
            if word.startswith("NV") and word[2:].isdigit():
                peers.append({"index": there, "link": "nvlink", "nvlinks": int(word[2:])})
            elif word in ("PIX", "PXB", "PHB", "NODE", "SYS"):
                peers.append({"index": there, "link": word.lower()})
        gpus[here]["peers"] = peers
