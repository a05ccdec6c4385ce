"""Weights that one host pulls and the others take from it; and what is brought beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from kimideploy.apply.answers import Shared
from kimideploy.engines import complete
from kimideploy.planning.types import Layout, encode
from kimideploy.remote.address import parse
from kimideploy.remote.bootstrap import Supply, reach
from kimideploy.remote.host import ask
from kimideploy.weights.bundle import bundle
from kimideploy.weights.pull import pull
from kimideploy.weights.resolve import Ways
from kimideploy.weights.selection import Wanted
from tests.hosts.rig import ENGINE, Rig
from tests.hub.repos import kimi
from tests.hub.server import Fault, Hub, running
from tests.unit.engines.plans import CATALOG, plan

REPO = "moonshotai/Kimi-K2.7-Code"
STORE = f"/var/lib/kimideploy/models/{REPO}"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that the hosts reach, with the model's repository, small."""
    with running(address="10.177.77.1") as found:
        found.add(REPO, kimi(tmp_path / "origin", count=3, size=2_000_000))
        yield found


@pytest.fixture
def unpulled(tmp_path: Path) -> Path:
    """The file of a plan whose weights nobody has named a folder for."""
    return _plan(tmp_path / "plan.json")


def _plan(path: Path, commit: str | None = None) -> Path:
    """Return *path*, the file of a plan of the weights at *commit*, None for the newest."""
    made = plan(port=8123)
    pins = msgspec.structs.replace(made.pins, revision=commit)
    path.write_bytes(encode(complete(msgspec.structs.replace(made, pins=pins), CATALOG)))
    return path


def _serve(rig: Rig, hosts: list[str], plan: Path, hub: Hub, *words: str) -> tuple[int, str]:
    ended = rig.run(
        "serve", "--plan", str(plan), "--venv", ENGINE, "--hub", hub.url, *words, host=hosts
    )
    return ended.returncode, ended.stderr


def test_the_hub_sends_once(rig: Rig, both: list[str], hub: Hub, unpulled: Path) -> None:
    """Two hosts serve, and each file left the hub once; nothing is given away afterwards."""
    code, told = _serve(rig, both, unpulled, hub, "--pull-once")

    assert 0 == code, told
    assert 3 * 2_000_000 <= hub.sent(r"\.safetensors") < 4 * 2_000_000
    sums = [
        rig.sh(n, f"cd {STORE}/*/ && find . -type f ! -name seen.json | sort | xargs sha256sum")
        for n in (2, 3)
    ]
    assert sums[0] == sums[1]
    assert sums[0].count("safetensors") == 4
    for number in (2, 3):
        assert "active" == rig.show(number, "ActiveState")["ActiveState"]
        left = "ls /etc/kimideploy/*.token 2>/dev/null; pgrep -f '[h]ost share'"
        assert "" == rig.sh(number, left, check=False)
    assert "10.177.77.12" not in rig.sh(3, "cat /var/lib/kimideploy/releases/*/order.json")

    asked = len(hub.log)
    code, told = _serve(rig, both, unpulled, hub, "--pull-once")
    assert (0, 2) == (code, told.count("nothing was to be done; release 1 serves")), told
    assert 0 == sum(one.sent for one in hub.log[asked:] if "safetensors" in one.path)


def test_a_bundle_is_sent_once(
    rig: Rig, both: list[str], hub: Hub, unpulled: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Without a hub the first host is sent a bundle, and the other takes the weights from it."""
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    found = pull(Wanted(REPO), tmp_path / "here", Ways(), lambda _: None)
    volumes = tmp_path / "bundle"
    volumes.mkdir()
    bundle(found.folder, found.manifest, volumes, split=1 << 30, tell=lambda _: None)
    asked = len(hub.log)

    words = ("--pull-once", "--offline", "--bundle", str(volumes))
    code, told = _serve(rig, both, unpulled, hub, *words)

    assert 0 == code, told
    assert asked == len(hub.log)
    assert "" == rig.sh(3, "ls /var/lib/kimideploy/incoming 2>/dev/null", check=False)
    assert "" != rig.sh(2, "ls /var/lib/kimideploy/incoming")
    for number in (2, 3):
        assert "active" == rig.show(number, "ActiveState")["ActiveState"]
        assert found.folder.name == rig.sh(number, f"ls {STORE}").strip()


def test_a_node_is_not_trusted(rig: Rig, both: list[str], hub: Hub, unpulled: Path) -> None:
    """What a node gives that is not what the hub promised is refused by who takes it."""
    assert 0 == _serve(rig, both[:1], unpulled, hub, "--prepare")[0]
    rig.sh(
        2,
        f"f=$(ls {STORE}/*/model-00002*); touch -r $f /srv/then;"
        " printf X | dd of=$f bs=1 seek=999 conv=notrunc; touch -r /srv/then $f",
    )

    code, told = _serve(rig, both, unpulled, hub, "--pull-once")

    assert 4 == code
    assert "model-00002-of-000003.safetensors" in told
    assert "" == rig.sh(3, f"ls {STORE}", check=False)
    assert "" == rig.sh(2, "pgrep -f '[h]ost share'", check=False)


def test_without_the_token_nothing_is_given(rig: Rig, both: list[str], hub: Hub, unpulled: Path,
                                            ) -> None:  # fmt: skip
    """Whoever reaches the port gets nothing, and the server can write nothing."""
    assert 0 == _serve(rig, both[:1], unpulled, hub, "--prepare")[0]
    folder = rig.sh(2, f"echo {STORE}/*").strip()
    reached = reach(parse(both[0]), rig.access(), Supply(wheels=rig.wheels))
    given = ask(reached, "share", Shared, folders=[folder], address=rig.ip(2))
    url = f"{given.url}/{REPO}/resolve/{Path(folder).name}/config.json"
    curl = "curl -s -o /dev/null -w '%{http_code}' --path-as-is"
    try:
        said = [
            rig.sh(3, f"{curl} {url}"),
            rig.sh(3, f"{curl} -H 'Authorization: Bearer x' {url}"),
            rig.sh(3, f"{curl} -H 'Authorization: Bearer {given.token}' {url}"),
            rig.sh(3, f"{curl} -H 'Authorization: Bearer {given.token}' {url}/../../../../x"),
        ]
        unit = f"kimideploy-share-{given.id}"
        shown = rig.show(2, "User", "ProtectSystem", "NoNewPrivileges", unit=unit)
        seen = rig.sh(2, "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr -d '\\0'")
    finally:
        ask(reached, "unshare", bool, run=given.id)
        reached.shell.transport.close()

    assert ["401", "401", "200", "404"] == said
    assert {"User": "kimideploy", "ProtectSystem": "strict", "NoNewPrivileges": "yes"} == shown
    assert given.token not in seen


def test_an_address_of_its_own_alone(rig: Rig, both: list[str], hub: Hub, unpulled: Path) -> None:
    """An address that leads the others to themselves is refused before anything is pulled."""
    words = ("--pull-once", "--share-address")

    code, told = _serve(rig, both, unpulled, hub, *words, "127.0.1.1")
    other, _ = _serve(rig, both, unpulled, hub, *words, "192.0.2.7")

    assert (3, 3) == (code, other)
    assert "knows 127.0.1.1 as 127.0.1.1, itself alone" in told
    assert "--share-address names this host" in told
    assert 0 == hub.sent("model-0")


def test_two_nodes_wait_for_the_weights(rig: Rig, both: list[str], hub: Hub, tmp_path: Path,
                                        ) -> None:  # fmt: skip
    """Two nodes of one model are started when both have their weights, and from the same commit."""
    path = tmp_path / "two.json"
    made = plan("vllm", "h100-80", layout=Layout(tp=16), nodes=2, port=8123)
    path.write_bytes(encode(complete(made, CATALOG)))
    hub.faults = [Fault("GET .*model-00001", "slow", 1, rate=2_000_000.0)]

    # Why: the hosts' driver tells of H200.
    code, told = _serve(rig, both, path, hub, "--pull-once", "--skip-check", "gpu-type")

    assert 0 == code, told
    assert hub.sent("model-0") < 4 * 2_000_000
    began = told.index("release made") if "release made" in told else told.index("make release")
    assert told.index(f"{both[1]}  done; engine and weights are here") < began
    assert 1 == len({rig.sh(n, f"ls {STORE}") for n in (2, 3)})


def test_what_is_brought_beforehand(
    rig: Rig, both: list[str], hub: Hub, unpulled: Path, plan: Path
) -> None:
    """--prepare brings the weights, and what runs is not touched."""
    assert 0 == _serve(rig, both[:1], plan, hub)[0]
    look = "systemctl show kimideploy -p ActiveEnterTimestamp; ls -l /var/lib/kimideploy/releases"
    before = rig.sh(2, look)

    code, told = _serve(rig, both[:1], unpulled, hub, "--prepare")

    assert 0 == code, told
    assert "engine and weights are here, and what runs is as before" in told
    assert before == rig.sh(2, look)
    sent = hub.sent("model-0")
    assert sent >= 3 * 2_000_000
    assert 0 == _serve(rig, both[:1], unpulled, hub)[0]
    assert sent == hub.sent("model-0")


def test_weights_in_use_are_not_pruned(
    rig: Rig, both: list[str], hub: Hub, unpulled: Path, tmp_path: Path
) -> None:
    """What a release serves from stays, also when a newer commit was brought since."""
    assert 0 == _serve(rig, both[:1], unpulled, hub)[0]
    used = rig.sh(2, f"echo {STORE}/*").strip()
    for seed in (1, 2):
        commit = hub.add(REPO, kimi(tmp_path / f"newer{seed}", count=2, seed=seed))
        pinned = _plan(tmp_path / f"plan{seed}.json", commit)
        assert 0 == _serve(rig, both[:1], pinned, hub, "--prepare", "--accept-code")[0]

    said = rig.sh(2, "/opt/kimideploy/app/current/bin/kimideploy weights prune --old --yes 2>&1")
    left = rig.sh(2, f"ls -d {STORE}/*").split()

    assert f"note: {used} stays: release 1 serves from it" in said
    assert (2, True) == (len(left), used in left)
