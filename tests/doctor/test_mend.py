"""What --fix does: on files of a folder, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from kimideploy.apply import mend
from kimideploy.apply.home import Home, home
from kimideploy.apply.journal import Journal
from kimideploy.apply.mend import MENDS, NumaBalancing
from kimideploy.doctor.types import Remedy
from kimideploy.errors import MachineError, RequestError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine whose kernel balances NUMA nodes."""
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/numa_balancing").write_text("1\n")
    return tmp_path


@pytest.fixture
def place(root: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Its home, where the remedies act on that machine."""

    class Here(NumaBalancing):
        def __init__(self) -> None:
            super().__init__(root)

    monkeypatch.setitem(mend.MENDS, "numa-balancing", Here)
    return replace(home("system"), state=root / "state", settings=root / "etc/kimideploy")


def _value(root: Path) -> str:
    return (root / "proc/sys/kernel/numa_balancing").read_text().strip()


def test_every_remedy_has_a_way() -> None:
    """What a check may name can be done."""
    assert set(get_args(Remedy)) == set(MENDS)


def test_looking_changes_nothing(root: Path, place: Home) -> None:
    """What would be done is shown, and nothing is written."""
    (proposed,) = mend.proposed(place, ["numa-balancing"])

    assert ["set kernel.numa_balancing to 0, which is 1"] == [
        change.what for change in proposed.changes[:1]
    ]
    assert "1" == _value(root)
    assert not (root / "etc").exists()


def test_it_is_done_and_undone(root: Path, place: Home) -> None:
    """The value and the file come and go, each with a line in the journal."""
    mend.mend(place, ["numa-balancing"], "me@here")

    file = root / "etc/sysctl.d/90-kimideploy.conf"
    assert ("0", True) == (_value(root), "kernel.numa_balancing = 0" in file.read_text())
    assert ["numa-balancing"] == [one.remedy for one in mend.mended(place)]

    assert ("numa-balancing",) == mend.undo(place, "me@here")

    assert ("1", False) == (_value(root), file.exists())
    assert () == mend.mended(place)
    entries = list(Journal(place).entries())
    assert [("mend", "me@here"), ("mend", "me@here")] == [(e.action, e.who) for e in entries]


def test_twice_changes_nothing(root: Path, place: Home) -> None:
    """The second time there is nothing to do, and undo leads to how it was before the first."""
    mend.mend(place, ["numa-balancing"], "me@here")

    assert () == mend.mend(place, ["numa-balancing"], "me@here")
    (root / "proc/sys/kernel/numa_balancing").write_text("1\n")
    mend.mend(place, ["numa-balancing"], "me@here")
    mend.undo(place, "me@here")

    assert "1" == _value(root)


def test_a_file_that_was_there_comes_back(root: Path, place: Home) -> None:
    """A drop-in of the same name is not lost."""
    file = root / "etc/sysctl.d/90-kimideploy.conf"
    file.parent.mkdir(parents=True)
    file.write_text("vm.swappiness = 1\n")

    mend.mend(place, ["numa-balancing"], "me@here")
    mend.undo(place, "me@here")

    assert "vm.swappiness = 1\n" == file.read_text()


def test_what_can_not_be_done_leaves_nothing(
    root: Path, place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that the kernel does not take is an error, and --undo has nothing to trip over."""

    def fail(_: object, value: str) -> None:
        raise MachineError(f"not allowed: {value}")

    monkeypatch.setattr(NumaBalancing, "_set", fail)
    with pytest.raises(MachineError, match="not allowed: 0"):
        mend.mend(place, ["numa-balancing"], "me@here")

    assert () == mend.mended(place)
    assert not (root / "etc/sysctl.d/90-kimideploy.conf").exists()


def test_a_crash_in_the_middle_can_be_undone(
    root: Path, place: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How it was is written down before anything is changed."""

    def crash(_: object, value: str) -> None:
        raise KeyboardInterrupt(value)

    with monkeypatch.context() as patched:
        patched.setattr(NumaBalancing, "_set", crash)
        with pytest.raises(KeyboardInterrupt):
            mend.mend(place, ["numa-balancing"], "me@here")

    mend.undo(place, "me@here")

    assert "1" == _value(root)
    assert not (root / "etc/sysctl.d/90-kimideploy.conf").exists()


def test_nothing_to_undo_is_said(place: Home) -> None:
    """Undo without a fix is a wrong request."""
    with pytest.raises(RequestError, match="changed nothing"):
        mend.undo(place, "me@here")


def test_only_root_may(place: Home) -> None:
    """A user's own kimideploy does not touch the machine."""
    with pytest.raises(MachineError, match="only root"):
        mend.proposed(replace(place, scope="user"), ["numa-balancing"])


def test_a_kernel_without_the_feature_is_told(root: Path, place: Home) -> None:
    """What is not there can't be changed, and nothing half done is left."""
    (root / "proc/sys/kernel/numa_balancing").unlink()

    with pytest.raises(MachineError, match=r"has no kernel\.numa_balancing"):
        mend.mend(place, ["numa-balancing"], "me@here")

    assert () == mend.mended(place)
