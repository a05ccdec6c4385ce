"""Everything but GPUs: machines as trees of /proc, /sys and /etc, engines as real folders."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import socket
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kimideploy.facts.probe import FILES, base, probe, vendor
from kimideploy.facts.probe.main import SCHEMA as WRITTEN
from kimideploy.facts.types import SCHEMA, DiskFacts, EngineFacts, PortFacts
from tests.unit.facts.conftest import PROBE, SYSTEM_PATH, run_probe


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write the files of a machine under *root*."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return root


def source_of(name: str) -> Any:
    """Return the function of the probe that asks about something."""
    modules = [importlib.import_module(f"kimideploy.facts.probe.{file}") for file in FILES]
    wanted = f"about_{name}"
    return next(getattr(module, wanted) for module in modules if hasattr(module, wanted))


def ask(source: str, root: Path) -> tuple[Any, dict[str, str]]:
    """Return what one source of the probe says of a tree, and what it does not know."""
    unknown = base.Unknown()
    facts = source_of(source)(str(root), unknown)
    return facts.get(source, facts), {gap["what"]: gap["reason"] for gap in unknown.entries}


def two_sockets(root: Path) -> Path:
    """Two sockets of two cores of two threads, and a node of GPU memory without processors."""
    info = "".join(
        f"processor\t: {cpu}\nmodel name\t: INTEL(R) XEON(R) PLATINUM 8558\n"
        "flags\t\t: fpu avx2 avx512f avx512bw avx512_bf16 amx_tile amx_int8 amx_bf16 rtm\n\n"
        for cpu in range(8)
    )
    files = {"/proc/cpuinfo": info}
    for cpu in range(8):
        topology = f"/sys/devices/system/cpu/cpu{cpu}/topology"
        core = cpu % 4
        files[f"{topology}/physical_package_id"] = f"{core // 2}\n"
        files[f"{topology}/core_cpus_list"] = f"{core},{core + 4}\n"
    for node, cpus in enumerate(("0-1,4-5\n", "2-3,6-7\n", "\n")):
        files[f"/sys/devices/system/node/node{node}/cpulist"] = cpus
    return tree(root, files)


def test_sockets_cores_and_numa(tmp_path: Path) -> None:
    """Cores are physical and over all sockets; only nodes with processors count."""
    cpu, unknown = ask("cpu", two_sockets(tmp_path))

    assert "INTEL(R) XEON(R) PLATINUM 8558" == cpu["model"]
    assert (2, 4, 8, 2) == (cpu["sockets"], cpu["cores"], cpu["threads"], cpu["numa_nodes"])
    expected = ["avx2", "avx512f", "avx512bw", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"]
    assert expected == cpu["flags"]
    assert {} == unknown


def test_arm_processor(tmp_path: Path) -> None:
    """An ARM kernel's numbers and features are told as they are."""
    info = "processor\t: 0\nFeatures\t: fp asimd asimddp sve i8mm bf16\n"
    info += "CPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
    cpu, unknown = ask("cpu", tree(tmp_path, {"/proc/cpuinfo": info}))

    assert "ARM implementer 0x41 part 0xd4f" == cpu["model"]
    assert ["asimd", "asimddp", "i8mm", "bf16", "sve"] == cpu["flags"]
    assert {"cpu sockets and cores", "NUMA nodes"} == set(unknown)


def test_machine_that_is_no_linux(tmp_path: Path) -> None:
    """Without /proc the probe tells what Python knows and says what needs Linux."""
    facts = probe(root=str(tmp_path))

    assert os.cpu_count() == facts["cpu"]["threads"]
    assert facts["memory"]["total"] > 0
    assert facts["disks"][0]["total"] > 0
    said = {gap["what"]: gap["reason"] for gap in facts["unknown"]}
    for what in (
        "cpu model, cores, sockets, NUMA nodes and flags",
        "available memory, swap and limits",
        "other disks and file-system types",
        "listening ports (tcp)",
    ):
        assert said[what].startswith("needs Linux's /proc/")


MEMINFO = "MemTotal:       2113411072 kB\nMemAvailable:   2000000000 kB\nSwapTotal:  8 kB\n"


def cgroups(root: Path, own: str, mountinfo: str, limits: dict[str, str]) -> Path:
    """A machine with cgroups: this process's, where they are mounted, and their limits."""
    own_and_mounts = {"/proc/self/cgroup": own, "/proc/self/mountinfo": mountinfo}
    return tree(root, {"/proc/meminfo": MEMINFO, **own_and_mounts, **limits})


V2 = "30 24 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n"
V1 = "33 30 0:29 /docker/abc /sys/fs/cgroup/memory ro shared:9 - cgroup cgroup rw,memory\n"


@pytest.mark.parametrize(
    ("own", "mountinfo", "limits", "expected"),
    [
        (
            "0::/user.slice/kimi.service\n",
            V2,
            {
                "/sys/fs/cgroup/user.slice/memory.max": "137438953472\n",
                "/sys/fs/cgroup/user.slice/kimi.service/memory.max": "max\n",
            },
            137438953472,
        ),
        ("0::/\n", V2, {"/sys/fs/cgroup/memory.max": "1000\n"}, 1000),
        ("0::/a\n", V2, {"/sys/fs/cgroup/a/memory.max": "max\n"}, None),
        (
            "5:cpu,memory:/docker/abc/inner\n",
            V1,
            {
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "4096000\n",
                "/sys/fs/cgroup/memory/inner/memory.limit_in_bytes": "9223372036854771712\n",
            },
            4096000,
        ),
        (
            "5:memory:/docker/abc\n",
            V1,
            {"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"},
            None,
        ),
    ],
    ids=["slice", "container", "unlimited", "v1-container", "v1-unlimited"],
)
def test_cgroup_limit(
    tmp_path: Path, own: str, mountinfo: str, limits: dict[str, str], expected: int | None
) -> None:
    """The limit is the smallest above this process, under either version."""
    memory, _ = ask("memory", cgroups(tmp_path, own, mountinfo, limits))

    assert expected == memory["limit"]
    assert (2113411072 * 1024, 8192) == (memory["total"], memory["swap"])


def test_disks(tmp_path: Path) -> None:
    """Storage is told once by its shortest mount; what stores nothing is left out."""
    mounts = r"""
        proc /proc proc rw 0 0
        tmpfs /run tmpfs rw 0 0
        overlay / overlay rw 0 0
        overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0
        /dev/nvme0n1p1 /etc/hosts ext4 rw 0 0
        /dev/nvme1n1 /models/fast xfs rw 0 0
        /dev/nvme1n1 /models xfs rw,noatime 0 0
        store:/weights /mnt/my\040weights nfs4 ro,vers=4.2 0 0
        gone:/x /mnt/gone nfs4 rw 0 0
        """
    root = tree(tmp_path, {"/proc/self/mounts": mounts.lstrip("\n"), "/etc/hosts": ""})
    for name in ("models/fast", "mnt/my weights"):
        (root / name).mkdir(parents=True)
    disks, _ = ask("disks", root)

    assert [
        ("/", "overlay", "overlay"),
        ("/mnt/my weights", "nfs4", "store:/weights"),
        ("/models", "xfs", "/dev/nvme1n1"),
    ] == [(disk["mount"], disk["filesystem"], disk["device"]) for disk in disks]
    assert 0 == disks[1]["free"]
    assert 0 < disks[2]["free"] < disks[2]["total"]


def test_real_disks_agree_with_python() -> None:
    """On this machine the root file system has the size that Python tells."""
    facts = run_probe()

    root = next((disk for disk in facts.disks if disk.mount == "/"), DiskFacts(mount="/"))
    assert shutil.disk_usage("/").total == root.total


def test_listening_ports(tmp_path: Path) -> None:
    """Listening sockets of both families are told with readable addresses; others are not."""
    head = "  sl  local_address rem_address   st\n"
    tcp = head + "   0: 0100007F:1F40 00000000:0000 0A\n   1: 0100007F:1F41 00000000:0000 01\n"
    six = (
        head
        + "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A\n"
    )
    if sys.byteorder == "big":
        tcp = tcp.replace("0100007F", "7F000001")
    ports, unknown = ask("ports", tree(tmp_path, {"/proc/net/tcp": tcp, "/proc/net/tcp6": six}))

    assert [(22, "::"), (8000, "127.0.0.1")] == [(port["port"], port["address"]) for port in ports]
    assert {} == unknown


def test_real_port_is_seen() -> None:
    """A port that something listens on here and now is among the facts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        facts = run_probe()

    assert PortFacts(port=port, address="127.0.0.1") in facts.ports


def environment(prefix: Path, **versions: str) -> Path:
    """Make a Python environment with distributions, by METADATA alone, and their programs."""
    site = prefix / "lib/python3.12/site-packages"
    programs = prefix / "bin"
    programs.mkdir(parents=True)
    for name in ("python3", *versions):
        (programs / name).write_text("#!/bin/sh\nexit 1\n")
        (programs / name).chmod(0o755)
    for name, version in versions.items():
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nVersion: not this\n"
        tree(site, {f"{name}-{version}.dist-info/METADATA": text})
    return prefix


def test_engines_in_environments(tmp_path: Path) -> None:
    """Engines are found in given environments and in PATH, and nothing of them is run."""
    given = environment(tmp_path / "given", vllm="0.19.1", kt_kernel="0.7.2")
    in_path = environment(tmp_path / "in path", sglang="0.5.10.post1")
    facts = run_probe("--venv", str(given), env={"PATH": f"{in_path}/bin:{SYSTEM_PATH}"})

    assert (
        EngineFacts(
            engine="vllm",
            path=f"{given}/bin/vllm",
            version="0.19.1",
            packages={"kt-kernel": "0.7.2"},
        ),
        EngineFacts(
            engine="ktransformers",
            path=f"{given}/bin/python3",
            version="0.7.2",
            packages={"kt-kernel": "0.7.2"},
        ),
        EngineFacts(engine="sglang", path=f"{in_path}/bin/sglang", version="0.5.10.post1"),
    ) == facts.engines


def test_environments_of_one_interpreter(tmp_path: Path) -> None:
    """Two environments whose interpreters are one and the same are two installations."""
    versions = ["0.7.1", "0.7.2"]
    environments = [environment(tmp_path / version, sglang_kt=version) for version in versions]
    for prefix in environments:
        (prefix / "bin/python3").unlink()
        (prefix / "bin/python3").symlink_to(sys.executable)
    options = [word for prefix in environments for word in ("--venv", str(prefix))]
    facts = run_probe(*options)

    assert versions == [engine.version for engine in facts.engines]


def test_engine_behind_a_link(tmp_path: Path) -> None:
    """A program that is linked into PATH leads to the environment it belongs to, once."""
    tool = environment(tmp_path / "tools/vllm", vllm="0.19.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").symlink_to(tool / "bin/vllm")
    facts = run_probe(env={"PATH": f"{tmp_path}/bin:{tool}/bin:{SYSTEM_PATH}"})

    assert (EngineFacts(engine="vllm", path=f"{tool}/bin/vllm", version="0.19.1"),) == facts.engines


def test_engine_by_its_first_line(tmp_path: Path) -> None:
    """A copied script leads to its environment by its interpreter."""
    tool = environment(tmp_path / "env", vllm="0.19.1")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/vllm").write_text(f"#!{tool}/bin/python3\n")
    (tmp_path / "bin/vllm").chmod(0o755)
    facts = run_probe(env={"PATH": f"{tmp_path}/bin:{SYSTEM_PATH}"})

    assert ["0.19.1"] == [engine.version for engine in facts.engines]


def test_engine_whose_version_is_gone(tmp_path: Path) -> None:
    """An installation without METADATA is told without a version, and why."""
    env = environment(tmp_path / "env", vllm="0.19.1")
    (env / "lib/python3.12/site-packages/vllm-0.19.1.dist-info/METADATA").unlink()
    facts = run_probe("--venv", str(env))

    assert [None] == [engine.version for engine in facts.engines]
    assert "version of vllm-0.19.1.dist-info" in {gap.what for gap in facts.unknown}


def test_venv_that_is_none(tmp_path: Path) -> None:
    """A folder that is no Python environment is said to be none."""
    facts = run_probe("--venv", str(tmp_path))

    said = {gap.what: gap.reason for gap in facts.unknown}
    expected = "it is no Python environment (no site-packages)"
    assert expected == said[f"engines in {tmp_path}"]


@pytest.mark.parametrize(
    ("prints", "expected"),
    [
        ("echo 'ggml_cuda_init: found 1 device' >&2; echo 'version: 6700 (abc12345)' >&2", "b6700"),
        ("echo unknown option; exit 1", None),
    ],
)
def test_llama_server(tmp_path: Path, prints: str, expected: str | None) -> None:
    """llama-server's build is what it prints, wherever it prints it."""
    server = tmp_path / "llama-server"
    server.write_text(f"#!/bin/sh\n{prints}\n")
    server.chmod(0o755)
    facts = run_probe(env={"PATH": f"{tmp_path}:{SYSTEM_PATH}"})

    assert (EngineFacts(engine="llamacpp", path=str(server), version=expected),) == facts.engines


def test_gpus_on_the_bus_without_driver(tmp_path: Path) -> None:
    """GPUs that the bus shows and no driver drives are counted; bridges are not."""
    devices = "/sys/bus/pci/devices"
    root = tree(
        tmp_path,
        {
            f"{devices}/0000:1b:00.0/vendor": "0x10de\n",
            f"{devices}/0000:1b:00.0/class": "0x030200\n",
            f"{devices}/0000:05:00.0/vendor": "0x10de\n",
            f"{devices}/0000:05:00.0/class": "0x068000\n",
            f"{devices}/0000:1b:00.0/numa_node": "1\n",
        },
    )

    assert {"NVIDIA": 1, "AMD": 0} == vendor.pci_gpus(str(root))
    assert 1 == vendor.numa_of(str(root), "00000000:1B:00.0")
    assert None is vendor.numa_of(str(root), "00000000:05:00.0")


def test_kernel_module(tmp_path: Path) -> None:
    """The version of the loaded kernel module is read, open or proprietary."""
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    root = tree(tmp_path, {"/proc/driver/nvidia/version": line})

    assert "580.65.06" == vendor.kernel_module(str(root))


def test_source_that_fails_is_a_gap(tmp_path: Path) -> None:
    """A source that can't be read costs its facts alone."""
    root = tree(tmp_path, {"/proc/net/tcp": "head\n 0: nonsense:port 0 0A\n"})
    facts = probe(root=str(root))

    assert "ports" not in facts
    said = {gap["what"]: gap["reason"] for gap in facts["unknown"]}
    assert said["ports"].startswith("ValueError: ")


def test_source_that_hangs_is_a_gap(tmp_path: Path) -> None:
    """A source that never answers is given up at the deadline; the others are told."""
    (tmp_path / "proc/net").mkdir(parents=True)
    os.mkfifo(tmp_path / "proc/net/tcp")
    facts = probe(root=str(tmp_path), deadline=0.2)
    (tmp_path / "proc/net/tcp").write_text("")

    assert {"what": "ports", "reason": "no answer within 0.2 s"} in facts["unknown"]
    assert os.cpu_count() == facts["cpu"]["threads"]


def test_text_that_is_no_unicode() -> None:
    """Names that can't be UTF-8 are replaced, so that the JSON can always be read."""
    assert {"a": ["?x"]} == base.clean({"a": ["\udcffx"]})


def test_schema_is_ours() -> None:
    """The probe stands alone, and writes the schema that kimideploy reads."""
    assert SCHEMA == WRITTEN


def test_probe_is_python_3_8() -> None:
    """The probe's syntax is that of Python 3.8."""
    ast.parse(PROBE, feature_version=(3, 8))


def test_the_files_of_the_probe_share_no_name() -> None:
    """Joined to one program, a name that two files give would be the later one's."""
    names: Counter[str] = Counter()
    for file in FILES:
        path = Path(str(importlib.import_module(f"kimideploy.facts.probe.{file}").__file__))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names[name] += 1
                case ast.Assign(targets=[ast.Name(id=name)]):
                    names[name] += 1
                case _:
                    pass

    assert len(names) > 100
    assert [] == [name for name, count in names.items() if count > 1]


def test_the_joined_probe_has_every_file() -> None:
    """No file of the folder is forgotten in the program that is sent to hosts."""
    folder = Path(str(base.__file__)).parent

    assert set(FILES) == {path.stem for path in folder.glob("*.py")} - {"__init__"}


def pythons() -> list[str]:
    """The oldest Python the probe promises to run on, if there is one, and this one."""
    places = [*Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"), Path("/usr/bin/python3.8")]
    oldest = [str(place) for place in places if place.exists()]
    return [*oldest[:1], sys.executable]


@pytest.mark.parametrize("python", pythons())
def test_probe_runs_on(python: str, tmp_path: Path) -> None:
    """The probe runs from stdin, also in a folder whose files are named like modules."""
    for name in ("types.py", "json.py", "pynvml.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    facts = run_probe(python=[python, "-S"], cwd=tmp_path)

    assert socket.gethostname() == facts.hostname
    assert sys.platform != "linux" or "Linux" == facts.system


def test_probe_runs_as_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The probe runs from where it lies, and prints one JSON object."""
    (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
    words = [sys.executable, str(tmp_path / "probe.py")]

    assert 0 == os.spawnv(os.P_WAIT, sys.executable, words)

    assert SCHEMA == json.loads(capfd.readouterr().out)["schema"]
