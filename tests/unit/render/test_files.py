"""Rendered files, judged by bash, shellcheck, systemd and a poison key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kimideploy.engines import complete
from kimideploy.errors import RequestError
from kimideploy.planning.types import Launch, Layout, Offload, Plan
from kimideploy.render.files import Kind, _wrapped, render
from tests.unit.engines.plans import CATALOG, DRAFT, gguf, hybrid, plan

KINDS: tuple[Kind, ...] = ("shell", "systemd", "env")
PLANS: dict[str, Plan] = {
    "vllm": plan(),
    "vllm from a folder": plan(model_path="/srv/models/kimi k2 100%/$HOME"),
    "vllm from a home": plan(model_path="/home/kimi/models"),
    "vllm with a draft": plan(model_path="/srv/models", draft=DRAFT),
    "vllm on two nodes": plan(gpu="h100-80", layout=Layout(tp=8, pp=2), nodes=2),
    "vllm on AMD": plan(gpu="mi355x"),
    "vllm beyond loopback": plan(bind="10.0.0.1"),
    "vllm with words of the user": plan(
        engine_args=("--chat-template", "a b'\"\\%h$HOME\n`id`;#é")
    ),
    "sglang": plan("sglang"),
    "ktransformers": hybrid(Offload(gpu_experts=30)),
    "llama.cpp": gguf("rtx4090", Layout(pp=4), Offload(gpu_layers=((1, 2), (16,), (31,), (46,)))),
    "llama.cpp without a card": gguf(None, Layout(), Offload(cpu_layers=60), bind="0.0.0.0"),
}


def rendered(name: str, kind: Kind) -> dict[str, str]:
    """Return the files of a plan by its name."""
    return render(complete(PLANS[name], CATALOG), kind, CATALOG)


@pytest.mark.parametrize("name", PLANS)
def test_a_script_runs_the_plans_words(name: str, tmp_path: Path) -> None:
    """bash executes launch.sh, and the engine gets exactly the plan's argv and environment."""
    launches = complete(PLANS[name], CATALOG).launches
    for launch, text in zip(launches, rendered(name, "shell").values(), strict=True):
        if launch.secrets:
            key = tmp_path / "api.key"
            key.write_text("k3y\n")
            text = text.replace(launch.secrets[0].file, str(key))  # noqa: PLW2901
        seen = _run(text, launch, tmp_path)

        assert list(launch.argv) == seen["argv"]
        assert dict(launch.env).items() <= seen["env"].items()
        assert {secret.variable: "k3y" for secret in launch.secrets}.items() <= seen["env"].items()


@pytest.mark.parametrize("name", PLANS)
def test_shellcheck_has_nothing_to_say(name: str, tmp_path: Path) -> None:
    """shellcheck, with every optional severity, finds nothing in launch.sh."""
    paths = _written(rendered(name, "shell"), tmp_path)
    done = subprocess.run(
        [_program("shellcheck"), "--severity=style", *paths], capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert (0, "") == (done.returncode, done.stdout)


@pytest.mark.parametrize("name", PLANS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    """systemd-analyze verify prints nothing at all and finds the unit well hardened."""
    for path in _written(rendered(name, "systemd"), tmp_path):
        verified = _analyze("verify", "--man=no", path)
        rated = _analyze("security", "--offline=yes", "--threshold=25", path)

        assert (0, "") == (verified.returncode, verified.stderr)
        assert 0 == rated.returncode, rated.stdout.splitlines()[-1]


@pytest.mark.parametrize("name", PLANS)
def test_a_unit_says_what_it_starts(name: str) -> None:
    """Each unit restarts on anything but a wrong configuration and ends with all its workers."""
    for text in rendered(name, "systemd").values():
        lines = text.splitlines()

        assert "Restart=always" in lines
        assert "RestartPreventExitStatus=78 126 127" in lines
        assert "KillMode=mixed" in lines
        assert not any(line.startswith(("MemoryDenyWriteExecute", "ProcSubset")) for line in lines)


def test_a_unit_waits_for_the_bytes() -> None:
    """595 GB at 100 MB/s and half an hour of compiling, in steps of five minutes."""
    assert "TimeoutStartSec=130min" in rendered("vllm", "systemd")["kimi-k2.7-code.service"]


@pytest.mark.parametrize(
    ("name", "alone"),
    [
        ("vllm", False),
        ("vllm from a folder", True),
        ("vllm with a draft", False),
        ("vllm on two nodes", False),
        ("vllm beyond loopback", False),
        ("llama.cpp", True),
    ],
)
def test_only_a_launch_that_needs_no_network_is_shut_in(name: str, *, alone: bool) -> None:
    """The unit may reach nothing but loopback when weights are local and nobody else calls."""
    for text in rendered(name, "systemd").values():
        assert alone == ("IPAddressDeny=any" in text.splitlines())


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        ("vllm", ["char-nvidia", "char-nvidia-frontend", "char-nvidia-uvm", "char-nvidia-caps"]),
        ("vllm on AMD", ["/dev/kfd", "char-drm"]),
        ("vllm on two nodes", ["char-infiniband*"]),
        ("llama.cpp without a card", []),
    ],
)
def test_a_unit_opens_its_own_gpus_only(name: str, devices: list[str]) -> None:
    """Devices are closed but those of the GPU's vendor; without a GPU there are none."""
    for text in rendered(name, "systemd").values():
        allowed = [line for line in text.splitlines() if line.startswith("DeviceAllow=")]

        assert "DevicePolicy=closed" in text.splitlines()
        assert {f"DeviceAllow={device} rw" for device in devices} <= set(allowed)
        assert (not devices) == (not allowed) == ("PrivateDevices=yes" in text.splitlines())


def test_a_home_can_be_read() -> None:
    """Weights in someone's home are seen, but can't be written."""
    text = rendered("vllm from a home", "systemd")["kimi-k2.7-code.service"]

    assert "ProtectHome=read-only" in text.splitlines()


@pytest.mark.parametrize(
    "path", ["models/kimi", "/tmp/kimi", "/var/tmp/x", '/srv/a"b', "/srv/a\\b"]
)
def test_a_path_a_unit_can_not_see_is_refused(path: str) -> None:
    """Relative paths, private folders and signs that no unit can hold are refused by name."""
    made = complete(plan(model_path=path), CATALOG)

    with pytest.raises(RequestError, match="path"):
        render(made, "systemd", CATALOG)


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_a_node(kind: Kind) -> None:
    """Two nodes give two files, told apart by the node's number; one node gives one without."""
    ends = {"shell": "launch{}.sh", "systemd": "k2.7-code{}.service", "env": "k2.7-code{}.env"}
    end = ends[kind]

    two, one = list(rendered("vllm on two nodes", kind)), list(rendered("vllm", kind))
    assert [True, True] == [name.endswith(end.format(f"-node{i}")) for i, name in enumerate(two)]
    assert [True] == [name.endswith(end.format("")) for name in one]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
def test_a_placeholder_is_marked(kind: Kind, name: str) -> None:
    """A file with a word nobody has said yet tells so at its top."""
    for text in rendered(name, kind).values():
        assert ("REPLACE HEAD_ADDRESS" in text) == (name == "vllm on two nodes")


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_holds_a_key(kind: Kind) -> None:
    """A secret is named by its file; its variable is never given a value in a unit or a file."""
    for text in rendered("vllm beyond loopback", kind).values():
        assert "VLLM_API_KEY=" not in text.replace('VLLM_API_KEY="$(cat /etc', "")
        assert "--api-key" not in text


def test_a_unit_hands_the_key_to_the_engine(tmp_path: Path) -> None:
    """The words of ExecStart=, run with systemd's credentials folder, give the engine its key."""
    (launch,) = complete(PLANS["vllm beyond loopback"], CATALOG).launches
    (tmp_path / "VLLM_API_KEY").write_text("k3y with space\n")
    _stand_in(tmp_path, launch)
    done = subprocess.run(
        _wrapped(launch),
        capture_output=True,
        check=True,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    seen = json.loads(done.stdout)

    assert (list(launch.argv), "k3y with space") == (seen["argv"], seen["env"]["VLLM_API_KEY"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_name_can_not_leave_its_comment(kind: Kind) -> None:
    """A node's name with a newline stays in the comment it is shown in."""
    made = complete(PLANS["vllm on two nodes"], CATALOG)
    node = msgspec.structs.replace(made.inventory.nodes[0], name="x\nrm -rf /\r\u2028y")
    inventory = msgspec.structs.replace(made.inventory, nodes=(node, *made.inventory.nodes[1:]))
    files = render(msgspec.structs.replace(made, inventory=inventory), kind, CATALOG)

    assert not any(line.startswith("rm") for text in files.values() for line in text.splitlines())


def test_a_plan_without_launches_is_refused() -> None:
    """Only a completed plan can be rendered."""
    with pytest.raises(RequestError, match="launches"):
        render(plan(), "shell", CATALOG)


def test_an_environment_file_is_the_environment(tmp_path: Path) -> None:
    """Sourced by a shell, the file sets the plan's variables."""
    (path,) = _written(rendered("vllm on AMD", "env"), tmp_path)
    (launch,) = complete(PLANS["vllm on AMD"], CATALOG).launches
    show = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    done = subprocess.run(
        [_program("sh"), "-c", f"set -a; . {path}; {show}"], capture_output=True, check=True, env={}
    )

    assert dict(launch.env).items() <= json.loads(done.stdout).items()


def _stand_in(folder: Path, launch: Launch) -> None:
    """Put a program there, called as the engine's, that prints what it was given."""
    program = folder / launch.argv[0]
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps({'argv': [os.path.basename(sys.argv[0]), *sys.argv[1:]],"
        " 'env': dict(os.environ)}))\n"
    )
    program.chmod(0o755)


def _run(script: str, launch: Launch, folder: Path) -> dict[str, Any]:
    """Run the script with a stand-in for the program, and return what that was given."""
    _stand_in(folder, launch)
    (folder / "launch.sh").write_text(script, newline="")
    done = subprocess.run(
        [_program("bash"), folder / "launch.sh"],
        capture_output=True,
        check=True,
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
    )
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _written(files: dict[str, str], folder: Path) -> list[Path]:
    for name, text in files.items():
        (folder / name).write_text(text, newline="")
    return [folder / name for name in files]


def _analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_program("systemd-analyze"), *words], capture_output=True, text=True, check=False
    )


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is missing; CI must have it")
        pytest.skip(f"{name} is missing")
    return found
