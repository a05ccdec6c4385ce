"""What a user says about traffic and prices, for the commands that tell what things cost."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimideploy.catalog.prices import Terms
from kimideploy.errors import RequestError

if TYPE_CHECKING:
    from kimideploy.catalog.types import Catalog
    from kimideploy.planning.estimates import Range
    from kimideploy.planning.traffic import ApiPrice, Rent, Traffic

_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMBT]?)", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_PRICE = r"[0-9]+(?:\.[0-9]+)?"
_PRICES = re.compile(rf"\$?({_PRICE})(?:-\$?({_PRICE}))?", re.ASCII)
_PROVIDER = re.compile(r"[A-Za-z][A-Za-z0-9.-]{0,63}", re.ASCII)
#: a longer word is a slip or an attack
_LONGEST = 64


def number(text: str, flag: str = "--tokens-per-day") -> float:
    """Return 34M as 34,000,000; RequestError for what is no such count."""
    found = _COUNT.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise RequestError(f"{flag} {text[:_LONGEST]!r} is not a count such as 250000, 34M or 1.5B")
    return float(found[1]) * _UNITS[found[2].lower()]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOptions:
    """What was said of the traffic and of prices; None where nothing was said."""

    tokens_per_day: Annotated[
        str | None,
        typer.Option(metavar="N", help="input and output together: 250000, 34M, 1.5B  [1M]"),
    ] = None
    input_output: Annotated[
        float | None, typer.Option(metavar="R", help="input tokens for each output token  [8]")
    ] = None
    cache_hit: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="share of the input that is in the cache  [0.5]"),
    ] = None
    hours_per_day: Annotated[
        float | None, typer.Option(metavar="H", help="hours in which the traffic comes  [24]")
    ] = None
    depth: Annotated[
        int | None,
        typer.Option(metavar="N", help="tokens a sequence holds while it is answered  [32768]"),
    ] = None
    gpu_price: Annotated[
        str | None,
        typer.Option(metavar="USD", help="a GPU-hour: 2.50, or from-to: 2.10-3.40"),
    ] = None
    terms: Annotated[Terms | None, typer.Option(help="how the GPUs are paid for  [on-demand]")] = (
        None
    )
    api_price: Annotated[
        str | None,
        typer.Option(
            metavar="IN/OUT[/CACHED]",
            help="USD per million tokens, or a provider: 0.95/4/0.19, deepinfra",
        ),
    ] = None

    def said(self) -> dict[str, Any]:
        """Return what was given, by field."""
        every = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in every if value is not None}

    def traffic(self) -> Traffic:
        """Return the traffic; RequestError that names the flag for what is none."""
        from kimideploy.planning.traffic import Traffic, check_traffic  # noqa: PLC0415

        said: dict[str, Any] = {
            "tokens_per_day": number(self.tokens_per_day)
            if self.tokens_per_day is not None
            else None,
            "input_per_output": self.input_output,
            "cache_hit": self.cache_hit,
            "hours_per_day": self.hours_per_day,
            "depth": self.depth,
        }
        traffic = Traffic(**{name: value for name, value in said.items() if value is not None})
        check_traffic(traffic)
        return traffic

    def rent(self, catalog: Catalog, gpu: str | None) -> Rent:
        """Return what a GPU-hour costs; RequestError where neither user nor profiles know."""
        rent = self.known_rent(catalog, gpu)
        if rent is None:
            terms = self.terms or "on-demand"
            card = catalog.gpus.get(gpu or "")
            name = card.name if card is not None else gpu or "a machine without GPUs"
            raise RequestError(
                f"no {terms} price of {name} is known",
                hint="say what it costs: --gpu-price 2.50",
            )
        return rent

    def known_rent(self, catalog: Catalog, gpu: str | None) -> Rent | None:
        """Return what a GPU-hour costs, None where neither user nor profiles know."""
        from kimideploy.planning.traffic import rent_of  # noqa: PLC0415

        said = _range(self.gpu_price) if self.gpu_price is not None else None
        return rent_of(catalog, gpu, self.terms or "on-demand", said=said)

    def api(self, catalog: Catalog, model: str) -> ApiPrice:
        """Return what the API takes for *model*, by the user or by the profiles."""
        from kimideploy.planning.traffic import api_of  # noqa: PLC0415

        word = self.api_price
        if word is None:
            return api_of(catalog, model)
        if _PROVIDER.fullmatch(word):
            return api_of(catalog, model, provider=word)
        return api_of(catalog, model, prices=_api_prices(word))


def _range(text: str) -> Range:
    from kimideploy.planning.estimates import Range  # noqa: PLC0415

    found = _PRICES.fullmatch(text) if len(text) <= _LONGEST else None
    if found is None:
        raise RequestError(
            f"--gpu-price {text[:_LONGEST]!r} is not USD for an hour, such as 2.50 or 2.10-3.40"
        )
    low = float(found[1])
    high = float(found[2]) if found[2] is not None else low
    # Why the geometric mean: prices are off by factors
    return Range(low=low, typical=math.sqrt(low * high), high=high)


def _api_prices(text: str) -> tuple[float, ...]:
    parts = text.split("/") if len(text) <= _LONGEST else []
    if len(parts) not in (2, 3) or not all(
        re.fullmatch(rf"\$?{_PRICE}", p, re.ASCII) for p in parts
    ):
        raise RequestError(
            f"--api-price {text[:_LONGEST]!r} is not USD per million tokens, IN/OUT or"
            " IN/OUT/CACHED, such as 0.95/4/0.19"
        )
    return tuple(float(part.removeprefix("$")) for part in parts)
