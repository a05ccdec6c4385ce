"""Keys: made, kept as hashes, taken away; and the unit that runs the door."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from kimideploy.errors import RequestError
from kimideploy.guard import keys
from kimideploy.render.guard import guard_unit
from tests.guard.door import run


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    """The file has mode 0600 and nothing in it that opens anything."""
    path = tmp_path / "guard.keys"

    code, out, err = run("key", "laptop", "--keys", str(path))

    assert 0 == code
    key = out.strip()
    assert key.startswith("kd-")
    assert len(key) > 40
    assert key not in err
    assert key not in path.read_text(encoding="utf-8")
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert "laptop" == keys.read(path).name_of(key)


def test_a_name_has_one_key_until_it_is_taken_away(tmp_path: Path) -> None:
    """A second one is refused; after --remove the old key opens nothing."""
    path = tmp_path / "guard.keys"
    old = keys.add(path, "laptop")

    assert 2 == run("key", "laptop", "--keys", str(path))[0]
    assert 0 == run("key", "laptop", "--keys", str(path), "--remove")[0]
    code, out, _ = run("key", "laptop", "--keys", str(path), "--json")

    assert 0 == code
    kept = keys.read(path)
    assert kept.name_of(old) is None
    assert "laptop" == kept.name_of(json.loads(out)["key"])
    assert 2 == run("key", "nobody", "--keys", str(path), "--remove")[0]


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a\nb sha256:00", "x" * 65, "ü"])
def test_a_name_is_a_plain_word(tmp_path: Path, name: str) -> None:
    """Nothing that would write another line into the file."""
    with pytest.raises(RequestError):
        keys.add(tmp_path / "guard.keys", name)


# --- the unit ----------------------------------------------------------------------------


def _unit(**more: object) -> str:
    usual: dict[str, object] = {
        "program": "/opt/kimideploy/bin/kimideploy",
        "upstream": "http://127.0.0.1:8000",
        "python": ("/opt/kimideploy/python", "/usr"),
        "words": ["--host", "127.0.0.1", "--port", "8080"],
        "port": 8080,
        "files": {"--keys": "/etc/kimideploy/guard.keys"},
        "loopback": True,
    }
    return guard_unit(**(usual | more))  # type: ignore[arg-type]


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """No word of it is unknown, and it is sealed well."""
    program = shutil.which("true")
    assert program is not None
    path = tmp_path / "kimideploy-guard.service"
    path.write_text(_unit(program=program), encoding="utf-8")

    verified = subprocess.run(
        ["systemd-analyze", "verify", path], capture_output=True, text=True, check=False
    )
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=15", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (0, "") == (verified.returncode, verified.stderr)
    assert 0 == rated.returncode, rated.stdout[-400:]


def test_the_unit_hands_the_keys_over() -> None:
    """As a credential: the words name systemd's folder, and no key is in them."""
    text = _unit()

    assert "LoadCredential=keys:/etc/kimideploy/guard.keys" in text
    assert '--keys "%d/keys"' in text
    assert "IPAddressDeny=any" in text
    assert "IPAddressDeny" not in _unit(loopback=False)
    assert "CAP_NET_BIND_SERVICE" in _unit(port=443)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"program": "/root/.local/bin/kimideploy"}, "in a home that the unit can't see"),
        ({"python": ("/root/.local/share/uv/python", "/usr")}, "in a home that the unit can't see"),
        ({"files": {"--keys": "/tmp/guard.keys"}}, "hidden from the unit"),
        ({"files": {"--keys": "guard.keys"}}, "is relative"),
        ({"files": {"--keys": "/etc/100%/guard.keys"}}, "a sign that a unit reads as its own"),
    ],
)
def test_what_a_unit_would_not_find_is_refused(more: dict[str, object], said: str) -> None:
    """Before it is written down."""
    with pytest.raises(RequestError, match=said):
        _unit(**more)


def test_the_unit_command_prints_one(tmp_path: Path) -> None:
    """To stdout; beyond loopback it wants keys."""
    code, out, err = run("unit", "http://127.0.0.1:8000/v1", "--missing", "repair", cwd=tmp_path)
    refused, _, why = run("unit", "http://127.0.0.1:8000", "--host", "0.0.0.0")

    if code == 0:
        assert "guard run http://127.0.0.1:8000 --host 127.0.0.1" in out
        assert "--missing repair" in out
    else:
        # Why: where the tests themselves run from a home or /tmp, a unit can't see it.
        # Why two: a checkout below /tmp is hidden by the unit's own /tmp instead.
        assert "in a home that the unit can't see" in err or "which has its own /tmp" in err
    assert 2 == refused
    assert "nobody would be asked for a key" in why
