"""What GPUs rent for and what APIs take, as published: `prices.yaml`.

USD for one GPU and hour, USD for a million tokens.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from kimideploy.catalog.types import Profile, Source

Terms = Literal["on-demand", "spot", "owned"]
Price = Annotated[float, Meta(gt=0, le=10_000)]


class Rent(Profile, frozen=True, kw_only=True):
    """One provider's price of one GPU for an hour."""

    gpu: str
    terms: Terms
    provider: str
    usd: Price
    source: str
    note: str | None = None


class Api(Profile, frozen=True, kw_only=True):
    """One provider's prices of a million tokens; `cached` is input that its cache holds."""

    model: str
    provider: str
    input: Price
    output: Price
    cached: Price | None = None
    source: str
    note: str | None = None


class PriceFile(Profile, frozen=True, kw_only=True):
    """`prices.yaml`."""

    sources: dict[str, Source]
    gpus: tuple[Rent, ...]
    #: the model's own maker first
    apis: tuple[Api, ...]

    def rents(self, gpu: str | None, terms: Terms) -> tuple[Rent, ...]:
        """Return the newest price of each provider for *gpu*, cheapest first."""
        newest: dict[str, Rent] = {}
        for rent in self.gpus:
            if (rent.gpu, rent.terms) != (gpu, terms):
                continue
            known = newest.get(rent.provider)
            if known is None or self._date(rent) >= self._date(known):
                newest[rent.provider] = rent
        return tuple(sorted(newest.values(), key=lambda rent: rent.usd))

    def dates(self, rents: tuple[Rent, ...]) -> tuple[str, str]:
        """Return the first and the last day of *rents*, of which there is at least one."""
        days = sorted(self._date(rent) for rent in rents)
        return days[0], days[-1]

    def api(self, model: str, provider: str | None = None) -> Api | None:
        """Return what *provider*, or the first one known, takes for *model*."""
        return next(
            (a for a in self.apis if a.model == model and provider in (None, a.provider)), None
        )

    def _date(self, rent: Rent) -> str:
        return self.sources[rent.source].date
