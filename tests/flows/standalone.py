"""The engine for tests as one file that needs nothing of ours, for machines without kimideploy."""

from __future__ import annotations

from pathlib import Path

from kimideploy.rehearsal import sense

_IMPORT = "from kimideploy.rehearsal.sense import sense\n"
_FUTURE = "from __future__ import annotations\n"


def source() -> str:
    """Return its text, with the sense it borrows from the stand-in in the place of the import."""
    engine = Path(__file__).with_name("engine.py").read_text(encoding="utf-8")
    borrowed = Path(sense.__file__).read_text(encoding="utf-8").partition(_FUTURE)[2]
    assert engine.count(_IMPORT) == 1
    return engine.replace(_IMPORT, borrowed)
