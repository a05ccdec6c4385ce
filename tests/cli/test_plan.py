"""`kimideploy plan`: from flags, facts and kimideploy.yaml to a decision that is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from kimideploy.cli.config import Config
from kimideploy.cli.options import PlanOptions, tokens
from kimideploy.cli.plan import decide_from_options
from kimideploy.facts.types import CpuFacts, DriverFacts, GpuFacts, HostFacts, MemoryFacts
from kimideploy.planning.types import Launch, NoFit, Plan, Request, encode
from kimideploy.quantities import GIB, MIB
from tests.cli.run import run, spawn


def planned(**options: object) -> Plan:
    """Return the plan that *options* give."""
    decision, _ = decide_from_options(PlanOptions(**options))  # type: ignore[arg-type]
    assert isinstance(decision, Plan)
    return decision


def h200s(name: str) -> HostFacts:
    """Return the facts of a machine with eight H200."""
    return HostFacts(
        hostname=name,
        system="Linux",
        cpu=CpuFacts(cores=64, architecture="x86_64"),
        memory=MemoryFacts(total=1024 * GIB),
        driver=DriverFacts(version="580.159.04", cuda="13.0", source="nvml"),
        gpus=tuple(
            GpuFacts(index=n, name="NVIDIA H200", memory_total=143_771 * MIB) for n in range(8)
        ),
    )


def test_plan_is_shown() -> None:
    """A plan says what fits, its memory by cause, the command, why, and every no."""
    result = run("plan", "--hardware", "8xH200")

    assert (0, "") == (result.exit_code, result.stderr)
    for part in (
        "kimi-k2.7-code fits: int4 · vllm · 8×h200 TP8 · KV bf16",
        "Memory of the fullest GPU, 139.80 GiB",
        "  routed experts               66.45 GiB  47.5%",
        "vllm serve moonshotai/Kimi-K2.7-Code",
        "\nWhy\n",
        "\nWarnings\n",
        "\nRejected",
    ):
        assert part in result.stdout
    assert [] == [line for line in result.stdout.splitlines() if len(line) > 80]


RECORDER = f"""#!{sys.executable}
import json, os, sys
print(json.dumps([dict(os.environ), sys.argv[1:]]))
"""


def obeyed(text: str, program: str) -> tuple[dict[str, str], list[str]]:
    """Return environment and arguments that a shell gives *program* for the command in *text*."""
    block = text.partition("\nCommand\n")[2].partition("\n\n")[0]
    Path(program).write_text(RECORDER, encoding="utf-8")
    Path(program).chmod(0o755)
    said = subprocess.run(
        ["/bin/sh", "-c", block],
        env={"PATH": f"{Path.cwd()}:{os.environ['PATH']}"},
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    env, words = json.loads(said)
    return env, words


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("--hardware", "8xH200"), {"hardware": "8xH200"}),
        (
            ("--hardware", "1xRTX4090+384GiB", "--cores", "32"),
            {"hardware": "1xRTX4090+384GiB", "cores": 32},
        ),
        (
            ("--hardware", "8xH200", "--model-path", "/srv/it's a $HOME \\ model"),
            {"hardware": "8xH200", "model_path": "/srv/it's a $HOME \\ model"},
        ),
    ],
)
def test_shown_command_is_the_launch(words: tuple[str, ...], options: dict[str, object]) -> None:
    """What is copied from the screen is, word by word, what serve runs."""
    (launch,) = planned(**options).launches

    env, arguments = obeyed(run("plan", *words).stdout, launch.argv[0])

    assert list(launch.argv[1:]) == arguments
    assert dict(launch.env).items() <= env.items()


def test_json_is_the_plan() -> None:
    """--json is the versioned plan and nothing else, the same bytes every time."""
    first = run("plan", "--hardware", "8xH200", "--json")
    second = run("plan", "--hardware", "8xH200", "--json")

    assert first.stdout == second.stdout == encode(planned(hardware="8xH200")).decode()
    assert "kimideploy.plan/1" == json.loads(first.stdout)["schema"]


def test_json_in_a_pipe_is_utf_8() -> None:
    """Whatever the locale says, what another program reads is whole."""
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}

    found = spawn("plan", "--hardware", "8xH200", "--json", env=env)

    assert (0, "") == (found.returncode, found.stderr)
    assert encode(planned(hardware="8xH200")).decode() == found.stdout


def test_nothing_fits_is_an_answer() -> None:
    """NoFit goes to stdout like a plan, with its numbers and ways out; the exit code says no."""
    result = run("plan", "--hardware", "8xA100-80GB", "--tier", "int4-a100")

    assert (1, "") == (result.exit_code, result.stderr)
    for part in ("Nothing fits: ", "Came nearest", "Ways out", " there)", "TP8×PP2"):
        assert part in result.stdout


def test_nothing_fits_as_json() -> None:
    """A no is versioned JSON on stdout, too, and still exit code 1."""
    result = run("plan", "--hardware", "8xA100-80GB", "--tier", "int4-a100", "--json")

    decision = msgspec.json.decode(result.stdout, type=NoFit)
    assert (1, "") == (result.exit_code, result.stderr)
    assert decision.ways_out


def test_output_file_is_the_plan() -> None:
    """-o writes what --json prints, over what was there, and leaves nothing beside it."""
    Path("plan.json").write_text("old", encoding="utf-8")

    result = run("plan", "--hardware", "8xH200", "-o", "plan.json")

    assert 0 == result.exit_code
    assert encode(planned(hardware="8xH200")) == Path("plan.json").read_bytes()
    assert ["plan.json"] == [path.name for path in Path().iterdir()]


def test_output_that_cannot_be_written() -> None:
    """A folder that can't be written to is told as the machine's refusal."""
    Path("file").write_text("", encoding="utf-8")

    result = run("plan", "--hardware", "8xH200", "-o", "file/plan.json")

    assert 3 == result.exit_code
    assert "file can't be written" in result.stderr


def test_every_flag_reaches_the_request() -> None:
    """Each option of the request arrives under its own name."""
    plan = planned(
        hardware="8xH200",
        model="kimi-k2.6",
        tier="int4-h200",
        engine="vllm",
        checkpoint="int4",
        context=65536,
        min_context=40000,
        concurrency=2,
        kv_dtype="fp8",
        text_only=True,
        draft=False,
        goal="throughput",
        allow_tight=True,
        served_name="kimi",
        bind="127.0.0.1",
        port=8123,
        revision="0" * 40,
        model_path="/srv/kimi",
        head_address="10.0.0.1",
        engine_arg=["--seed", "1"],
    )

    expected = Request(
        model="kimi-k2.6",
        tier="int4-h200",
        engine="vllm",
        checkpoint="int4",
        context=65536,
        min_context=40000,
        concurrency=2,
        kv_dtype="fp8",
        text_only=True,
        draft=False,
        goal="throughput",
        allow_tight=True,
        served_name="kimi",
        bind="127.0.0.1",
        port=8123,
        revision="0" * 40,
        model_path="/srv/kimi",
        head_address="10.0.0.1",
        engine_args=("--seed", "1"),
    )
    assert expected == plan.request


def test_every_key_of_the_request_is_an_option() -> None:
    """Whatever a request can say, a flag and a key of kimideploy.yaml can say."""
    flags = {"engine_args" if name == "engine_arg" else name for name in PlanOptions.__slots__}

    assert set() == set(Request.__struct_fields__) - flags
    assert flags - {"config"} == set(Config.__struct_fields__) - {"hosts"}


@pytest.mark.parametrize(
    ("text", "expected"), [("32768", 32768), ("128k", 131072), ("128K", 131072), ("1m", 1 << 20)]
)
def test_tokens(text: str, expected: int) -> None:
    """A context may be written as people say it."""
    assert expected == tokens(text)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--context", "many"), "'many' is not a number of tokens"),
        (("--context", "1k2"), "'1k2' is not a number of tokens"),
        (("--context", "-5"), "is not a number of tokens"),
        (("--ram", "512GX"), "unknown unit 'GX'"),
        (("--cores", "0"), "--cores 0 is nothing that a real machine has"),
        (("--ram", "0GiB"), "--ram 0 is nothing that a real machine has"),
        (("--disk", "9999999TB"), "is nothing that a real machine has"),
        (("--concurrency", "0"), "--concurrency 0 is outside"),
        (("--port", "70000"), "--port 70000 is outside"),
        (("--engine", "vlm"), "--engine"),
        (("--tier", "int4-h2000"), "did you mean `int4-h200`"),
        (("--facts", "facts.json"), "--hardware and --facts both name the machine"),
        (("--bind", "0.0.0.0"), "--bind 0.0.0.0 would open the engine to the network"),
        (("--config", "none.yaml"), "--config none.yaml can't be read"),
        (("--profiles", "none"), "none is not a folder of profiles"),
        (("--engine-arg", "--port=9"), "--port"),
    ],
)
def test_wrong_request(words: tuple[str, ...], message: str) -> None:
    """A wrong option is a sentence on stderr and exit code 2; stdout stays empty."""
    result = run("plan", "--hardware", "8xH200", *words)

    assert (2, "") == (result.exit_code, result.stdout)
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


@pytest.mark.parametrize("flag", [("--ram", "1TiB"), ("--cores", "8"), ("--numa", "2")])
def test_sizes_need_hardware(flag: tuple[str, str]) -> None:
    """Facts carry their own sizes: a flag beside them would be silently ignored."""
    Path("facts.json").write_bytes(msgspec.json.encode(h200s("a")))

    result = run("plan", "--facts", "facts.json", *flag)

    assert 2 == result.exit_code
    assert f"error: {flag[0]} describes the machine of --hardware" in result.stderr


def test_facts_of_two_machines() -> None:
    """Saved facts give the nodes; once for each node."""
    for name in ("a", "b"):
        Path(f"{name}.json").write_bytes(msgspec.json.encode(h200s(name)))

    plan = planned(facts=[Path("a.json"), Path("b.json")])

    assert ["a", "b"] == [node.name for node in plan.inventory.nodes]
    assert [8, 8] == [node.gpus for node in plan.inventory.nodes]


def test_facts_from_stdin() -> None:
    """`inspect --json | plan --facts -` plans for that machine."""
    result = run("plan", "--facts", "-", "--json", stdin=msgspec.json.encode(h200s("a")).decode())

    assert "a" == json.loads(result.stdout)["inventory"]["nodes"][0]["name"]


def test_this_machine_is_looked_at() -> None:
    """Without --hardware and --facts the plan is for the machine it runs on."""
    result = run("plan", "--json")

    nodes = json.loads(result.stdout)["inventory"]["nodes"]
    assert result.exit_code in {0, 1}
    assert 1 == len(nodes)
    assert nodes[0]["ram"] > 0


def test_config_file_is_found_and_flags_win() -> None:
    """kimideploy.yaml of this folder is read, is named on stderr, and a flag overrides its key."""
    Path("kimideploy.yaml").write_text(
        "hardware: 8xH200\ngoal: throughput\ncontext: 65536\ntext_only: true\n", encoding="utf-8"
    )

    result = run("plan", "--context", "32k", "--vision", "--json")

    request = json.loads(result.stdout)["request"]
    assert "note: options from kimideploy.yaml\n" == result.stderr
    assert ["throughput", 32768, False] == [request[k] for k in ("goal", "context", "text_only")]


def test_machine_of_the_flags_replaces_that_of_the_file() -> None:
    """A machine named by flags takes nothing of the file's machine."""
    Path("kimideploy.yaml").write_text(
        "hardware: 1xRTX4090\nram: 384GiB\ncores: 32\n", encoding="utf-8"
    )

    plan = planned(hardware="8xH200")

    (node,) = plan.inventory.nodes
    assert ("h200", None, None) == (node.gpu, node.ram, node.cores)


def test_paths_of_a_config_file_are_relative_to_it() -> None:
    """Facts that a config file names lie beside it, wherever the command runs."""
    Path("site").mkdir()
    Path("site/a.json").write_bytes(msgspec.json.encode(h200s("a")))
    Path("site/ours.yaml").write_text("facts: [a.json]\n", encoding="utf-8")

    plan = planned(config=Path("site/ours.yaml"))

    assert "a" == plan.inventory.nodes[0].name


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("hardware: 8xH200\ngaol: cost\n", "2:1: `gaol` is not a known key; did you mean `goal`?"),
        ("hardware: 8xH200\nport: many\n", "2:7: "),
        ("hardware: [\n", ""),
        ("", "1:1: the file is empty"),
        ("hardware: 8xH200\nbind: 0.0.0.0\n", ""),
    ],
)
def test_wrong_config_file_says_where(text: str, place: str) -> None:
    """What is wrong in a config file is told with its place."""
    Path("kimideploy.yaml").write_text(text, encoding="utf-8")

    result = run("plan", "--json")

    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert (2, "request") == (result.exit_code, error["kind"])
    assert f"kimideploy.yaml:{place}" in error["message"] or "bind" in text


def test_all_lists_every_rejection() -> None:
    """--all shows each rejected candidate on a line of its own."""
    plan = planned(hardware="8xH200")

    text = run("plan", "--hardware", "8xH200", "--all").stdout

    listed = text.partition("\nRejected")[2]
    assert len(plan.rejected) == listed.count("\n  - ")


def test_several_nodes_have_a_command_each() -> None:
    """Two nodes give two commands that differ in their rank."""
    text = run("plan", "--hardware", "2x8xH100-80GB", "--head-address", "10.0.0.1").stdout

    assert "Command on node 0\n" in text
    assert "Command on node 1\n" in text
    assert "--node-rank 1" in text


def test_launches_are_words() -> None:
    """What decide_from_options returns is complete: each node's launch is there."""
    plan = planned(hardware="2x8xH100-80GB", head_address="10.0.0.1")

    assert [0, 1] == [launch.node for launch in plan.launches if isinstance(launch, Launch)]


def test_curve_is_a_table_of_users_and_contexts() -> None:
    """--curve shows speed for each load in 80 columns; the JSON has the same points."""
    result = run("plan", "--hardware", "8xH200", "--curve")
    points = json.loads(run("plan", "--hardware", "8xH200", "--json").stdout)["speed"]["points"]

    assert (0, "") == (result.exit_code, result.stderr)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "2k deep" in result.stdout
    first = next(p for p in points if (p["concurrency"], p["context"]) == (1, 2048))
    row = next(line for line in result.stdout.splitlines() if line.split()[:1] == ["1"])
    assert f"{first['per_user']['typical']:.3g}" == row.split()[1]


def test_compare_two_machines() -> None:
    """A row for each number, the better one marked, and the money where it is known."""
    result = run("plan", "compare", "8xH200", "4xB300")

    assert (0, "") == (result.exit_code, result.stderr)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "4xB300 is better at: KV cache" in result.stdout
    assert "an hour, USD" in result.stdout


def test_compare_a_file_with_a_machine() -> None:
    """A saved plan beside hardware; the same machine on both sides is told apart by nothing."""
    Path("plan.json").write_text(run("plan", "--hardware", "8xH200", "--json").stdout, "utf-8")

    found = json.loads(run("plan", "compare", "plan.json", "8xH200", "--json").stdout)

    assert "kimideploy.comparison/1" == found["schema"]
    assert {"same"} == {measure["better"] for measure in found["measures"]}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("compare", "8xH200"), 2, "B"),
        (("compare", "8xH200", "9xNONE"), 2, "'NONE' is not known"),
        (("compare", "8xH200", "no.json"), 2, "no.json can't be read"),
        (("compare", "8xH200", "8xB200", "--hardware", "8xH100"), 2, "so do A and B"),
        (("--goal", "cost", "compare", "8xH200", "8xB200"), 2, "stand after `compare`"),
        (("compare", "1xRTX4090", "1xA6000"), 1, ""),
    ],
)
def test_what_can_not_be_compared(words: tuple[str, ...], code: int, said: str) -> None:
    """Wrong sides are exit 2 with the word; two machines that hold nothing are a no."""
    result = run("plan", *words)

    assert code == result.exit_code
    assert said in result.stderr
