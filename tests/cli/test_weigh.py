"""`kimideploy weigh` and `plan --exact`: sums of real names and shapes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.cli.run import run, spawn
from tests.unit.weights.made import KIMI, checkpoint, config_of, served

SMALL = replace(KIMI, layers=3, experts=8)


@pytest.fixture
def folder() -> str:
    """Return the name of a folder with a small checkpoint."""
    checkpoint(Path("Kimi-K2-Thinking"), SMALL)
    return "Kimi-K2-Thinking"


def test_a_folder_is_weighed(folder: str) -> None:
    """Each cause, summed and counted, in 80 columns; a pruned model's own numbers are told."""
    result = run("weigh", folder, "--tp", "8")

    assert (0, "") == (result.exit_code, result.stderr)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "TP8, layers 0 to 2:" in result.stdout
    assert "routed experts" in result.stdout
    assert "n_routed_experts is 8, the profiles' 384" in result.stdout


def test_stages_and_json(folder: str) -> None:
    """Two stages of a layer and two layers, in the JSON, too."""
    found = json.loads(run("weigh", folder, "--pp", "2", "--json").stdout)

    assert "kimideploy.weighing/1" == found["schema"]
    assert 3 == sum(stage["layers"] for stage in found["exact"]["stages"])
    assert found["exact"]["bytes"] == checkpoint(Path("again"), SMALL)


def test_a_repository_is_weighed_over_the_wire(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ORG/NAME is the hub's; the revision that was found stands in the answer."""
    checkpoint(tmp_path / "hub" / "org" / "Kimi", SMALL)
    with served(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        result = run("weigh", "org/Kimi")
        missing = run("weigh", "org/Other")

    assert 0 == result.exit_code
    assert result.stdout.startswith("org/Kimi at 0123456789ab: ")
    assert (4, "") == (missing.exit_code, missing.stdout)
    assert "the hub knows no org/Other" in missing.stderr


def test_a_hub_that_is_down() -> None:
    """No connection is exit 4 and a sentence, without a traceback."""
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "PATH": "/usr/bin", "HOME": "/nonexistent"}
    result = spawn("weigh", "org/Kimi", env=env)

    assert (4, "") == (result.returncode, result.stdout)
    assert "the hub can't be reached" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("weigh", "./nowhere"), 2, "nowhere is not there"),
        (("weigh", "Kimi-K2-Thinking", "--tp", "3"), 2, "--tp 3 does not divide 64 heads"),
        (("weigh", "Kimi-K2-Thinking", "--pp", "4"), 2, "--pp 4 is more stages than 3 layers"),
        (("weigh", "Kimi-K2-Thinking", "--revision", "x"), 2, "is a folder"),
        (("weigh", "Kimi-K2-Thinking", "--files", "*.gguf"), 4, "that match '*.gguf'"),
        (("weigh", "Kimi-K2-Thinking", "--tp", "0"), 2, "--tp"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_can_not_be_weighed(words: tuple[str, ...], code: int, said: str) -> None:
    """Layouts and places that can't be are refused with the flag or the name."""
    result = run(*words)

    assert (code, "") == (result.exit_code, result.stdout)
    assert said in " ".join(result.stderr.split())


def test_another_model_is_refused_by_name(folder: str) -> None:
    """A config of another architecture is exit 2, with the name it gives itself."""
    config = config_of(SMALL, architectures=["LlamaForCausalLM"])
    (Path(folder) / "config.json").write_text(json.dumps(config), "utf-8")
    result = run("weigh", folder)

    assert (2, "") == (result.exit_code, result.stdout)
    assert "config.json: LlamaForCausalLM is not an architecture" in result.stderr


def test_a_plan_with_exact_weights(tmp_path: Path) -> None:
    """--exact sums the checkpoint a plan names, says it in words, and keeps it in the JSON."""
    size = checkpoint(tmp_path / "Kimi-K2-Thinking")
    words = ("plan", "--hardware", "8xH200", "--model", "kimi-k2-thinking", "--exact")
    place = ("--model-path", str(tmp_path / "Kimi-K2-Thinking"))
    text = run(*words, *place).stdout
    summed = json.loads(run(*words, *place, "--json").stdout)["summed"]

    assert size == summed["size"]
    assert summed["counted"] == pytest.approx(summed["fullest"], rel=0.005)
    assert "of weights on the fullest GPU by" in text
