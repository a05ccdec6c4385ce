"""kimideploy's own wheel, made from what is installed here: a host gets the very same program."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import kimideploy
from kimideploy.errors import MachineError
from kimideploy.resources import shipped

#: the files of a wheel are given one time, so that the same program is the same bytes
_EPOCH = (2020, 1, 1, 0, 0, 0)
_SUFFIXES = {
    ".csv",
    ".j2",
    ".jinja",
    ".json",
    ".py",
    ".safetensors",
    ".txt",
    ".typed",
    ".yaml",
}
_WHEEL = "Wheel-Version: 1.0\nGenerator: kimideploy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_ENTRY = "[console_scripts]\nkimideploy = kimideploy.cli.app:main\n"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel: its file name, its bytes, and the digest that tells one program from another."""

    name: str
    data: bytes
    digest: str


def wheel() -> Wheel:
    """Return the wheel of this very kimideploy; MachineError if it is not installed."""
    try:
        about = distribution("kimideploy").read_text("METADATA")
    except PackageNotFoundError as error:
        raise MachineError(
            "kimideploy is not installed here, so no host can be given it"
        ) from error
    if about is None:
        raise MachineError("this installation of kimideploy has no METADATA")
    version = kimideploy.__version__
    info = f"kimideploy-{version}.dist-info"
    files = dict(_files())
    files |= {
        f"{info}/METADATA": about.encode(),
        f"{info}/WHEEL": _WHEEL.encode(),
        f"{info}/entry_points.txt": _ENTRY.encode(),
    }
    rows = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return Wheel(f"kimideploy-{version}-py3-none-any.whl", made.getvalue(), digest[:16])


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield the package's files by their names in a wheel, those beside a checkout included."""
    package = Path(kimideploy.__file__).parent
    for place, folder in (
        ("kimideploy", package),
        ("kimideploy/_profiles", shipped("profiles")),
        ("kimideploy/_templates", shipped("templates")),
    ):
        for path in sorted(folder.rglob("*")):
            if path.suffix in _SUFFIXES and path.is_file():
                yield f"{place}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
