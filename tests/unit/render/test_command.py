"""`kimideploy render`: reading a saved plan, writing files without hurting others."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from kimideploy.cli.render import render
from kimideploy.engines import complete
from kimideploy.errors import MachineError, RequestError
from kimideploy.planning.types import Inventory, Layout, NoFit, Plan, Request, encode
from kimideploy.render.write import write_files
from tests.unit.engines.plans import CATALOG, plan

TWO = plan(gpu="h100-80", layout=Layout(tp=8, pp=2), nodes=2, head_address="10.0.0.1")


def saved(made: Plan | NoFit, folder: Path) -> str:
    """Return the path of a file that holds *made* as `plan --json` writes it."""
    path = folder / "plan.json"
    path.write_bytes(encode(made))
    return str(path)


def test_one_file_goes_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -o the one file is printed, from a plan that was completed or not."""
    render("shell", plan=saved(plan(), tmp_path))
    bare = capsys.readouterr().out
    render("shell", plan=saved(complete(plan(), CATALOG), tmp_path))

    assert bare.splitlines()[0] == "#!/usr/bin/env bash"
    assert bare.splitlines()[-1] in capsys.readouterr().out


def test_stdin_is_a_plan_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--plan -` reads what another command pipes in."""
    monkeypatch.setattr("sys.stdin", io.StringIO(encode(plan()).decode()))
    render("env", plan="-")

    assert "VLLM_NO_USAGE_STATS=1\n" in capsys.readouterr().out


def test_several_files_want_a_folder(tmp_path: Path) -> None:
    """Two nodes can't be printed as one file; the hint repeats the command."""
    with pytest.raises(RequestError) as caught:
        render("systemd", plan=saved(TWO, tmp_path))

    assert caught.value.hint is not None
    assert "-o FOLDER" in caught.value.hint


def test_files_are_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-o writes every file, makes scripts runnable, and prints the paths."""
    out = tmp_path / "a" / "b"
    render("shell", plan=saved(TWO, tmp_path), output=out)

    assert [str(out / "launch-node0.sh"), str(out / "launch-node1.sh")] == (
        capsys.readouterr().out.splitlines()
    )
    assert ["launch-node0.sh", "launch-node1.sh"] == sorted(path.name for path in out.iterdir())
    assert all(os.access(path, os.X_OK) for path in out.iterdir())


def test_json_holds_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints names, texts and what was written, as one object."""
    render("env", plan=saved(TWO, tmp_path), output=tmp_path / "out", as_json=True)
    document = json.loads(capsys.readouterr().out)

    assert [Path(path).read_text(encoding="utf-8") for path in document["written"]] == list(
        document["files"].values()
    )


def test_another_text_is_never_replaced(tmp_path: Path) -> None:
    """A file that differs stops everything before a byte is written; --force replaces it."""
    (tmp_path / "b").write_text("mine")

    with pytest.raises(RequestError, match="already"):
        write_files(tmp_path, {"a": "x", "b": "y"})
    assert ["b"] == [path.name for path in tmp_path.iterdir()]

    write_files(tmp_path, {"a": "x", "b": "y"}, force=True)
    assert {"a": "x", "b": "y"} == {path.name: path.read_text() for path in tmp_path.iterdir()}


def test_twice_is_as_good_as_once(tmp_path: Path) -> None:
    """Writing the same texts again is no conflict."""
    first = write_files(tmp_path, {"a": "x"})

    assert first == write_files(tmp_path, {"a": "x"})


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link in the folder is replaced, not written through, and only with leave."""
    (tmp_path / "other").write_text("theirs")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(tmp_path / "other")

    with pytest.raises(RequestError):
        write_files(tmp_path / "out", {"a": "x"})
    write_files(tmp_path / "out", {"a": "x"}, force=True)
    assert "theirs" == (tmp_path / "other").read_text()


def test_a_folder_that_can_not_be_is_a_machine_error(tmp_path: Path) -> None:
    """A file in the folder's place is told as what the machine refused."""
    (tmp_path / "file").write_text("")

    with pytest.raises(MachineError, match="can't be written"):
        write_files(tmp_path / "file" / "x", {"a": "x"})


def test_a_no_is_no_plan(tmp_path: Path) -> None:
    """A saved "nothing fits" is refused with its reason."""
    no = NoFit(
        request=Request(),
        inventory=Inventory(nodes=()),
        reason="too small",
        nearest=None,
        ways_out=(),
    )

    with pytest.raises(RequestError, match="too small"):
        render("shell", plan=saved(no, tmp_path))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"decision": "plan"}', '{"decision": "other"}', "\x00", "a: 1\na: 2"]
)
def test_a_broken_plan_is_told_with_its_place(text: str, tmp_path: Path) -> None:
    """Anything but a plan is an error at file:line:column."""
    path = tmp_path / "plan.json"
    path.write_text(text)

    with pytest.raises(RequestError, match=r"plan\.json:\d+:\d+: "):
        render("shell", plan=str(path))


def test_a_plan_of_another_version_is_refused(tmp_path: Path) -> None:
    """A plan with another schema is not half understood."""
    path = Path(saved(plan(), tmp_path))
    path.write_bytes(path.read_bytes().replace(b"kimideploy.plan/1", b"kimideploy.plan/9"))

    with pytest.raises(RequestError, match="plan/9"):
        render("shell", plan=str(path))


def test_a_missing_plan_is_told(tmp_path: Path) -> None:
    """A file that is not there is a wrong request."""
    with pytest.raises(RequestError, match=r"none\.json"):
        render("shell", plan=str(tmp_path / "none.json"))
