"""`kimideploy profiles` from its words to its output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kimideploy.resources import shipped


def profiles(*words: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as its users do, in a pipe."""
    return subprocess.run(
        [sys.executable, "-m", "kimideploy", "profiles", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "80"} | ({"XDG_CONFIG_HOME": str(home)} if home else {}),
        check=False,
    )


def overlay(folder: Path, old: str, new: str) -> Path:
    """Make a folder of profiles that replaces the H200 with a change made once."""
    text = (shipped("profiles") / "gpus" / "h200.yaml").read_text(encoding="utf-8")
    assert old in text
    (folder / "gpus").mkdir(parents=True)
    (folder / "gpus" / "h200.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder


def test_list_shows_every_kind_in_80_columns() -> None:
    """All four kinds have a table; a guess is marked."""
    done = profiles("list")

    assert (0, "") == (done.returncode, done.stderr)
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for word in ("Models", "GPUs", "Engines", "Tiers", "kimi-k2.7-code", "~191.5", "gguf-2bit"):
        assert word in done.stdout


@pytest.mark.parametrize("kind", ["models", "gpus", "engines", "tiers"])
def test_list_of_one_kind_is_json(kind: str) -> None:
    """--json prints one object with the kind asked for, sizes in bytes."""
    found = json.loads(profiles("list", kind, "--json").stdout)

    assert [kind] == list(found)
    assert all(entry["id"] for entry in found[kind])


def test_show_names_the_source_of_each_number() -> None:
    """A part says which source it has, and the sources stand at the end with their day."""
    shown = profiles("show", "H200").stdout

    assert "  memory [measured]\n    usable: 150.11 GB, 139.80 GiB\n" in shown
    assert "  [measured] 2025-11-06: vLLM log on 8 × H200" in shown
    assert "moonshotai/Kimi-K2-Think.md\n" in shown


def test_show_as_json_has_the_sources() -> None:
    """--json prints the whole profile, sizes in bytes."""
    found = json.loads(profiles("show", "moonshotai/Kimi-K2.7-Code", "--json").stdout)
    native = next(c for c in found["checkpoints"] if c["id"] == "int4")

    assert 595_145_000_000 == native["size"]
    assert native["source"] in found["sources"]


@pytest.mark.parametrize("name", ["vllm", "fp16", "kimi-k2-thinking", "gb10", "llamacpp"])
def test_show_takes_every_kind(name: str) -> None:
    """Models, GPUs, engines and tiers are shown alike, and nothing absent is printed."""
    done = profiles("show", name)

    assert 0 == done.returncode
    assert f"  id: {name}\n" in done.stdout
    assert "None" not in done.stdout


def test_name_nobody_knows_is_suggested() -> None:
    """A slip is exit 2 with the nearest name and a hint."""
    done = profiles("show", "kimi-k2.7")
    wrong = profiles("show", "vlm")

    assert 0 == done.returncode
    assert (2, "") == (wrong.returncode, wrong.stdout)
    assert "profile 'vlm' is not known; did you mean `vllm`?" in wrong.stderr


def test_check_tells_the_place(tmp_path: Path) -> None:
    """A wrong key in a folder of the user's is exit 2 with FILE:LINE:COLUMN."""
    folder = overlay(tmp_path, "bandwidth:", "bandwith:")
    done = profiles("check", str(folder))
    path = folder / "gpus" / "h200.yaml"
    line = path.read_text(encoding="utf-8").splitlines().index("bandwith:") + 1

    assert (2, "") == (done.returncode, done.stdout)
    assert (
        f"{path}:{line}:1: `bandwith` is not a known key; did you mean `bandwidth`?" in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_check_of_good_profiles_says_so(tmp_path: Path) -> None:
    """The shipped files and a good folder are well."""
    folder = overlay(tmp_path, "usable: 139.8 GiB", "usable: 100 GiB")

    for words in ((), (str(folder),)):
        done = profiles("check", *words)
        assert (0, "") == (done.returncode, done.stderr)
        assert done.stdout.endswith("files, all well\n")


def test_own_folder_is_read_without_being_named(tmp_path: Path) -> None:
    """Profiles in the user's configuration folder are used by every command; --profiles wins."""
    overlay(tmp_path / "kimideploy" / "profiles", "usable: 139.8 GiB", "usable: 100 GiB")
    given = overlay(tmp_path / "given", "usable: 139.8 GiB", "usable: 90 GiB")

    assert "100.00 GiB" in profiles("show", "h200", home=tmp_path).stdout
    named = profiles("show", "h200", "--profiles", str(given), home=tmp_path)
    assert "90.00 GiB" in named.stdout


@pytest.mark.parametrize("command", ["list", "show", "check"])
def test_help_has_examples(command: str) -> None:
    """Each command's help ends in words that work."""
    assert (
        f"kimideploy profiles {command}" in profiles(command, "--help").stdout.split("Examples")[1]
    )
