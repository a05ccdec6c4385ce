"""Loading the catalog: folders over folders, references between files, one digest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kimideploy.catalog.load import check_catalog, load_catalog, user_overlays
from kimideploy.errors import RequestError
from kimideploy.quantities import GIB
from kimideploy.resources import shipped

PROFILES = shipped("profiles")


def overlay(folder: Path, place: str, *changes: tuple[str, str], source: str | None = None) -> Path:
    """Copy a shipped file to *place* of a folder of the user's, with each change made once."""
    text = (PROFILES / (source or place)).read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(text, encoding="utf-8")
    return folder


def refusal(folder: Path) -> str:
    """Return what the folder is refused with, when it is loaded and when it is checked."""
    with pytest.raises(RequestError) as loaded:
        load_catalog([folder])
    with pytest.raises(RequestError) as checked:
        check_catalog([folder])
    assert loaded.value.message in checked.value.message
    return loaded.value.message


def test_user_file_replaces_the_shipped_one(tmp_path: Path) -> None:
    """A file of the same name is taken whole, and the digest is another."""
    folder = overlay(tmp_path, "gpus/h200.yaml", ("usable: 139.8 GiB", "usable: 100 GiB"))

    catalog = load_catalog([folder])

    assert 100 * GIB == catalog.gpus["h200"].memory.usable
    assert load_catalog().digest != catalog.digest


def test_later_folder_wins(tmp_path: Path) -> None:
    """Folders are laid over each other in the order they are given."""
    first = overlay(tmp_path / "a", "gpus/h200.yaml", ("usable: 139.8 GiB", "usable: 100 GiB"))
    second = overlay(tmp_path / "b", "gpus/h200.yaml", ("usable: 139.8 GiB", "usable: 90 GiB"))

    assert 90 * GIB == load_catalog([first, second]).gpus["h200"].memory.usable
    assert 100 * GIB == load_catalog([second, first]).gpus["h200"].memory.usable


def test_user_adds_a_gpu(tmp_path: Path) -> None:
    """A new file is a new profile."""
    folder = overlay(
        tmp_path,
        "gpus/my-card.yaml",
        ("id: h200", "id: my-card"),
        ("aliases: [H200, H200-141GB, H200-SXM]", "aliases: [MYCARD]"),
        source="gpus/h200.yaml",
    )

    assert "my-card" in load_catalog([folder]).gpus
    assert check_catalog() + 1 == check_catalog([folder])


def test_digest_is_of_what_the_files_say(tmp_path: Path) -> None:
    """Comments, order of keys and the folder's place don't change it; a source's date does."""
    copy = shutil.copytree(PROFILES, tmp_path / "copy")
    formats = copy / "formats.yaml"
    formats.write_text("# a remark\n" + formats.read_text(encoding="utf-8"), encoding="utf-8")
    dated = overlay(
        tmp_path / "dated", "formats.yaml", ('date: "2026-08-13"', 'date: "2026-08-14"')
    )

    assert load_catalog().digest == load_catalog([copy]).digest
    assert load_catalog().digest != load_catalog([dated]).digest
    assert re.fullmatch("[0-9a-f]{64}", load_catalog().digest)


#: a change to a shipped file, the words at whose end the fault is, and what is said of it
FAULTS = [
    ("gpus/h200.yaml", ("generation: sm90", "generation: sm9"), "generation: ",
     "generation `sm9` has no profile; did you mean `sm90`?"),
    ("gpus/h200.yaml", ("source: measured", "source: mesured"), "GiB\n  source: ",
     "source `mesured` is not in `sources:`; did you mean `measured`?"),
    ("gpus/h200.yaml", ("id: h200", "id: h201"), "id: ",
     "the id is `h201`, the file's name says `h200`"),
    ("gpus/h200.yaml", ("- 'NVIDIA H200'", "- 'NVIDIA (H200'"), "driver_names:\n  - ",
     "this is no regular expression: missing ), unterminated subpattern"),
    ("gpus/h200.yaml", ("aliases: [H200,", "aliases: [b 200,"), "aliases: [",
     "`b 200` names `b200` too"),
    ("gpus/h200.yaml", ("\nbandwidth:", "\nbandwith:"), "source: measured\n",
     "`bandwith` is not a known key; did you mean `bandwidth`?"),
    ("gpus/h200.yaml", ("domain: 8", "domain: 0"), "domain: ", "Expected `int` >= 1"),
    ("models/kimi-k2.6.yaml", ("architecture: kimi-k2", "architecture: kimi-k9"),
     "\narchitecture: ", "architecture `kimi-k9` has no profile; did you mean `kimi-k2`?"),
    ("models/kimi-k2.6.yaml", ("    non_expert: 23.44 GB\n", ""), "exists\n  - id: ",
     "checkpoint `gguf-ud-q8_k_xl` lacks `non_expert`"),
    ("tiers.yaml", ("gpus: [h100-80,", "gpus: [h100-81,"), "gpus: [",
     "GPU `h100-81` has no profile; did you mean `h100-80`?"),
    ("notices.yaml", ("generations: [sm90]", "generations: [sm91]"), "generations: [",
     "generation `sm91` has no profile; did you mean `sm90`?"),
    ("engines/vllm.yaml", ("fraction: 0.90", "fraction: 1.90"), "fraction: ",
     "Expected `float` <= 1.0"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "change", "before", "message"), FAULTS)
def test_what_is_wrong_is_told_in_its_place(
    tmp_path: Path, place: str, change: tuple[str, str], before: str, message: str
) -> None:
    """Keys, values and references between files are refused at FILE:LINE:COLUMN."""
    path = overlay(tmp_path, place, change) / place
    text = path.read_text(encoding="utf-8")
    upto = text[: text.index(before) + len(before)]
    line, column = upto.count("\n") + 1, len(upto) - upto.rfind("\n")

    assert refusal(tmp_path).startswith(f"{path}:{line}:{column}: {message}")


def test_check_tells_everything_at_once(tmp_path: Path) -> None:
    """Each file that can't be read has a line of its own."""
    overlay(tmp_path, "gpus/h200.yaml", ("bandwidth:", "bandwith:"))
    overlay(tmp_path, "gpus/b200.yaml", ("memory:", "memroy:"))

    with pytest.raises(RequestError) as caught:
        check_catalog([tmp_path])

    assert ["b200.yaml", "h200.yaml"] == re.findall(r"(\w+\.yaml):\d+:\d+: `", caught.value.message)


def test_file_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    """A file in the wrong folder or with the wrong ending is not passed over."""
    for name in ("gpu/h200.yaml", "gpus/h200.yml", "gpus/a/b.yaml", "notes.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("id: a\n", encoding="utf-8")

        assert f"{tmp_path / name} is no profile" == refusal(tmp_path)
        (tmp_path / name).unlink()


def test_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    """A folder that is not there is a wrong request."""
    assert f"{tmp_path / 'x'} is not a folder of profiles" == refusal(tmp_path / "x")


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are told with the file's name."""
    (tmp_path / "tiers.yaml").write_bytes(b"\xff\xfe")

    assert refusal(tmp_path).startswith(f"{tmp_path / 'tiers.yaml'}: ")


def test_own_folder_comes_before_the_given_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's configuration folder is laid over the shipped profiles when it is there."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    given = tmp_path / "given"
    own = tmp_path / "kimideploy" / "profiles"
    assert (given,) == user_overlays([given])

    own.mkdir(parents=True)

    assert (own, given) == user_overlays([given])
