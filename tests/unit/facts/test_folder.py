"""A folder of weights and a port, as the probe looks at them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kimideploy.facts.probe.base import Unknown
from kimideploy.facts.probe.folder import INDEX, about_files, about_folder, look_at_folder
from kimideploy.facts.probe.reach import about_programs, look_at_port
from tests.flows import place


def test_a_real_folder_is_looked_at(tmp_path: Path) -> None:
    """Sizes, index, the shards' own headers, and leftovers of the hub's client."""
    folder = place.weights(tmp_path / "weights")
    downloads = folder / ".cache" / "huggingface" / "download"
    downloads.mkdir(parents=True)
    (downloads / "abc.incomplete").write_bytes(b"half")
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])

    found = look_at_folder(str(folder))

    assert found["exists"]
    assert (shard.name, whole) in found["promised"].items()
    assert whole - 1 == found["sizes"][shard.name]
    assert 4 == found["sizes"]["abc.incomplete"]
    assert ["model-00001-of-00002.safetensors", shard.name] == found["shards"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_no_crash(tmp_path: Path, text: str) -> None:
    """Anything may lie under that name."""
    (tmp_path / INDEX).write_text(text, encoding="utf-8")

    assert INDEX in str(look_at_folder(str(tmp_path))["broken_index"])


def test_shards_that_are_none_promise_nothing(tmp_path: Path) -> None:
    """A header that can't be read is the weights' verifier's business."""
    for number, data in enumerate([b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]"]):
        (tmp_path / f"{number}.safetensors").write_bytes(data)

    assert {} == look_at_folder(str(tmp_path))["promised"]


def test_a_link_is_followed_and_a_broken_one_is_missing(tmp_path: Path) -> None:
    """The hub's cache is made of links."""
    (tmp_path / "blob").write_bytes(b"12345")
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    (tmp_path / INDEX).symlink_to(tmp_path / "nowhere")

    found = look_at_folder(str(tmp_path))

    assert 5 == found["sizes"]["config.json"]
    assert INDEX not in found["sizes"]


def test_a_free_port_is_free() -> None:
    """Nothing listens, and looking does not keep it."""
    port = place.free_port()

    states = [look_at_port("127.0.0.1", port)["state"] for _ in range(2)]

    assert ["free", "free"] == states


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_names_who_listens(address: str) -> None:
    """A listener on all addresses holds loopback too."""
    with socket.create_server((address, 0)) as server:
        found = look_at_port("127.0.0.1", server.getsockname()[1])

    assert "taken" == found["state"]
    assert f"(pid {os.getpid()})" in str(found["holder"])
    assert [os.getpid()] == found["pids"]


def test_an_address_of_another_machine_is_forbidden() -> None:
    """Only this machine's addresses can be listened on."""
    assert "forbidden" == look_at_port("192.0.2.1", place.free_port())["state"]


def test_a_port_that_is_no_number_of_one() -> None:
    """A number beyond all ports is forbidden, and no crash."""
    assert "forbidden" == look_at_port("127.0.0.1", 70_000)["state"]


def test_reading_is_measured(tmp_path: Path) -> None:
    """The rate of a folder that has something in it is told, with its file system and its room."""
    (tmp_path / "model.safetensors").write_bytes(bytes(96 << 20))
    unknown = Unknown()

    found = about_folder(str(tmp_path), 0.2, unknown)["weights"]

    assert found["read_rate"] > 1e6
    assert found["free"] > 0
    assert found["filesystem"]
    assert [] == unknown.entries


def test_an_empty_folder_has_no_rate(tmp_path: Path) -> None:
    """Nothing to read is said, and a folder that is not there has the room of the one above."""
    unknown = Unknown()

    found = about_folder(str(tmp_path / "not" / "yet"), 0.2, unknown)["weights"]
    about_folder(str(tmp_path), 0.2, unknown)

    assert (False, None) == (found["exists"], found.get("read_rate"))
    assert found["free"] > 0
    assert ["read rate"] == [gap["what"] for gap in unknown.entries]


def test_private_files_are_looked_at(tmp_path: Path) -> None:
    """Mode and owner of a file that is there, and that the other is not."""
    key = tmp_path / "api.key"
    key.write_text("sesame")
    key.chmod(0o640)

    there, gone = about_files([str(key), str(tmp_path / "gone")], "/")["files"]

    assert (0o640, os.geteuid()) == (there["mode"], there["owner"])
    assert gone["exists"] is False
    assert "sesame" not in str(there)


def test_programs_are_found_in_the_environment_first(tmp_path: Path) -> None:
    """The environment that is named counts before PATH; what is nowhere has no path."""
    mine = place.environment(tmp_path / "mine")

    found = about_programs(["vllm", "no-such-engine"], [f"{mine}/bin"])["programs"]

    assert [f"{mine}/bin/vllm", None] == [one["path"] for one in found]
