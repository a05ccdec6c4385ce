"""The `--hardware` grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kimideploy.errors import RequestError
from kimideploy.facts.hardware import Hardware, parse_hardware

GIB = 1 << 30


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("8xH200", Hardware(nodes=1, gpus=8, gpu="H200")),
        ("  8xh200 ", Hardware(nodes=1, gpus=8, gpu="h200")),
        ("8XH200", Hardware(nodes=1, gpus=8, gpu="H200")),
        ("2x8xH100-80GB", Hardware(nodes=2, gpus=8, gpu="H100-80GB")),
        ("1x8xB200", Hardware(nodes=1, gpus=8, gpu="B200")),
        ("1xRTX4090+512GiB", Hardware(nodes=1, gpus=1, gpu="RTX4090", ram=512 * GIB)),
        ("1xRTX4090+1.5TiB", Hardware(nodes=1, gpus=1, gpu="RTX4090", ram=1536 * GIB)),
        ("4xRTX PRO 6000", Hardware(nodes=1, gpus=4, gpu="RTX PRO 6000")),
        ("2x4xGB200+960GB", Hardware(nodes=2, gpus=4, gpu="GB200", ram=960 * 10**9)),
        ("0+768GiB", Hardware(nodes=1, gpus=0, gpu=None, ram=768 * GIB)),
        ("0", Hardware(nodes=1, gpus=0, gpu=None)),
    ],
)
def test_word(word: str, expected: Hardware) -> None:
    """Each form of the grammar says what it looks like."""
    assert expected == parse_hardware(word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("", "is not of the form"),
        ("H200", "is not of the form"),
        ("8 H200", "is not of the form"),
        ("-8xH200", "is not of the form"),
        ("8x8x8xH200", "is not of the form"),
        ("8xH200+", "is not of the form"),
        ("8xH200+1GiB+1GiB", "is not of the form"),
        ("٨xH200", "is not of the form"),
        ("0xH200", "names no GPU at all"),
        ("0x8xH200", "names no GPU at all"),
        ("999999x8xH200", "more than 100000 GPUs"),
        ("8xH200+lots", "'lots' is not an amount"),
        ("8xH200+512QiB", "unknown unit 'QiB'"),
        ("8xH200+0GiB", "no host memory of a real node"),
        ("8xH200+9999TiB", "no host memory of a real node"),
    ],
)
def test_wrong_word(word: str, reason: str) -> None:
    """What is no machine is refused with the part that is wrong."""
    with pytest.raises(RequestError, match=reason):
        parse_hardware(word)


@given(st.one_of(st.text(), st.from_regex(r"\A[0-9]{0,8}x?[0-9]{0,8}x[A-Z0-9 ]*\+?.*\Z")))
def test_any_text(text: str) -> None:
    """Any text is a machine or a refused request, never a crash."""
    try:
        hardware = parse_hardware(text)
    except RequestError:
        return
    assert 1 <= hardware.nodes
    assert (hardware.gpu is None) == (hardware.gpus == 0)
    assert hardware.ram is None or hardware.ram > 0


@given(
    nodes=st.integers(1, 100),
    gpus=st.integers(1, 16),
    gpu=st.sampled_from(["H200", "H100-80GB", "RTX4090", "MI300X"]),
    ram=st.none() | st.integers(1, 4096),
)
def test_written_and_read(nodes: int, gpus: int, gpu: str, ram: int | None) -> None:
    """A machine that is written as a word reads as the same machine."""
    word = f"{nodes}x{gpus}x{gpu}" + (f"+{ram}GiB" if ram is not None else "")

    expected = Hardware(nodes=nodes, gpus=gpus, gpu=gpu, ram=ram * GIB if ram is not None else None)
    assert expected == parse_hardware(word)
