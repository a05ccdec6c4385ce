"""`kimideploy serve` on a machine without the weights: pulled, proved, and then served from."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kimideploy.apply.weights import bring
from kimideploy.engines import complete
from kimideploy.errors import WeightsError
from kimideploy.planning.types import CodePin, Local, Plan
from kimideploy.weights import load, space
from kimideploy.weights.resolve import Ways
from tests.cli.run import run
from tests.flows import place
from tests.hub.repos import kimi
from tests.hub.server import Fault, Hub, running
from tests.unit.engines.plans import CATALOG, plan

REPO = "moonshotai/Kimi-K2.7-Code"
DRAFT = "lightseekorg/kimi-k2.7-coder-eagle3.1-mla"
CODE = ["chat_template.jinja", "modeling_kimi_k25.py"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Yield a hub with the model's repository, small."""
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with running() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        found.add(REPO, kimi(tmp_path / "origin", count=2))
        yield found


def commit(hub: Hub) -> str:
    """Return the newest commit of the model."""
    return list(hub.repos[REPO])[-1]


def unpulled(**request: object) -> Plan:
    """Return a plan whose weights nobody has named a folder for."""
    return complete(plan(port=place.free_port(), **request), CATALOG)  # type: ignore[arg-type]


def serve(tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Serve once with the test engine."""
    saved, venv = place.saved(unpulled(), tmp_path / "plan.json"), tmp_path / "venv"
    argv, env = place.cli(
        "serve", f"--plan={saved}", f"--venv={venv if venv.exists() else place.environment(venv)}",
        f"--log={tmp_path / 'engine.log'}", f"--to={tmp_path / 'store'}", "--once",
        *place.SMALL, *more, TEST_ENGINE="fine",
    )  # fmt: skip
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90, check=False)


def test_pulled_and_served(hub: Hub, tmp_path: Path) -> None:
    """The engine is given the folder that was pulled, and nothing but the URL is on stdout."""
    done = serve(tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "files proved" in done.stderr
    assert done.stdout.startswith("http://127.0.0.1:")
    assert 1 == len(done.stdout.splitlines())
    assert (tmp_path / "store" / REPO / commit(hub)).is_dir()


def test_events_of_both(hub: Hub, tmp_path: Path) -> None:
    """With --json the pull's events come first, then those of the engine."""
    done = serve(tmp_path, "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    started = next(event for event in events if event["event"] == "started")

    assert kinds.index("published") < kinds.index("planned") < kinds.index("started")
    assert str(tmp_path / "store" / REPO / commit(hub)) in started["argv"]
    assert ["HF_HUB_OFFLINE", "1"] in started["env"]


def test_a_pull_that_fails_starts_nothing(hub: Hub, tmp_path: Path) -> None:
    """A hub that refuses is exit 4, and no engine was started."""
    hub.faults = [Fault("GET .*tree", "status", 99, status=403)]
    done = serve(tmp_path)

    assert 4 == done.returncode
    assert not (tmp_path / "engine.log").exists()


def test_offline(tmp_path: Path, hub: Hub) -> None:
    """--offline serves what is here, and refuses what is not."""
    assert 4 == serve(tmp_path, "--offline").returncode
    assert not hub.log


def test_the_machine_is_looked_at_first(hub: Hub, tmp_path: Path) -> None:
    """A port that is taken, or an engine that is not here, is told before anything is pulled."""
    saved = place.saved(unpulled(), tmp_path / "plan.json")
    words = ("serve", f"--plan={saved}", f"--to={tmp_path / 'store'}", "--once", *place.SMALL)
    argv, env = place.cli(*words)
    bare = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90, check=False)

    assert 3 == bare.returncode
    assert "vLLM is not here" in bare.stderr
    assert [("HEAD", "/")] == [(asked.method, asked.path) for asked in hub.log]
    assert not (tmp_path / "store").exists()


def test_dry_run_of_what_is_here(hub: Hub, tmp_path: Path) -> None:
    """Weights that are here are taken in a dry run, too; offline, what is not here is the end."""
    commit(hub)
    assert 4 == serve(tmp_path, "--dry-run", "--offline").returncode
    serve(tmp_path)
    hub.log.clear()
    done = serve(tmp_path, "--dry-run", "--offline")
    folder = tmp_path / "store" / REPO / commit(hub)

    assert done.stdout.startswith(f"take the weights in {folder}")
    assert f" serve {folder} " in done.stdout
    assert not hub.log


@pytest.mark.usefixtures("hub")
def test_dry_run_says_the_step(tmp_path: Path) -> None:
    """The pull is the first of the steps, with the folder; nothing is asked or made."""
    done = serve(tmp_path, "--dry-run")

    assert done.stdout.startswith(f"pull {REPO} at its newest commit into {tmp_path / 'store'}")
    assert not (tmp_path / "store").exists()


def test_no_pull(hub: Hub, tmp_path: Path) -> None:
    """With --no-pull the engine gets the repository's name, as before."""
    done = serve(tmp_path, "--no-pull", "--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    started = next(event for event in events if event["event"] == "started")

    assert REPO in started["argv"]
    # Why one: the doctor asks whether the hub can be reached, as the engine will need it.
    assert [("HEAD", "/")] == [(asked.method, asked.path) for asked in hub.log]


def brought(found: Plan, tmp_path: Path) -> Plan:
    """Return *found* on pulled weights."""
    return bring(found, CATALOG, tmp_path / "store", Ways(backoff=0.01), lambda _: None)


def test_what_stands_in_the_plan(hub: Hub, tmp_path: Path) -> None:
    """The commit and the code are pinned, the warning that they are not is gone."""
    found = brought(unpulled(), tmp_path)

    assert commit(hub) == found.pins.revision
    assert CODE == [pin.path for pin in found.pins.code]
    assert "unpinned" not in [notice.code for notice in found.warnings]
    assert found == brought(found, tmp_path)


def test_pins_of_a_plan_hold(hub: Hub, tmp_path: Path) -> None:
    """Weights whose code is not what the plan pinned are not served, nor published."""
    wanted = unpulled()
    pins = msgspec.structs.replace(wanted.pins, code=(CodePin(CODE[1], "0" * 64),))
    with pytest.raises(WeightsError, match="other code than was accepted"):
        brought(msgspec.structs.replace(wanted, pins=pins), tmp_path)

    assert not (tmp_path / "store" / REPO / commit(hub)).exists()
    assert 0 == hub.sent(r"\?until")


def test_changed_code_is_not_served(hub: Hub, tmp_path: Path) -> None:
    """serve refuses code that has changed since it was accepted, and takes it when told to."""
    assert 0 == serve(tmp_path).returncode
    other = kimi(tmp_path / "other", count=2)
    (other / CODE[1]).write_text("import os\n")
    hub.add(REPO, other)
    refused = serve(tmp_path)

    assert 4 == refused.returncode
    assert f"{CODE[1]} has changed" in " ".join(refused.stderr.split())
    assert 0 == serve(tmp_path, "--accept-code").returncode


def test_the_draft_comes_too(hub: Hub, tmp_path: Path) -> None:
    """A plan with a draft model serves from two folders, and the engine asks the hub nothing."""
    drafted = hub.add(DRAFT, kimi(tmp_path / "draft", count=1, seed=4))
    wanted = unpulled()
    candidate = msgspec.structs.replace(wanted.candidate, draft=DRAFT)
    found = brought(msgspec.structs.replace(wanted, candidate=candidate), tmp_path)
    words = " ".join(found.launches[0].argv)

    assert drafted == found.pins.draft
    assert found.local is not None
    assert f'"model":"{found.local.draft}"' in words
    assert f"{tmp_path / 'store' / DRAFT}" in words
    assert ("HF_HUB_OFFLINE", "1") in found.launches[0].env


def test_a_draft_that_is_refused(hub: Hub, tmp_path: Path) -> None:
    """A draft model that can't be had is found out before a byte of the checkpoint comes."""
    wanted = unpulled()
    candidate = msgspec.structs.replace(wanted.candidate, draft=DRAFT)
    with pytest.raises(WeightsError, match=f"the hub knows no {DRAFT}"):
        brought(msgspec.structs.replace(wanted, candidate=candidate), tmp_path)

    assert 0 == hub.sent(r"\?until")
    assert not (tmp_path / "store").exists()


def test_room_for_both(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoint and draft are summed: a disk that holds either alone is refused before a byte."""
    hub.add(DRAFT, kimi(tmp_path / "draft", count=1, size=200_000, seed=4))
    wanted = unpulled()
    candidate = msgspec.structs.replace(wanted.candidate, draft=DRAFT)
    monkeypatch.setattr(space, "look", lambda _: space.Room((256 << 20) + 400_000, None, None))
    with pytest.raises(WeightsError, match="short"):
        brought(msgspec.structs.replace(wanted, candidate=candidate), tmp_path)

    assert 0 == hub.sent(r"\?until")


def test_the_draft_is_pinned(hub: Hub, tmp_path: Path) -> None:
    """`plan --pin` pins the draft's commit as well, and both engines are told of it."""
    drafted = hub.add(DRAFT, kimi(tmp_path / "draft", count=1, seed=4))
    result = run("plan", "--hardware", "8xH200", "--draft", "--pin", "--json")
    document = json.loads(result.stdout)

    assert drafted == document["pins"]["draft"]
    assert f'"revision":"{drafted}"' in " ".join(document["launches"][0]["argv"])


def test_a_network_file_system(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On NFS vLLM is told to read ahead, and waits as long as the measured rate demands."""
    monkeypatch.setattr(load, "filesystem", lambda _: "nfs4")
    monkeypatch.setattr(load, "read_rate", lambda *_, **__: 100.0)
    found = brought(unpulled(), tmp_path)
    words = found.launches[0].argv
    env = dict(found.launches[0].env)

    assert ("--safetensors-load-strategy", "prefetch") == tuple(
        words[words.index("--safetensors-load-strategy") :][:2]
    )
    assert int(env["VLLM_ENGINE_READY_TIMEOUT_S"]) > 3600
    assert commit(hub) == found.pins.revision


def test_a_local_disk_is_left_alone(tmp_path: Path) -> None:
    """Where nothing is known against it, the command is the plan's own."""
    found = unpulled()
    local = complete(msgspec.structs.replace(found, local=Local(str(tmp_path))), CATALOG)

    assert "--safetensors-load-strategy" not in local.launches[0].argv


def test_a_folder_that_was_named(tmp_path: Path) -> None:
    """A plan on a folder of the operator's pulls nothing."""
    found = place.planned(tmp_path)

    assert found is brought(found, tmp_path)


def test_plan_pin(hub: Hub, tmp_path: Path) -> None:
    """`plan --pin` writes commit and code into the plan, and no shard is fetched."""
    result = run("plan", "--hardware", "8xH200", "--pin", "--json")
    document = json.loads(result.stdout)

    assert 0 == result.exit_code, result.stderr
    assert commit(hub) == document["pins"]["revision"]
    assert CODE == [pin["path"] for pin in document["pins"]["code"]]
    assert commit(hub) in document["launches"][0]["argv"]
    assert 0 == hub.sent(r"\?until")
    shown = run("plan", "--hardware", "8xH200", "--pin").stdout
    assert "2 files of the repository, pinned by sha256" in shown
    refused = run("plan", "--hardware", "8xH200", "--pin", "--model-path", str(tmp_path))
    assert 2 == refused.exit_code
    assert os.environ["HF_ENDPOINT"] not in shown
