"""known_hosts, with ssh-keygen as the oracle."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kimideploy.remote.known_hosts import (
    fingerprint,
    judge,
    kinds,
    lines,
    needs_certificates,
    record,
)

NAMES = ["gpu1", "gpu1.lab", "10.0.0.7", "[gpu1]:2222", "[10.0.0.7]:22022", "fe80::1", "GPU1.lab"]
PATTERNS = ["gpu1", "gpu?", "gpu*", "*.lab", "!gpu1,*", "*,!gpu1.lab", "10.0.*", "[gpu1]:2222",
            "[gpu*]:*", "[10.0.0.7]:22022", "fe80::1", "gpu1,10.0.0.7", "*"]  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three public keys as known_hosts has them."""
    if shutil.which("ssh-keygen") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("ssh-keygen is not installed")
    folder = tmp_path_factory.mktemp("keys")
    found = []
    for kind in ("ed25519", "ecdsa", "rsa"):
        path = folder / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
        found.append(" ".join(path.with_suffix(".pub").read_text("utf-8").split()[:2]))
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_line_is_found_as_ssh_finds_it(
    keys: list[str], tmp_path: Path, pattern: str, name: str
) -> None:
    """A pattern is about a name exactly where `ssh-keygen -F` says so."""
    path = tmp_path / "known_hosts"
    path.write_text(f"{pattern} {keys[0]}\n", encoding="utf-8")
    said = subprocess.run(
        ["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, check=False
    )

    (line,) = lines([path])

    assert (said.returncode == 0) == line.is_about(name)


def test_hashed_names_both_ways(keys: list[str], tmp_path: Path) -> None:
    """What ssh-keygen hashed we find, and what we hashed it finds."""
    path = tmp_path / "known_hosts"
    path.write_text(f"gpu1 {keys[0]}\n", encoding="utf-8")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    kind, blob = keys[1].split()
    import base64  # noqa: PLC0415

    record(path, "[gpu2]:2222", kind, base64.b64decode(blob), hashed=True)

    found = list(lines([path]))
    theirs = subprocess.run(
        ["ssh-keygen", "-F", "[gpu2]:2222", "-f", str(path)], capture_output=True, check=False
    )

    assert [True, False] == [line.is_about("gpu1") for line in found]
    assert [False, True] == [line.is_about("[gpu2]:2222") for line in found]
    assert 0 == theirs.returncode


def test_fingerprints_are_ssh_keygens(keys: list[str], tmp_path: Path) -> None:
    """The fingerprint is what `ssh-keygen -l` prints."""
    path = tmp_path / "known_hosts"
    for key in keys:
        path.write_text(f"h {key}\n", encoding="utf-8")
        said = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, check=True)
        (line,) = lines([path])
        assert said.stdout.split()[1].decode() == fingerprint(line.key)


@pytest.mark.parametrize(
    ("text", "standing"),
    [
        ("h {a}", "known"),
        ("h {b}", "changed"),
        ("other {a}", "unknown"),
        ("h {a}\n@revoked * {a}", "revoked"),
        ("@cert-authority * {b}", "certified"),
        ("@cert-authority * {b}\nh {a}", "known"),
        ("h {b}\nh {a}", "known"),
        ("# h {b}\n\nnonsense\nh ssh-ed25519 !!!\nh {a}", "known"),
    ],
)
def test_standing(keys: list[str], tmp_path: Path, text: str, standing: str) -> None:
    """A key is known, changed, unknown, revoked, or left to a certificate."""
    path = tmp_path / "known_hosts"
    path.write_text(text.format(a=keys[0], b=keys[1]) + "\n", encoding="utf-8")
    mine = tmp_path / "mine"
    mine.write_text(f"h {keys[0]}\n", encoding="utf-8")
    (line,) = lines([mine])
    found = list(lines([path]))

    assert standing == judge(found, "h", line.key)[0]
    assert (standing == "certified") == needs_certificates(found, "h")


def test_known_kinds_are_asked_for_first(keys: list[str], tmp_path: Path) -> None:
    """The kinds of key that are known of a host, in the order of the file."""
    path = tmp_path / "known_hosts"
    path.write_text(f"h {keys[1]}\nh {keys[0]}\nother {keys[2]}\n", encoding="utf-8")

    assert ("ecdsa-sha2-nistp256", "ssh-ed25519") == kinds(list(lines([path])), "h")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200), st.text(max_size=40))
def test_any_text_is_read(text: str, name: str) -> None:
    """No file and no name makes the reader fail."""
    import tempfile  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "known_hosts"
        path.write_text(text, encoding="utf-8", errors="replace")
        for line in lines([path]):
            line.is_about(name)
