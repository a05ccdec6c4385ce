"""What predictions know beside arithmetic: parameters with a prior, and error bars."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from kimideploy.catalog.types import Profile, Source
from kimideploy.quantities import Bytes

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
    load: LoadRate


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
