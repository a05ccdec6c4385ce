"""A folder of weights as it lies there, what reading it is like, and files that must be private."""

import glob
import json
import os
import re
import stat
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from kimideploy.facts.probe.base import Facts, Unknown, read_or, said, start, under, unescape

INDEX = "model.safetensors.index.json"
INCOMPLETE = ".incomplete"
COMMIT = re.compile(r"[0-9a-f]{40}$")
#: seconds for the headers of all shards: what has not been read then promises nothing
HEADERS = 3.0
#: bytes; an index of 400,000 tensors is below it, and nothing else is called so
LARGEST_INDEX = 256 << 20
LARGEST_HEADER = 100 << 20  # the format's own limit
#: shards whose headers are read; a checkpoint of the family has 64
SHARDS = 256
#: bytes of one read, and readers at once: engines read with several, too
PIECE, READERS = 4 << 20, 4
#: bytes below which a time says nothing about a disk
LEAST = 64 << 20


def about_folder(path: str, seconds: float, unknown: Unknown) -> Facts:
    """Return what lies in *path*; reading is measured for *seconds*, 0: not at all."""
    path = resolved(path)
    found = look_at_folder(path)
    found["filesystem"] = filesystem(existing(path))
    try:
        space = os.statvfs(existing(path))
        found["free"] = space.f_bavail * space.f_frsize
    except (OSError, AttributeError) as error:
        unknown.add("room for the weights", said(error))
    if seconds:
        largest = sorted(found["sizes"].items(), key=lambda pair: -int(pair[1]))[:READERS]
        paths = [os.path.join(path, name) for name, size in largest if size]
        if sum(int(size) for _, size in largest) >= LEAST:
            found["read_rate"] = read_rate(paths, seconds=seconds, most=2 << 30)
        elif found["exists"]:
            unknown.add("read rate", "too little lies in %s to measure" % path)
    return {"weights": found}


def resolved(path: str) -> str:
    """Return the newest commit in a folder of commits, else the folder itself."""
    try:
        names = [name for name in os.listdir(path) if COMMIT.match(name)]
    except OSError:
        return path
    folders = [os.path.join(path, name) for name in names]
    folders = [folder for folder in folders if os.path.isdir(folder)]
    return max(folders, key=os.path.getmtime) if folders else path


def existing(path: str) -> str:
    """Return *path*, or the nearest folder above it that is there."""
    path = os.path.abspath(path)
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def look_at_folder(path: str) -> Facts:
    """Return sizes by name, what the index names, and how long each shard is by its header."""
    sizes = {}  # type: Dict[str, int]
    leftovers = os.path.join(path, ".cache", "huggingface", "download")
    for place in (path, leftovers):
        try:
            entries = list(os.scandir(place))
        except OSError:
            continue
        for entry in entries:
            size = size_of(entry)
            if size is not None and (place == path or entry.name.endswith(INCOMPLETE)):
                sizes[entry.name] = size
    shards, broken = index_of(os.path.join(path, INDEX)) if INDEX in sizes else (None, None)
    if not any(name.endswith((".safetensors", ".gguf")) for name in sizes):
        sizes.update(parts_below(path))
    promised = promises(path, [n for n in shards or sizes if n.endswith(".safetensors")])
    return {
        "path": path,
        "exists": os.path.isdir(path),
        "sizes": sizes,
        "shards": shards,
        "promised": promised,
        "broken_index": broken,
    }


def parts_below(path: str) -> Dict[str, int]:
    """Return the parts of a GGUF in the folders below, by their own names."""
    found = {}
    for part in glob.glob(os.path.join(glob.escape(path), "*", "*.gguf")):
        try:
            found[os.path.basename(part)] = os.stat(part).st_size
        except OSError:
            continue
    return found


def promises(path: str, names: Sequence[str]) -> Dict[str, int]:
    """Return how long each shard is by its own header, as far as that was read in time."""

    def reader(name: str) -> Any:
        return lambda _: {"whole": by_header(os.path.join(path, name))}

    end = time.monotonic() + HEADERS
    found = {}
    for name, (thread, outcome) in [(name, start(reader(name))) for name in names[:SHARDS]]:
        thread.join(max(0.0, end - time.monotonic()))
        whole = outcome.get("facts", {}).get("whole")
        if whole is not None:
            found[name] = whole
    return found


def size_of(entry: Any) -> Optional[int]:
    """Bytes of a file, links followed; None for what is none or leads nowhere."""
    try:
        return int(entry.stat().st_size) if entry.is_file() else None
    except OSError:
        return None


def index_of(path: str) -> Tuple[Optional[List[str]], Optional[str]]:
    """Return the shards an index names, or why it can't be read."""
    try:
        if os.stat(path).st_size > LARGEST_INDEX:
            return None, INDEX + " is too large to be one"
        with open(path, "rb") as file:
            shards = sorted(set(json.loads(file.read())["weight_map"].values()))
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None, INDEX + " is no index: it can't be read as one"
    if not shards or not all(isinstance(name, str) for name in shards):
        return None, INDEX + " names no weight files"
    return shards, None


def by_header(path: str) -> Optional[int]:
    """Bytes a safetensors file has by its own header; None if it has none that can be read."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LARGEST_HEADER:
                return None
            tensors = json.loads(file.read(length))
        tensors.pop("__metadata__", None)
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors.values()]
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
    return 8 + length + max(ends, default=0)


def filesystem(path: str) -> Optional[str]:
    """Return the type of the file system that *path* lies on, None where it can't be told."""
    real = os.path.realpath(path)
    best = (-1, None)  # type: Tuple[int, Optional[str]]
    for line in read_or("/proc/self/mountinfo").splitlines():
        left, dash, right = line.partition(" - ")
        fields = left.split()
        if not dash or len(fields) < 5 or not right:
            continue
        mount = unescape(fields[4])
        inside = real == mount or real.startswith(mount.rstrip("/") + "/")
        # Why at least: of two mounts on one folder the later one is seen.
        if inside and len(mount) >= best[0]:
            best = (len(mount), right.split()[0])
    return best[1]


def read_rate(paths: Sequence[str], *, seconds: float, most: int) -> Optional[float]:
    """Bytes per second of several readers in sequence; None where there is nothing to read.

    It ends after *seconds*, or when *most* bytes were read.
    """
    began = time.monotonic()

    def reader(path: str, unknown: Unknown) -> Facts:
        done, buffer = 0, memoryview(bytearray(PIECE))
        try:
            with open(path, "rb", buffering=0) as file:
                if hasattr(os, "posix_fadvise"):
                    # Why: what is in the page cache says nothing about the disk.
                    # No more than is read: the rest of the cache is what the load lives on.
                    os.posix_fadvise(file.fileno(), 0, most // READERS, os.POSIX_FADV_DONTNEED)
                while done < most // READERS and time.monotonic() - began < seconds:
                    got = file.readinto(buffer)
                    if not got:
                        break
                    done += got
        except OSError as error:
            unknown.add("read rate", said(error))
        return {"done": done}

    def one(path: str) -> Any:
        return start(lambda unknown: reader(path, unknown))

    count = 0
    for thread, outcome in [one(path) for path in paths]:
        # Why a limit: a dead server never answers.
        thread.join(max(0.0, began + seconds + 2 - time.monotonic()))
        count += outcome.get("facts", {}).get("done", 0)
    spent = time.monotonic() - began
    return count / spent if count and spent > 0 else None


def about_files(paths: Sequence[str], root: str) -> Facts:
    """Return what stands in the way of each file being private: whether it is there, and its mode."""
    found = []
    for path in paths:
        try:
            state = os.stat(under(root, path))
        except FileNotFoundError:
            found.append({"path": path, "exists": False})  # type: Facts
        except OSError as error:
            found.append({"path": path, "error": said(error)})
        else:
            mode = stat.S_IMODE(state.st_mode)
            found.append({"path": path, "exists": True, "mode": mode, "owner": state.st_uid})
    return {"files": found}
