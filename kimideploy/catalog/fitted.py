"""What predictions know beside arithmetic: parameters with a prior, and error bars."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

from msgspec import Meta

from kimideploy.catalog.types import Profile, Source
from kimideploy.quantities import Bytes

#: what planning.steps and planning.speed ask for by name; a name with a dot may be missing where
#: it is a factor
SPEED = (
    *("latency", "experts", "alike", "weights", "compute", "attention", "serial", "verify"),
    *("link.nvlink", "link.xgmi", "link.pcie", "dcp_latency", "draft_layers", "acceptance"),
    *("sequence", "int4", "fp4", "prefill_attention", "first_token", "host.bandwidth"),
    *("stream.gpu", "stream.host"),
)
#: what planning.overhead asks for by name
OVERHEAD = (
    *("runtime.pcie", "runtime.nvlink", "runtime.xgmi", "rows", "logit", "graph", "graph.dcp"),
    *("graph.draft", "draft.weights", "draft.work", "lazy", "kt.rows", "sglang.token"),
    *("sglang.graph", "sglang.least", "llamacpp.runtime", "llamacpp.left"),
)
#: how near measurements may be, each with its spread
STANDINGS = ("measured", "generation", "scaled", "guess")
MARGINS = ("measured", "other")

Positive = Annotated[float, Meta(gt=0)]


class Parameter(Profile, frozen=True, kw_only=True):
    """One parameter of a model; `bench/fit_speed.py` and `bench/fit_memory.py` write `value`.

    `prior` is what it should be by physics or by the vendor's words, `width` how far it may be
    off (the standard deviation of its natural logarithm). A name with a dot is a factor on the
    parameter before the dot, for one GPU generation, engine or kind of link; links are absolute.
    """

    value: Positive
    prior: Positive
    width: Positive
    unit: str
    note: str
    source: str | None = None
    #: whether published measurements moved it: false is a guess
    fitted: bool = False


class Spread(Profile, frozen=True, kw_only=True):
    """Four of five measurements lie between prediction / `factor` and prediction × `factor`."""

    factor: Annotated[float, Meta(ge=1)]
    note: str
    guess: bool = False


class LoadRate(Profile, frozen=True, kw_only=True):
    """Bytes per second at which one machine reads weights, and seconds of start beside it."""

    slow: Positive
    typical: Positive
    fast: Positive
    start: Positive
    source: str
    note: str


class SpeedFile(Profile, frozen=True, kw_only=True):
    """`speed.yaml`."""

    source: str
    sources: dict[str, Source]
    parameters: dict[str, Parameter]
    #: measured: this GPU and engine · generation: its generation · scaled: by data sheet ·
    #: guess: nothing like it was measured
    spreads: dict[str, Spread]
    #: from a disk of the machine, and over a network file system
    load: LoadRate
    network: LoadRate

    def __post_init__(self) -> None:
        """Raise ValueError for a file that lacks what a prediction asks for."""
        _whole(self.parameters, SPEED, "parameters")
        _whole(self.spreads, STANDINGS, "spreads")


class Margin(Profile, frozen=True, kw_only=True):
    """Four of five logs lie within `bytes` of what was predicted."""

    bytes: Bytes
    note: str
    guess: bool = False


class OverheadFile(Profile, frozen=True, kw_only=True):
    """`overhead.yaml`: GPU memory beside weights and cache; bytes unless a unit says otherwise."""

    source: str
    sources: dict[str, Source]
    parameters: dict[str, Parameter]
    spreads: dict[str, Margin]

    def __post_init__(self) -> None:
        """Raise ValueError for a file that lacks what a prediction asks for."""
        _whole(self.parameters, OVERHEAD, "parameters")
        _whole(self.spreads, MARGINS, "spreads")


def _whole(found: Collection[str], needed: Sequence[str], what: str) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(f"`{what}` lacks {', '.join(f'`{name}`' for name in missing)}")
