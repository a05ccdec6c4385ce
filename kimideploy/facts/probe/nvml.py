"""GPUs by NVML, through pynvml."""

import ctypes
import importlib
import warnings
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from kimideploy.facts.probe.base import Facts, Unknown
from kimideploy.facts.probe.vendor import Refused, bare_name, numa_of

NOT_SUPPORTED, GPU_IS_LOST, RESET_REQUIRED = 3, 15, 16
#: NVML_CLOCK_MEM
MEMORY_CLOCK = 2
#: what to do about an error of NVML, beside its own words
CURES = {
    9: "try: modprobe nvidia; the kernel log says why not",
    18: "the driver was updated while its old kernel module stays loaded: reboot",
    GPU_IS_LOST: "the kernel log has the Xid; reset it or reboot",
    RESET_REQUIRED: "nvidia-smi --gpu-reset",
}
LEVELS = {0: "pix", 10: "pix", 20: "pxb", 30: "phb", 40: "node", 50: "sys"}
SWITCH = 2  # NVML_NVLINK_DEVICE_TYPE_SWITCH
#: NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, and its values
RECOVERY = 230
RECOVERIES = {
    0: "none",
    1: "GPU reset",
    2: "node reboot",
    3: "drain P2P",
    4: "drain and reset",
    5: "recover the IMEX domain",
    6: "bus reset",
    7: "system reboot",
}
#: NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
UNCORRECTED, VOLATILE = 1, 0
#: NVML_GPU_FABRIC_STATE_*
FABRIC_NONE, FABRIC_UP = 0, 3
FABRIC_STATES = {1: "not started", 2: "in progress"}
#: nvmlClocksEventReason*; those of an idle GPU and of the power limit are no fault
SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
P2P_TO_READ, P2P_OVER_NVLINK, P2P_OK, P2P_UNKNOWN = 0, 2, 0, 6
#: nvmlGpuP2PStatus_t
P2P_STATES = {
    0: "ok",
    1: "the chipset does not support it",
    2: "the GPU does not support it",
    3: "not over this I/O hub",
    4: "disabled by a registry key",
    5: "not supported",
}


class Lost(Exception):
    """The driver lost this GPU."""


class Nvml:
    """pynvml, with each failure turned into a reason."""

    def __init__(self, module: Any, unknown: Unknown) -> None:
        self.module = module
        self.unknown = unknown
        self.gaps = {}  # type: Dict[Tuple[str, str], List[int]]

    def reason(self, error: Exception) -> str:
        code = getattr(error, "value", None)
        cure = CURES.get(code) if isinstance(code, int) else None
        words = str(error).rstrip(".") or type(error).__name__
        return "%s (%s)" % (words, cure) if cure else words

    def ask(
        self, what: str, index: int, name: str, *arguments: Any, unsupported: Any = None
    ) -> Any:
        """Return what the function says, *unsupported* where the device has no such thing.

        Any other failure is remembered under *what* and gives None; a lost GPU raises Lost.
        """
        function = getattr(self.module, name, None)
        if function is None:
            self.gap(what, index, "this pynvml has no " + name)
            return None
        try:
            return function(*arguments)
        except Exception as error:
            code = getattr(error, "value", None)
            if code == NOT_SUPPORTED:
                return unsupported
            if code in (GPU_IS_LOST, RESET_REQUIRED):
                raise Lost(self.reason(error))
            self.gap(what, index, self.reason(error))
            return None

    def gap(self, what: str, index: int, reason: str) -> None:
        indices = self.gaps.setdefault((what, reason), [])
        if index not in indices:
            indices.append(index)

    def tell_gaps(self) -> None:
        for (what, reason), indices in self.gaps.items():
            self.unknown.add("%s of GPU %s" % (what, spans(indices)), reason)


def spans(indices: Iterable[int]) -> str:
    """Return 0-3, 5 for 0, 1, 2, 3, 5."""
    runs = []  # type: List[List[int]]
    for index in sorted(indices):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join("%d" % a if a == b else "%d-%d" % (a, b) for a, b in runs)


def over_nvml(root: str, unknown: Unknown) -> Facts:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Why: an old distribution of that name warns
            module = importlib.import_module("pynvml")  # type: Any
    except ImportError:
        raise Refused("pynvml is not installed")
    nvml = Nvml(module, unknown)
    try:
        module.nvmlInit()
        count = int(module.nvmlDeviceGetCount())
    except Exception as error:
        raise Refused(nvml.reason(error))
    devices = {}  # type: Dict[int, Device]
    gpus = []
    for index in range(count):
        try:
            device = Device(nvml, index, module.nvmlDeviceGetHandleByIndex(index))
        except Exception as error:
            gpus.append({"index": index, "error": nvml.reason(error)})
            continue
        try:
            device.look(root)
        except Lost as lost:
            device.facts["error"] = str(lost)
        else:
            devices[index] = device
        gpus.append(device.facts)
    tell_peers(nvml, devices)
    facts = {"gpus": gpus, "driver": nvml_driver(module, unknown)}
    nvml.tell_gaps()
    module.nvmlShutdown()
    return facts


def nvml_driver(module: Any, unknown: Unknown) -> Facts:
    driver = {"source": "nvml"}  # type: Facts
    try:
        driver["version"] = module.nvmlSystemGetDriverVersion()
    except Exception as error:
        unknown.add("driver version", error)
    try:
        cuda = module.nvmlSystemGetCudaDriverVersion_v2()
        driver["cuda"] = "%d.%d" % (cuda // 1000, cuda % 1000 // 10)
    except Exception as error:
        unknown.add("CUDA version of the driver", error)
    return driver


class Device:
    """One GPU: its facts, and what its NVLinks lead to."""

    def __init__(self, nvml: Nvml, index: int, handle: Any) -> None:
        self.nvml = nvml
        self.index = index
        self.handle = handle
        self.facts = {"index": index}  # type: Facts
        self.place = None  # type: Optional[Tuple[int, int, int]]
        self.links_to = []  # type: List[Tuple[int, int, int]]
        self.links_to_switch = 0

    def ask(self, what: str, name: str, *arguments: Any, unsupported: Any = None) -> Any:
        arguments = (self.handle,) + arguments
        return self.nvml.ask(what, self.index, name, *arguments, unsupported=unsupported)

    def state(self, what: str, name: str, *, unsupported: Any = None) -> Optional[bool]:
        """Return a mode that NVML gives as (current, pending) or as one number."""
        answer = self.ask(what, name, unsupported=unsupported)
        if answer is None or isinstance(answer, bool):
            return answer
        return bool(answer[0] if isinstance(answer, (list, tuple)) else answer)

    def look(self, root: str) -> None:
        facts = self.facts
        facts["name"] = self.ask("name", "nvmlDeviceGetName")
        facts["uuid"] = self.ask("UUID", "nvmlDeviceGetUUID")
        self.look_at_place(root)
        self.look_at_memory()
        capability = self.ask("compute capability", "nvmlDeviceGetCudaComputeCapability")
        if capability is not None:
            facts["compute_capability"] = "%d.%d" % tuple(capability)
        facts["mig"] = self.state("MIG mode", "nvmlDeviceGetMigMode", unsupported=False)
        facts["ecc"] = self.state("ECC mode", "nvmlDeviceGetEccMode", unsupported=False)
        facts["persistence"] = self.state("persistence mode", "nvmlDeviceGetPersistenceMode")
        limit = self.ask("power limit", "nvmlDeviceGetEnforcedPowerLimit")
        facts["power_limit_watts"] = limit / 1000.0 if limit is not None else None
        usual = self.ask("usual power limit", "nvmlDeviceGetPowerManagementDefaultLimit")
        facts["power_default_watts"] = usual / 1000.0 if usual is not None else None
        facts["memory_clock_max"] = self.ask(
            "memory clock", "nvmlDeviceGetMaxClockInfo", MEMORY_CLOCK
        )
        facts["memory_bus_width"] = self.ask("memory bus", "nvmlDeviceGetMemoryBusWidth")
        for field, name in (
            ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
            ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
            ("pcie_generation_card", "nvmlDeviceGetGpuMaxPcieLinkGeneration"),
            ("pcie_width", "nvmlDeviceGetCurrPcieLinkWidth"),
            ("pcie_width_max", "nvmlDeviceGetMaxPcieLinkWidth"),
        ):
            facts[field] = self.ask("PCIe link", name)
        self.look_at_health()
        self.look_at_links()
        facts["processes"] = self.processes()

    def look_at_place(self, root: str) -> None:
        pci = self.ask("PCI address", "nvmlDeviceGetPciInfo")
        if pci is not None:
            self.place = (pci.domain, pci.bus, pci.device)
            bus_id = pci.busId.decode() if isinstance(pci.busId, bytes) else pci.busId
            self.facts["pci_bus_id"] = bus_id
            self.facts["numa_node"] = numa_of(root, bus_id)

    def look_at_memory(self) -> None:
        version = getattr(self.nvml.module, "nvmlMemory_v2", None)
        memory = self.ask("reserved memory", "nvmlDeviceGetMemoryInfo", version)
        if memory is None:  # Why: drivers before R510 know version 1 only
            memory = self.ask("memory", "nvmlDeviceGetMemoryInfo")
        if memory is None:
            self.nvml.gap(
                "memory", self.index, "the driver counts none (is it shared with the CPU?)"
            )
            return
        for field in ("total", "used", "free"):
            self.facts["memory_" + field] = getattr(memory, field)
        self.facts["memory_reserved"] = getattr(memory, "reserved", None)

    def look_at_health(self) -> None:
        facts = self.facts
        values = self.ask("recovery action", "nvmlDeviceGetFieldValues", [RECOVERY])
        # Why: a driver that does not know the field says so in the field, and has no fault.
        if values is not None and values[0].nvmlReturn == 0:
            action = values[0].value.uiVal
            facts["recovery"] = RECOVERIES.get(action, "action %d of NVML" % action)
        rows = self.ask("remapped rows", "nvmlDeviceGetRemappedRows")
        if rows is not None:
            facts["rows_pending"], facts["rows_failed"] = bool(rows[2]), bool(rows[3])
        facts["ecc_uncorrected"] = self.ask(
            "memory errors", "nvmlDeviceGetTotalEccErrors", UNCORRECTED, VOLATILE
        )
        facts["fabric"] = self.fabric()
        held = self.ask("clocks", "nvmlDeviceGetCurrentClocksEventReasons")
        if held is not None:
            facts["slowdowns"] = [word for bit, word in SLOWDOWNS.items() if held & bit]

    def fabric(self) -> Optional[str]:
        """Return "up", or why the NVSwitches are not; None where the GPU hangs on none."""
        kind = getattr(self.nvml.module, "c_nvmlGpuFabricInfoV_t", None)
        if kind is None:
            self.nvml.gap("fabric", self.index, "this pynvml does not know it")
            return None
        info = kind()
        if self.ask("fabric", "nvmlDeviceGetGpuFabricInfoV", ctypes.byref(info)) is None:
            return None
        if info.state == FABRIC_NONE:
            return None
        if info.state != FABRIC_UP:
            return FABRIC_STATES.get(info.state, "state %d of NVML" % info.state)
        return "up" if info.status == 0 else "failed with NVML's error %d" % info.status

    def look_at_links(self) -> None:
        total = active = 0
        for link in range(getattr(self.nvml.module, "NVML_NVLINK_MAX_LINKS", 18)):
            try:
                up = self.nvml.module.nvmlDeviceGetNvLinkState(self.handle, link)
            except Exception as error:
                code = getattr(error, "value", None)
                if code in (GPU_IS_LOST, RESET_REQUIRED):
                    raise Lost(self.nvml.reason(error))
                if code not in (2, NOT_SUPPORTED):  # 2, invalid argument: no such link
                    self.nvml.gap("NVLinks", self.index, self.nvml.reason(error))
                    return
                continue
            total += 1
            if up:
                active += 1
                self.look_at_far_end(link)
        self.facts["nvlinks_total"], self.facts["nvlinks_active"] = total, active

    def look_at_far_end(self, link: int) -> None:
        what = "far ends of the NVLinks"
        kind = self.ask(what, "nvmlDeviceGetNvLinkRemoteDeviceType", link)
        if kind == SWITCH:
            self.links_to_switch += 1
            return
        pci = self.ask(what, "nvmlDeviceGetNvLinkRemotePciInfo", link)
        if pci is not None:
            self.links_to.append((pci.domain, pci.bus, pci.device))

    def processes(self) -> List[Facts]:
        """Return who holds memory, compute and graphics, each process once."""
        found = {}  # type: Dict[int, Facts]
        for name in (
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
        ):
            for process in self.ask("processes", name) or ():
                known = found.setdefault(process.pid, {"pid": process.pid})
                known["used"] = process.usedGpuMemory
                known["name"] = self.process_name(process.pid)
        return [found[pid] for pid in sorted(found)]

    def process_name(self, pid: int) -> Optional[str]:
        # Why no gap: a process of another container has no name here, which is no failure.
        try:
            return bare_name(self.nvml.module.nvmlSystemGetProcessName(pid))
        except Exception:
            return None


def tell_peers(nvml: Nvml, devices: Dict[int, Device]) -> None:
    """Set the peers of each device; all pairs, each asked once."""
    refused = []
    for device in devices.values():
        device.facts["peers"] = []
    for a in devices.values():
        for b in devices.values():
            if a.index >= b.index:
                continue
            try:
                level, peer_access, p2p = pair(nvml, a, b)
            except Lost as lost:
                nvml.gap("peers", a.index, str(lost))
                continue
            straight = a.links_to.count(b.place) if b.place is not None else 0
            links = straight or min(a.links_to_switch, b.links_to_switch)
            linked = links > 0 or peer_access is True
            if links and peer_access is False:
                refused.append("%d-%d" % (a.index, b.index))
                linked = False
            link = "nvlink" if linked else LEVELS.get(level, "sys") if level is not None else None
            if link is None:
                continue
            for here, there in ((a, b), (b, a)):
                peer = {"index": there.index, "link": link}
                if linked and links:
                    peer["nvlinks"] = links
                peer["p2p"] = p2p
                here.facts["peers"].append(peer)
    if refused:
        reason = "links are up, but the driver refuses peer access over them between GPUs "
        nvml.unknown.add("NVLink", reason + ", ".join(refused))


def pair(nvml: Nvml, a: Device, b: Device) -> Tuple[Optional[int], Optional[bool], Optional[str]]:
    """Return the topology level between two GPUs, whether NVLink carries peer access, and whether
    one may read the other's memory at all: "ok", or why not."""
    ends = (a.handle, b.handle)
    level = nvml.ask("topology", a.index, "nvmlDeviceGetTopologyCommonAncestor", *ends)
    status = nvml.ask(
        "NVLink peer access", a.index, "nvmlDeviceGetP2PStatus", *ends, P2P_OVER_NVLINK
    )
    linked = None if status in (None, P2P_UNKNOWN) else status == P2P_OK
    reading = nvml.ask("peer access", a.index, "nvmlDeviceGetP2PStatus", *ends, P2P_TO_READ)
    return level, linked, P2P_STATES.get(reading)
