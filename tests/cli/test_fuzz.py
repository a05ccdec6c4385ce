"""Whatever is typed or written, the answer is an exit code of the table and never a traceback."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.run import run

#: the request was answered, or was wrong
ANSWERED, WRONG = {0, 1}, 2
quickly = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
hardware = st.one_of(
    st.text(max_size=40),
    st.from_regex(r"([0-9]{1,3}x)?[0-9]{1,3}x[A-Za-z0-9-]{1,12}(\+[0-9.]{1,6}[A-Za-z]{0,4})?"),
    st.sampled_from(["8xH200", "0+768GiB", "2x8xH100-80GB", "1xRTX4090"]),
)
#: keys that are known with values of any kind, and lines that are anything
line = st.one_of(
    st.text(max_size=60),
    st.builds(
        "{}: {}".format,
        st.sampled_from(["hardware", "ram", "context", "port", "goal", "engine_args", "gaol"]),
        st.one_of(
            st.integers(), st.floats(), st.booleans(), st.text(max_size=20), st.just("[1, {a: }]")
        ),
    ),
)


@quickly
@given(word=hardware)
def test_any_hardware_word(word: str) -> None:
    """A hardware word is a machine that is planned for, or a wrong request."""
    result = run("plan", f"--hardware={word}")

    assert result.exit_code in {*ANSWERED, WRONG}, result.stderr
    assert (WRONG == result.exit_code) == result.stderr.startswith("error: ")


@quickly
@given(lines=st.lists(line, max_size=6))
def test_any_config_file(lines: list[str]) -> None:
    """A config file is options that are planned by, or wrong at a place that is named."""
    Path("any.yaml").write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))

    result = run("plan", "--config", "any.yaml", "--hardware", "8xH200")

    assert result.exit_code in {*ANSWERED, WRONG}, result.stderr
    if WRONG == result.exit_code:
        assert "error: " in result.stderr


@quickly
@given(
    flag=st.sampled_from(["--ram", "--context", "--min-context", "--cores", "--port", "--tier"]),
    value=st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
)
def test_any_value_of_a_flag(flag: str, value: str) -> None:
    """A flag's value is understood, or a wrong request."""
    result = run("plan", "--hardware", "8xH200", f"{flag}={value}")

    assert result.exit_code in {*ANSWERED, WRONG}, result.stderr
