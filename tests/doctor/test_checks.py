"""Every check on facts that trip it and on facts that do not."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from kimideploy.doctor.case import Case
from kimideploy.doctor.check import CHECKS
from kimideploy.doctor.examine import examine, known_names, refusal, table
from kimideploy.errors import KimiError, RequestError
from kimideploy.facts.types import HostFacts
from kimideploy.views.doctor import explained, listed, shown
from kimideploy.views.terminal import Terminal
from tests.doctor.cases import Entry, case_of, entries, machine, merged
from tests.unit.engines.plans import CATALOG

ENTRIES = entries()
OUTCOMES = {"trips": ("blocks", "warns", "notes"), "passes": ("pass",), "unknown": ("unknown",),
            "other": ("other",)}  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_case_comes_to_what_it_should(entry: Entry) -> None:
    """A check trips on the facts that are wrong, for the reason that is said, and on no others."""
    (found,) = examine(case_of(entry.said), only=[entry.check]).checks

    words = " / ".join([*(f.seen for f in found.findings), found.reason or ""])
    assert found.outcome in OUTCOMES[entry.kind], words
    if entry.kind == "trips":
        assert entry.said["says"] in words
        assert entry.said.get("at", CHECKS[entry.check].severity) == found.outcome
    if entry.kind == "unknown":
        assert entry.said.get("says", "") in words


def test_every_check_has_both() -> None:
    """No check is without facts that trip it and facts that do not."""
    kinds = {(entry.check, entry.kind) for entry in ENTRIES}

    assert set(CHECKS) == {check for check, _ in kinds}
    assert [] == [n for n in CHECKS if (n, "trips") not in kinds or (n, "passes") not in kinds]


def test_every_check_says_enough() -> None:
    """What holds, why it matters, and a link that is one; the fix comes with the finding."""
    for check in CHECKS.values():
        assert check.holds
        assert len(check.why) > 20
        assert check.link is None or check.link.startswith("https://")


def test_findings_have_a_fix() -> None:
    """Whatever blocks or warns says what to do."""
    lacking = []
    for entry in ENTRIES:
        if entry.kind == "trips":
            (found,) = examine(case_of(entry.said), only=[entry.check]).checks
            lacking += [f.seen for f in found.findings if f.fix is None and f.severity is None]

    assert [] == lacking


def test_nothing_is_wrong_with_a_sound_machine() -> None:
    """All checks together: nothing blocks, warns or is unknown on eight H200 that are as sold."""
    report = examine(case_of({}))

    assert [] == [c for c in report.checks if c.outcome not in ("pass", "other", "unknown")]
    assert [] == [c.name for c in report.of("unknown")]


def test_facts_that_know_nothing_are_no_crash() -> None:
    """A machine that says nothing at all gets unknowns with reasons, and no exception."""
    for said in ({}, {"plan": None}):
        case = case_of(said)
        empty = Case(HostFacts(), CATALOG, case.site, case.launch)

        report = examine(empty)

        assert all(check.reason for check in report.of("unknown"))
        assert {"gpu-count"} >= {check.name for check in report.blocked} - {"engine"}


@pytest.mark.parametrize("field", [f for f in HostFacts.__struct_fields__ if f != "schema"])
def test_each_fact_may_be_missing(field: str) -> None:
    """Whatever the probe could not have, the checks say unknown, and none fails."""
    facts = machine()
    facts.pop(field, None)
    facts["unknown"] = [{"what": field, "reason": "it was not allowed"}]
    case = case_of({})

    report = examine(Case(msgspec.convert(facts, HostFacts), CATALOG, case.site, case.launch))

    assert len(report.checks) == len(CHECKS)


def test_a_skipped_check_is_said() -> None:
    """Skipping is by name, and what was skipped is still told."""
    case = case_of({"facts": {"gpus": {3: {"mig": True}}}})

    report = examine(case, skip=["gpu-mig"])

    (found,) = [check for check in report.checks if check.name == "gpu-mig"]
    assert ("skipped", ()) == (found.outcome, report.blocked)
    assert "GPU 3 is cut" in found.findings[0].seen
    assert "skipped: GPU 3 is cut" in shown(report, Terminal())


def test_all_checks_can_be_skipped_by_one_word() -> None:
    """`all` skips whatever trips, and passed checks are passed all the same."""
    case = case_of({"facts": {"gpus": {3: {"mig": True}}}})

    report = examine(case, skip=["all"])

    assert ["gpu-mig"] == [check.name for check in report.of("skipped")]


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"gpus": {0: {"error": "GPU is lost"}}}, 3),
        ({"listen": {0: {"state": "taken", "holder": "nginx (pid 7)"}}}, 6),
        ({"weights": {"exists": False}}, 4),
    ],
)
def test_a_refusal_has_its_exit_code(patch: object, code: int) -> None:
    """Who reads only the number knows what to look at."""
    error = refusal(examine(case_of({"facts": patch})))

    assert isinstance(error, KimiError)
    assert code == error.exit_code
    assert error.hint


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    """A slip of the pen must not skip nothing silently."""
    with pytest.raises(RequestError, match="gpu-mig"):
        known_names(["gpu-mgi"])


def test_the_table_is_shown() -> None:
    """The list has every check, and each can be explained; nothing is wider than the terminal."""
    text = listed(table(), Terminal())

    assert [] == [name for name in CHECKS if name not in text]
    assert max(map(len, text.splitlines())) <= 80
    for check in table():
        assert check.scope.words.split(",")[0] in explained(check, Terminal()).replace("\n", " ")


def test_a_report_survives_json() -> None:
    """A report is one JSON object with its schema in it."""
    report = examine(case_of({}))

    document = json.loads(msgspec.json.encode(report))

    assert "kimideploy.doctor/1" == document["schema"]
    assert set(CHECKS) == {check["name"] for check in document["checks"]}


def test_patches_reach_into_lists() -> None:
    """The cases' own grammar: one item, all items, and null."""
    base = {"a": [{"b": 1, "c": 2}, {"b": 1}]}

    assert {"a": [{"b": 1, "c": None}, {"b": 3}]} == merged(
        base, {"a": {0: {"c": None}, 1: {"b": 3}}}
    )
    assert {"a": [{"b": 9, "c": 2}, {"b": 9}]} == merged(base, {"a": {"all": {"b": 9}}})


def test_cases_are_files_of_checks() -> None:
    """A file of cases that belongs to no check would never be asked."""
    files = {path.stem for path in (Path(__file__).parent / "cases").glob("*.yaml")}

    assert files == set(CHECKS)
