"""What is looked at before a launch, and how it is judged."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import msgspec
import pytest

from kimideploy.apply import look, preflight
from kimideploy.apply.look import Folder, Port, Seen
from kimideploy.engines import complete
from kimideploy.engines.site import Site, sites
from kimideploy.errors import BusyError, KimiError, MachineError, RequestError, WeightsError
from kimideploy.facts.local import inspect_local
from kimideploy.planning.types import Launch, Layout
from tests.flows import place
from tests.unit.engines.plans import CATALOG, GGUF, plan

INDEX = "model.safetensors.index.json"
FREE = Port("free")


def _site(engine: str = "vllm", **words: object) -> tuple[Site, Launch]:
    found = complete(plan(engine, **words), CATALOG)  # type: ignore[arg-type]
    return sites(found, CATALOG)[0], found.launches[0]


def _folder(*names: str, empty: tuple[str, ...] = (), **other: object) -> Folder:
    sizes = dict.fromkeys(names, 10) | dict.fromkeys(empty, 0)
    shards = tuple(name for name in sizes if name.startswith("model-"))
    fields = {"exists": True, "sizes": sizes, "shards": shards or None} | other
    return Folder(path="/srv/kimi", **fields)  # type: ignore[arg-type]


def _model(folder: Folder | None, engine: str = "vllm", **words: object) -> tuple[str, str]:
    site, _ = _site(engine, **({"model_path": "/srv/kimi"} | words))
    check = preflight.judge_model(site, folder)
    return check.outcome, check.evidence


def _outcome(name: str, seen: Seen, **words: object) -> str:
    site, launch = _site(**words)  # type: ignore[arg-type]
    checks = preflight.judge(site, launch, seen)
    return next(check.outcome for check in checks if check.name == name)


# --- the model ---------------------------------------------------------------------------

WHOLE = ("config.json", INDEX, "model-00001-of-00002", "model-00002-of-00002")


def test_a_whole_model_passes() -> None:
    """Every shard of the index is there and none is empty."""
    assert "pass" == _model(_folder(*WHOLE))[0]


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (_folder(exists=False), "no such folder"),
        (_folder(), "no config.json"),
        (_folder("config.json"), "model.safetensors of 1 weight files missing"),
        (_folder(*WHOLE[:3], empty=WHOLE[3:]), "model-00002-of-00002 of 2 weight files missing"),
        (
            _folder(*WHOLE[:2], empty=WHOLE[2:]),
            "model-00001-of-00002 and 1 more of 2 weight files missing or empty",
        ),
        (_folder("config.json", INDEX, broken_index="no index"), "no index"),
        (
            _folder(*WHOLE, promised={WHOLE[3]: 5000}),
            "model-00002-of-00002 is cut off: 10 of 5,000 bytes",
        ),
        (
            _folder("config.json", "x.incomplete", empty=("model-00001",)),
            "1 *.incomplete files are of a download that did not end",
        ),
    ],
)
def test_what_is_not_whole_is_told(folder: Folder, said: str) -> None:
    """The first thing that is wrong with the folder, in words."""
    outcome, evidence = _model(folder)

    assert "fail" == outcome
    assert said in evidence


def test_leftovers_beside_a_whole_model_are_a_warning() -> None:
    """The hub's client leaves them after success too, so they are no reason to refuse."""
    outcome, evidence = _model(_folder(*WHOLE, "a.incomplete", "b.incomplete"))

    assert "warn" == outcome
    assert "2 *.incomplete files" in evidence


def test_what_the_engine_fetches_itself_is_not_checked_and_said_so() -> None:
    """A repo id is no folder."""
    outcome, evidence = _model(None, model_path=None)

    assert "warn" == outcome
    assert "moonshotai/Kimi-K2.7-Code" in evidence


def test_all_parts_of_a_gguf_must_be_there() -> None:
    """The parts are counted from the first one's name."""
    first = "Kimi-K2.7-Code-UD-Q2_K_XL-00001-of-00003.gguf"
    parts = [first.replace("00001", f"{n:05}", 1) for n in (1, 2, 3)]
    words = {"checkpoint": GGUF, "layout": Layout(), "model_path": f"/srv/kimi/{first}"}

    assert "pass" == _model(_folder(*parts), "llamacpp", **words)[0]
    outcome, evidence = _model(_folder(*parts[:2]), "llamacpp", **words)
    assert "fail" == outcome
    assert f"{parts[2]} of 3 weight files missing" in evidence


def test_a_gguf_in_one_file_is_enough() -> None:
    """Not every quant is split."""
    words = {"checkpoint": GGUF, "layout": Layout(), "model_path": "/srv/kimi/k2.gguf"}

    assert "pass" == _model(_folder("k2.gguf"), "llamacpp", **words)[0]


def test_a_real_folder_is_looked_at(tmp_path: Path) -> None:
    """Sizes, index, the shards' own headers, and leftovers of the hub's client."""
    folder = place.weights(tmp_path / "weights")
    downloads = folder / ".cache" / "huggingface" / "download"
    downloads.mkdir(parents=True)
    (downloads / "abc.incomplete").write_bytes(b"half")
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])

    found = look.look_at_folder(folder)

    assert found.exists
    assert (shard.name, whole) in found.promised.items()
    assert whole - 1 == found.sizes[shard.name]
    assert 4 == found.sizes["abc.incomplete"]
    assert ("model-00001-of-00002.safetensors", shard.name) == found.shards


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_is_none_is_no_crash(tmp_path: Path, text: str) -> None:
    """Anything may lie under that name."""
    (tmp_path / INDEX).write_text(text, encoding="utf-8")

    assert INDEX in str(look.look_at_folder(tmp_path).broken_index)


def test_shards_that_are_none_promise_nothing(tmp_path: Path) -> None:
    """A header that can't be read is the weights' verifier's business."""
    for number, data in enumerate([b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]"]):
        (tmp_path / f"{number}.safetensors").write_bytes(data)

    assert {} == look.look_at_folder(tmp_path).promised


def test_a_link_is_followed_and_a_broken_one_is_missing(tmp_path: Path) -> None:
    """The hub's cache is made of links."""
    (tmp_path / "blob").write_bytes(b"12345")
    (tmp_path / "config.json").symlink_to(tmp_path / "blob")
    (tmp_path / INDEX).symlink_to(tmp_path / "nowhere")

    found = look.look_at_folder(tmp_path)

    assert 5 == found.sizes["config.json"]
    assert INDEX not in found.sizes


# --- the port ----------------------------------------------------------------------------


def test_a_free_port_is_free() -> None:
    """Nothing listens, and looking does not keep it."""
    port = place.free_port()

    assert [FREE, FREE] == [look.look_at_port("127.0.0.1", port) for _ in range(2)]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux")
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_names_who_listens(address: str) -> None:
    """A listener on all addresses holds loopback too."""
    with socket.create_server((address, 0)) as server:
        found = look.look_at_port("127.0.0.1", server.getsockname()[1])

    assert "taken" == found.state
    assert f"(pid {os.getpid()})" in str(found.holder)


def test_an_address_of_another_machine_is_forbidden() -> None:
    """Only this machine's addresses can be listened on."""
    assert "forbidden" == look.look_at_port("192.0.2.1", place.free_port()).state


@pytest.mark.parametrize(
    ("state", "outcome"), [("free", "pass"), ("taken", "fail"), ("forbidden", "fail")]
)
def test_ports_are_judged(state: str, outcome: str) -> None:
    """Only a free port will do."""
    seen = Seen(Port(state, "someone"), "/v/bin/vllm")  # type: ignore[arg-type]

    assert outcome == _outcome("port", seen)


# --- engine and version ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "outcome"),
    [
        ("0.32.0", "pass"),
        ("0.32.0+cpu", "pass"),
        ("0.19.1", "pass"),
        ("0.19.0", "fail"),
        ("0.9.2", "fail"),
        ("0.22.0", "fail"),
        ("0.26.0", "pass"),
        (None, "warn"),
    ],
)
def test_versions_are_judged(version: str | None, outcome: str) -> None:
    """Older than the model needs, or denied on this machine: refused; unknown: said."""
    assert outcome == _outcome("version", Seen(FREE, "/v/bin/vllm", version, "x86_64"))


def test_a_version_is_denied_where_it_is_broken() -> None:
    """0.26.0 segfaults on aarch64 only."""
    assert "fail" == _outcome("version", Seen(FREE, "/v/bin/vllm", "0.26.0", "aarch64"))


def test_an_engine_that_is_not_there_is_named_with_its_recipe() -> None:
    """The hint says how to install what the plan pins."""
    site, launch = _site()

    error = preflight.refusal(preflight.judge(site, launch, Seen(FREE)))

    assert isinstance(error, MachineError)
    assert "vllm==0.32.0" in str(error.hint)


def test_open_places_are_refused() -> None:
    """A command with HEAD_ADDRESS in it is never run."""
    site, launch = _site(gpu="h100-80", layout=Layout(tp=8, pp=2), nodes=2)
    seen = Seen(FREE, "/v/bin/vllm", "0.32.0")

    error = preflight.refusal(preflight.judge(site, launch, seen))

    assert isinstance(error, RequestError)
    assert "HEAD_ADDRESS" in str(error)


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (Seen(Port("taken"), "/v/bin/vllm", "0.32.0", folder=_folder(*WHOLE)), BusyError),
        (Seen(FREE, None), MachineError),
        (Seen(FREE, "/v/bin/vllm", "0.1.0", folder=_folder(*WHOLE)), MachineError),
        (Seen(FREE, "/v/bin/vllm", "0.32.0", folder=_folder()), WeightsError),
    ],
)
def test_each_refusal_has_its_exit_code(seen: Seen, kind: type[KimiError]) -> None:
    """Who reads only the number knows what to look at."""
    site, launch = _site(model_path="/srv/kimi")

    assert kind is type(preflight.refusal(preflight.judge(site, launch, seen)))


def test_a_rehearsal_says_what_it_skips() -> None:
    """Nothing is left out silently."""
    _, launch = _site()

    outcomes = {check.name: check.outcome for check in preflight.rehearsed(launch, FREE)}

    assert {"port": "pass", "engine": "skipped", "version": "skipped", "model": "skipped"} == (
        outcomes
    )


def test_the_version_is_read_from_the_engines_own_environment(tmp_path: Path) -> None:
    """Of two environments, the one the program is in counts."""
    other = place.environment(tmp_path / "other", version="0.1.0")
    mine = place.environment(tmp_path / "mine")
    site, launch = _site(port=place.free_port())

    seen = look.look(site, launch, inspect_local(venvs=[other, mine]), f"{mine}/bin")

    assert (f"{mine}/bin/vllm", "0.32.0") == (seen.executable, seen.version)


def test_checks_survive_json() -> None:
    """An event is one JSON object with its kind in it."""
    _, launch = _site()

    (first, *_) = preflight.rehearsed(launch, FREE)

    assert "checked" == json.loads(msgspec.json.encode(first))["event"]
