"""Published sizes of whole checkpoints beside the arithmetic on the config."""

from __future__ import annotations

import csv
from dataclasses import dataclass

from kimideploy.catalog.types import Catalog, Format
from kimideploy.planning.memory import checkpoint_bytes
from kimideploy.resources import shipped

#: bytes of a weight in GGUF's Q8_0: 32 values and a 2-byte scale in 34 bytes
_Q8_0 = Format(source="llama.cpp", expert_bytes=34 / 32, mlp_bytes=34 / 32, other_bytes=34 / 32)
#: rows of files.csv that state a whole checkpoint: its format, and whether it has a vision tower
_ROWS = {
    "F001": ("int4", True),
    "F004": ("mxfp4", True),
    "F005": ("int4", True),
    "F015": ("q8_0", False),
    "F046": ("mxfp4", True),
}


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes of a checkpoint as published and as calculated."""

    id: str
    what: str
    published: float
    calculated: float

    @property
    def error(self) -> float:
        """Calculated over published, less one."""
        return self.calculated / self.published - 1


def weight_rows(catalog: Catalog) -> list[Weights]:
    """Return the checkpoints whose size somebody printed exactly enough to be compared."""
    path = shipped("profiles") / "measurements" / "files.csv"
    a = catalog.architectures["kimi-k2"]
    vision = catalog.models["kimi-k2.7-code"].vision
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["id"] not in _ROWS:
                continue
            name, sees = _ROWS[row["id"]]
            form = next((f for key, f in catalog.formats.items() if key == name), None)
            size = float(checkpoint_bytes(a, form or _Q8_0))
            size += float(vision.bytes) if sees and vision is not None else 0.0
            what = f"{row['checkpoint']} {row['format']}"
            found.append(Weights(row["id"], what, float(row["size_bytes_computed"]), size))
    return found
