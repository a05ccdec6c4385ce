"""Reading published measurements: cells as people publish them, and mistakes with their place."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.measurements import Measurement, read_measurements
from kimideploy.errors import RequestError
from kimideploy.resources import shipped

CATALOG = load_catalog()
HEADER = next(
    csv.reader(
        (shipped("profiles") / "measurements" / "throughput.csv").read_text("utf-8").splitlines()
    )
)
ROW = {
    "id": "X1",
    "engine": "vllm",
    "model": "Kimi-K2.5",
    "weight_format": "INT4 compressed-tensors g32",
    "gpu": "H200",
    "gpu_count": "8",
    "tp": "8",
    "concurrency": "4",
    "output_tok_s": "100",
    "confidence": "A",
    "source_url": "https://example.org/a",
    "date": "2026-05-01",
}


def written(folder: Path, *rows: dict[str, str], header: list[str] | None = None) -> Path:
    """Write a throughput.csv and return its path."""
    path = folder / "throughput.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, header or HEADER, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def one(folder: Path, **cells: str) -> Measurement:
    """Return the row with *cells*, as it is read."""
    written(folder, ROW | cells)
    (found,) = read_measurements("throughput", CATALOG.gpus, folder)
    return found


def refusal(folder: Path, kind: str = "throughput") -> str:
    """Return what the folder's file is refused with."""
    with pytest.raises(RequestError) as caught:
        read_measurements(kind, CATALOG.gpus, folder)
    return caught.value.message


@pytest.mark.parametrize("kind", ["memory", "throughput"])
def test_shipped_rows_can_be_cited(kind: str) -> None:
    """Every shipped row has a number of its own, an address, a quote and a date."""
    rows = read_measurements(kind, CATALOG.gpus)

    assert len({row.id for row in rows}) == len(rows) > 60
    assert all(row.url.startswith("https://") and row.cells["quote"] and row.date for row in rows)


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("", None),
        ("default", None),
        ("up to 16", 16.0),
        ("0.94 (default)", 0.94),
        ("1,906,240", 1906240),
    ],
)
def test_a_number_is_the_first_in_its_cell(tmp_path: Path, cell: str, number: float | None) -> None:
    """Words around a number and commas in it do not hide it, and no number is not zero."""
    assert number == one(tmp_path, concurrency=cell).number("concurrency")


@pytest.mark.parametrize(
    ("cell", "gpu"),
    [
        ("H200", "h200"),
        ("RTX PRO 6000 Blackwell 96GB", "rtx-pro-6000"),
        ("H20", "h20-96"),
        ("H2000", None),
        ("Atlas 800", None),
    ],
)
def test_gpus_are_found_by_their_longest_name(tmp_path: Path, cell: str, gpu: str | None) -> None:
    """H2000 is no H200 and H20 is neither; an unknown card is None and no guess."""
    assert gpu == one(tmp_path, gpu=cell).gpu


@pytest.mark.parametrize(
    ("spec", "draft"), [("", 0), ("none", 0), ("EAGLE3, 3 tokens", 3), ("MTP, 1 tokens", 1)]
)
def test_drafted_tokens(tmp_path: Path, spec: str, draft: int) -> None:
    """The number of drafted tokens is read from the words."""
    assert draft == one(tmp_path, spec=spec).draft


def test_what_may_be_used(tmp_path: Path) -> None:
    """Doubtful rows, unknown engines and tables that call themselves broken are not usable."""
    assert one(tmp_path).usable
    assert not one(tmp_path, confidence="C (rounded)").usable
    assert not one(tmp_path, engine="mlx-lm").usable
    assert not one(tmp_path, other="the author calls it a defect").usable
    assert one(tmp_path, concurrency="256 (peak)").queued


@pytest.mark.parametrize("column", ["id", "gpu", "concurrency", "source_url", "spec"])
def test_missing_column(tmp_path: Path, column: str) -> None:
    """A file without a column that is read is refused on its first line, by the column's name."""
    path = written(tmp_path, ROW, header=[name for name in HEADER if name != column])

    assert refusal(tmp_path) == f"{path}:1:1: 0 columns are called `{column}`"


def test_doubled_column(tmp_path: Path) -> None:
    """A header that names a column twice is refused, as one of the two would be lost."""
    path = written(tmp_path, header=[*HEADER, "tp"])

    assert refusal(tmp_path).startswith(f"{path}:1:{','.join(HEADER).find(',tp,') + 2}: 2 columns")


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-inf", "-5", " -0.5 tok/s"])
@pytest.mark.parametrize("column", ["output_tok_s", "concurrency", "tp"])
def test_no_number(tmp_path: Path, column: str, cell: str) -> None:
    """Not-a-number, infinity and negatives are refused where they stand."""
    path = written(tmp_path, ROW, ROW | {"id": "X2", column: cell})
    place = path.read_text("utf-8").splitlines()[2].find(f",{cell},") + 2

    assert refusal(tmp_path) == f"{path}:3:{place}: {cell!r} is no number for `{column}`"


def test_lines_are_counted_through_quotes(tmp_path: Path) -> None:
    """A quote of three lines moves the line of what follows, as an editor counts."""
    path = written(tmp_path, ROW | {"quote": "a\nb\nc"}, ROW | {"id": "X2", "confidence": "D"})

    assert refusal(tmp_path).startswith(f"{path}:5:")
    assert "confidence 'D' is none of A, B, C" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["X1", "", " "])
def test_an_id_is_one_rows(tmp_path: Path, name: str) -> None:
    """An id that is empty or that another row has is refused."""
    path = written(tmp_path, ROW, ROW | {"id": name})

    assert refusal(tmp_path) == f"{path}:3:1: the id {name!r} is empty or taken"


@pytest.mark.parametrize("change", [",,", ""])
def test_length_of_a_row(tmp_path: Path, change: str) -> None:
    """A row with too many or too few cells is refused: its cells stand under wrong columns."""
    path = written(tmp_path, ROW)
    text = path.read_text("utf-8").rstrip()
    path.write_text(text + change if change else text.rsplit(",", 1)[0], encoding="utf-8")

    assert refusal(tmp_path) == f"{path}:2:1: more or fewer cells than the header has columns"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ":1:1: the header is missing"),
        (b"\xff\xfe", " can't be read: "),
        (b'id,"engine', ":1:1: unexpected end of data"),
    ],
)
def test_no_table(tmp_path: Path, content: bytes, says: str) -> None:
    """A file that is empty, no UTF-8 or no CSV is refused, not read as no rows."""
    (tmp_path / "throughput.csv").write_bytes(content)

    assert f"{tmp_path / 'throughput.csv'}{says}" in refusal(tmp_path)


def test_unknown_kind(tmp_path: Path) -> None:
    """A kind of measurement that does not exist is refused, and a file that is not there."""
    assert refusal(tmp_path, "costs") == "'costs' is no kind of measurement"
    assert "can't be read" in refusal(tmp_path, "memory")


def test_lengths_are_means_where_a_spread_is_stated(tmp_path: Path) -> None:
    """A cell may state a range and its mean; the mean is the length."""
    row = one(tmp_path, input_len="2000-45000 (mean 12345)", output_len="512")

    assert (row.length("input_len"), row.length("output_len")) == (12345, 512)
    assert row.length("context_len") is None
