"""What others put in the way: links, pipes, other contents of a commit, code by the back door."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from hashlib import sha1
from pathlib import Path

import pytest

from kimideploy.errors import BusyError, KimiError, MachineError, WeightsError
from kimideploy.files import write_whole
from kimideploy.planning.types import CodePin
from kimideploy.weights import listing, space
from kimideploy.weights.bundle import LEAST, bundle
from kimideploy.weights.code import pins_of
from kimideploy.weights.events import Arrived, Damaged, Moved
from kimideploy.weights.manifest import Item, Manifest
from kimideploy.weights.pull import Pulled
from kimideploy.weights.retry import asked
from kimideploy.weights.selection import Wanted
from kimideploy.weights.store import Staging, claimed
from kimideploy.weights.unbundle import unbundle
from kimideploy.weights.verify import verify
from tests.cli.run import run
from tests.hub import server
from tests.hub.repos import safetensors, shards
from tests.hub.server import Fault
from tests.pull.conftest import REPO, Bench, files_of, mismatches

NAME = "modeling_kimi_k25.py"
EVIL = b"import os\nos.system('id')\n"


def forged(pulled: Pulled, to: Path, quant: str | None = None) -> Path:
    """Write a bundle of the same commit with other code in it."""
    folder = to.with_name(f"{to.name}-of")
    shutil.copytree(pulled.folder, folder)
    (folder / NAME).write_bytes(EVIL)
    oid = sha1(b"blob %d\0" % len(EVIL) + EVIL).hexdigest()
    items = [
        item if item.path != NAME else Item(NAME, len(EVIL), oid=oid)
        for item in pulled.manifest.items
    ]
    manifest = Manifest(pulled.manifest.repo, pulled.manifest.revision, tuple(items), quant)
    bundle(folder, manifest, to, split=LEAST, tell=lambda _: None)
    return to


@pytest.mark.parametrize("pinned", [False, True])
def test_other_code_under_the_same_commit(bench: Bench, tmp_path: Path, *, pinned: bool) -> None:
    """A hub that tells other contents of a commit that is here already is not believed."""
    pulled = bench.pull()
    pins = pins_of(pulled.folder.joinpath, pulled.manifest)
    evil = tmp_path / "evil.py"
    evil.write_bytes(EVIL)
    bench.hub.repos[REPO][bench.commit][NAME] = server._entry(evil, None)
    with pytest.raises(WeightsError, match="a commit does not change"):
        bench.pull(code=pins if pinned else None)

    assert EVIL != (pulled.folder / NAME).read_bytes()


def test_a_bundle_with_other_code_for_what_is_here(bench: Bench, tmp_path: Path) -> None:
    """A bundle does not change the contents of a commit, nor of a published folder."""
    pulled = bench.pull()
    before = files_of(pulled.folder)
    where = forged(pulled, tmp_path / "b")
    with pytest.raises(WeightsError, match="a commit does not change"):
        unbundle(where, bench.top, accept_code=False, tell=lambda _: None)

    assert before == files_of(pulled.folder)


def test_a_bundle_that_chooses_its_quant(bench: Bench, tmp_path: Path) -> None:
    """What was accepted holds for the repository, whatever a bundle calls its checkpoint."""
    pulled = bench.pull()
    where = forged(pulled, tmp_path / "b", quant="x")
    with pytest.raises(WeightsError, match=f"{NAME} has changed"):
        unbundle(where, bench.top, accept_code=False, tell=lambda _: None)


def test_new_code_while_mending(bench: Bench) -> None:
    """A file of code that joins a commit that is here has to be accepted like any other."""
    pulled = bench.pull()
    (bench.folder / "more.py").write_bytes(EVIL)
    entry = server._entry(bench.folder / "more.py", None)
    bench.hub.repos[REPO][bench.commit]["more.py"] = entry
    with pytest.raises(WeightsError, match=r"more\.py is new"):
        bench.pull()

    assert not (pulled.folder / "more.py").exists()
    assert bench.pull(accept_code=True).folder == pulled.folder
    assert (pulled.folder / "more.py").exists()


def test_damaged_code_is_mended_without_a_word(bench: Bench) -> None:
    """Code that rotted here is fetched again: what comes is what was accepted."""
    pulled = bench.pull()
    (pulled.folder / NAME).write_bytes(EVIL)
    bench.pull(wanted=Wanted(REPO, bench.commit))

    assert [NAME] == [event.path for event in bench.of(Damaged)]
    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_large_code_is_gated_too(bench: Bench) -> None:
    """Code that the hub keeps as a large file comes late, and is refused all the same."""
    bench.pull()
    (bench.folder / NAME).write_text("# evil\n" * 20_000)
    bench.commit = bench.hub.add(REPO, bench.folder)
    assert bench.hub.repos[REPO][bench.commit][NAME].sha256 is not None
    with pytest.raises(WeightsError, match=f"{NAME} has changed"):
        bench.pull()

    assert not (bench.top / REPO / bench.commit).exists()


@pytest.mark.parametrize("name", ["files", "parts"])
def test_a_link_for_a_staging_folder(bench: Bench, tmp_path: Path, name: str) -> None:
    """Nothing is swept, written or published through a link that lies in the store."""
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "precious").write_text("x")
    staging = Staging(bench.top / REPO / bench.commit)
    staging.folder.mkdir(parents=True)
    (staging.folder / name).symlink_to(victim)
    with pytest.raises(MachineError, match=f"{name} is a link"):
        bench.pull()

    assert {"sub", "precious"} == {path.name for path in victim.iterdir()}


def test_a_link_in_a_published_folder(bench: Bench, tmp_path: Path) -> None:
    """A folder or file of the weights that leads elsewhere is replaced, not written through."""
    folder, elsewhere = tmp_path / "gguf", tmp_path / "elsewhere"
    (folder / "Q").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "Q" / "x.gguf").write_bytes(b"GGUF" + bytes(70_000))
    bench.hub.add("org/g", folder)
    pulled = bench.pull(wanted=Wanted("org/g"))
    (pulled.folder / "Q").rename(elsewhere / "Q")
    (pulled.folder / "Q").symlink_to(elsewhere / "Q")
    (elsewhere / "Q" / "x.gguf").write_bytes(b"")
    bench.pull(wanted=Wanted("org/g"))

    assert 0 == (elsewhere / "Q" / "x.gguf").stat().st_size
    assert not (pulled.folder / "Q").is_symlink()
    assert 70_004 == (pulled.folder / "Q" / "x.gguf").stat().st_size


def test_links_where_we_write(bench: Bench, tmp_path: Path) -> None:
    """Parts, records and what is written beside them never follow a link."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".record.new").symlink_to(victim)
    write_whole(tmp_path / "record", b"data")
    part = tmp_path / "x.part"
    part.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        space.reserve(part, 10)
    bundle_of = bench.pull()
    bundle(bundle_of.folder, bundle_of.manifest, tmp_path / "b", split=LEAST, tell=lambda _: None)
    staging = Staging(tmp_path / "o" / REPO / bench.commit)
    staging.parts.mkdir(parents=True)
    staging.part("config.json").symlink_to(victim)
    folder, _ = unbundle(tmp_path / "b", tmp_path / "o", accept_code=False, tell=lambda _: None)

    assert "precious" == victim.read_text()
    assert b"data" == (tmp_path / "record").read_bytes()
    assert not (folder / "config.json").is_symlink()


def test_a_pipe_for_a_shard(bench: Bench) -> None:
    """A pipe, which nobody would ever write to, is no file and holds nobody up."""
    pulled = bench.pull()
    path = pulled.folder / shards(4)[0]
    path.unlink()
    os.mkfifo(path)
    found: list[object] = []
    thread = threading.Thread(
        target=lambda: found.extend(verify(pulled.folder, pulled.manifest)), daemon=True
    )
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    assert ["is no file"] == [event.why for event in found if isinstance(event, Damaged)]


def test_strangers_in_a_folder_in_the_making(bench: Bench) -> None:
    """What someone laid into a folder that is being pulled is not published with it."""
    staging = Staging(bench.top / REPO / bench.commit)
    (staging.files / "sub").mkdir(parents=True)
    (staging.files / "evil.py").write_bytes(EVIL)
    (staging.files / "sub" / "evil.py").write_bytes(EVIL)
    (staging.files / "link").symlink_to("/etc")
    pulled = bench.pull()

    assert {item.path for item in pulled.manifest.items} == set(files_of(pulled.folder))


def test_changed_while_it_is_pulled(bench: Bench) -> None:
    """A file that is touched after it was proved is not published."""
    staging = Staging(bench.top / REPO / bench.commit)
    touched = threading.Event()

    def touch() -> None:
        while not (staging.files / shards(4)[0]).exists() and not touched.wait(0.001):
            pass
        with (staging.files / shards(4)[0]).open("ab") as file:
            file.write(b"x")

    bench.hub.faults = [Fault(shards(4)[3], "slow", 1, rate=100_000)]
    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        with pytest.raises(WeightsError, match="changed while it was being pulled"):
            bench.pull(workers=1)
    finally:
        touched.set()
        thread.join()
    pulled = bench.pull()

    assert [] == mismatches(pulled.folder, REPO, bench.commit, bench.hub.url)


def test_another_file_of_the_same_size_and_time(bench: Bench) -> None:
    """A file that was exchanged, its size and time kept, is read again: the inode is another."""
    path = bench.pull().folder / shards(4)[0]
    found, other = path.stat(), path.with_name("other")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)
    bench.pull(wanted=Wanted(REPO, bench.commit))

    assert [shards(4)[0]] == [event.path for event in bench.of(Damaged)]


def test_a_pull_that_began_while_it_was_asked(bench: Bench) -> None:
    """prune does not take the folder from a pull that has begun since it looked."""
    staging = Staging(bench.top / REPO / bench.commit)
    staging.files.mkdir(parents=True)
    ((folder, _),) = listing.prunable(bench.top, old=False).going
    with claimed(staging), pytest.raises(BusyError):
        listing.remove(folder)
    assert staging.files.is_dir()
    gone = staging.folder.with_name(f".gone-{staging.folder.name[1:]}")
    (gone / "x").mkdir(parents=True)
    words = ("weights", "prune", "--yes", "--to", str(bench.top))

    assert 0 == run(*words).exit_code
    assert [] == [path.name for path in (bench.top / REPO).iterdir()]


def test_headers_that_count_for_ever() -> None:
    """Numbers of any length in an answer's head are no numbers, and no crash."""
    for head in (
        {"RateLimit": '"x";r=' + "0" * 5000 + ";t=1"},
        {"RateLimit": '"x";r=0;t=' + "9" * 5000},
        {"Retry-After": "9" * 5000},
        {"Retry-After": "Fri, 99 Foo 9999 99:99:99 GMT"},
    ):
        assert asked(head) in (None, 600.0)


def test_a_tar_of_long_names(tmp_path: Path) -> None:
    """A bundle that begins with the header of a long name, and goes on with nonsense, is none."""
    folder = tmp_path / "b"
    folder.mkdir()
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 100
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(512) + b"\xff" * 512
    (folder / "x.sha256").write_text(f"{'0' * 64}  x.tar.000\n")
    for tar in (data, b"", data[:600], b"\0" * 2048):
        (folder / "x.tar.000").write_bytes(tar)
        with pytest.raises(KimiError, match="does not begin with a manifest"):
            unbundle(folder, tmp_path / "o", accept_code=False, tell=lambda _: None)


def test_hints_can_be_copied(bench: Bench, tmp_path: Path) -> None:
    """A name that the hub tells stands in a hint as one word of a shell."""
    folder = tmp_path / "gguf"
    folder.mkdir()
    for name in ("a'; touch pwned; '.gguf", "b.gguf"):
        (folder / name).write_bytes(b"GGUF" + bytes(70_000))
    bench.hub.add("org/gguf", folder)
    with pytest.raises(WeightsError) as caught:
        bench.pull(wanted=Wanted("org/gguf"))

    assert """--files 'a'"'"'; touch pwned; '"'"'.gguf*'""" in (caught.value.hint or "")


def test_a_plan_with_other_pins(bench: Bench) -> None:
    """Pins that name fewer or more files than there are, are not what is here."""
    pulled = bench.pull()
    pins = pins_of(pulled.folder.joinpath, pulled.manifest)
    for wrong in (pins[:1], (*pins, CodePin("../../etc/passwd", "0" * 64))):
        with pytest.raises(WeightsError, match="other code than was accepted"):
            bench.pull(wanted=Wanted(REPO, bench.commit), code=wrong)
    assert bench.pull(wanted=Wanted(REPO, bench.commit), code=pins).folder == pulled.folder


def test_no_second_read(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What comes in order is hashed as it comes: not a byte of it is read back."""
    from kimideploy.weights import part  # noqa: PLC0415

    folder = tmp_path / "one"
    folder.mkdir()
    safetensors(folder / "model.safetensors", "w", bytes(30_000_000))
    bench.hub.add("org/one", folder)
    read: list[int] = []
    plain = part.Part._read

    def counted(self: part.Part, view: memoryview, offset: int) -> int:
        read.append(len(view))
        return plain(self, view, offset)

    monkeypatch.setattr(part.Part, "_read", counted)
    bench.pull(wanted=Wanted("org/one"), workers=1)

    assert [] == read
    assert bench.of(Arrived)
    assert bench.of(Moved)
