"""Traffic, ApiPrice, Rent: what a cost is worked out from, and where it comes from.

USD; tokens a day are input and output together.
"""

from __future__ import annotations

from math import isfinite
from statistics import quantiles

from kimideploy.catalog.find import find_model
from kimideploy.catalog.prices import Terms
from kimideploy.catalog.types import Catalog
from kimideploy.errors import RequestError
from kimideploy.facts.types import Strict
from kimideploy.planning.estimates import DEPTH, Range

#: no deployment does a thousandth of this
_MOST_TOKENS = 1e15
_MOST_RATIO = 1e6
_MOST_CONTEXT = 1 << 24
_MOST_USD = 1e4
#: from so many offers on the quartiles say more than the ends, which are odd ones
_MANY = 5


class Traffic(Strict, frozen=True):
    """Work for a model: how much, of what kind, when, and how long its sequences are."""

    #: input and output together
    tokens_per_day: float = 1e6
    #: input tokens for each output token
    input_per_output: float = 8.0
    #: share of the input that a prefix cache holds, 0 … 1
    cache_hit: float = 0.5
    #: hours of a day in which the traffic comes, evenly
    hours_per_day: float = 24.0
    #: tokens a sequence holds while it is answered
    depth: int = DEPTH

    @property
    def output(self) -> float:
        """Output tokens for each token of the traffic."""
        return 1 / (1 + self.input_per_output)

    @property
    def cached(self) -> float:
        """Input tokens from the cache for each token of the traffic."""
        return (1 - self.output) * self.cache_hit

    @property
    def fresh(self) -> float:
        """Input tokens to be read for each token of the traffic."""
        return (1 - self.output) * (1 - self.cache_hit)


class ApiPrice(Strict, frozen=True):
    """USD per million tokens; `cached` is input that the provider's cache holds."""

    input: float
    output: float
    cached: float
    provider: str
    url: str | None = None
    date: str | None = None

    def blended(self, traffic: Traffic) -> float:
        """Return USD per million tokens of *traffic*."""
        return (
            self.input * traffic.fresh + self.cached * traffic.cached + self.output * traffic.output
        )


class Rent(Strict, frozen=True):
    """USD for one GPU and hour, whether it is paid around the clock, and where it is from."""

    gpu_hour: Range
    #: bought or reserved: it costs the same when no traffic comes
    always: bool
    basis: str


def check_traffic(traffic: Traffic) -> None:
    """Raise RequestError that names the first number of *traffic* that no traffic has."""
    limits: tuple[tuple[str, float, float, float], ...] = (
        ("--tokens-per-day", traffic.tokens_per_day, 1, _MOST_TOKENS),
        ("--input-output", traffic.input_per_output, 0, _MOST_RATIO),
        ("--cache-hit", traffic.cache_hit, 0, 1),
        ("--hours-per-day", traffic.hours_per_day, 1 / 60, 24),
        ("--depth", traffic.depth, 1, _MOST_CONTEXT),
    )
    for flag, value, least, most in limits:
        if not (isfinite(value) and least <= value <= most):
            raise RequestError(f"{flag} {value:g} is not between {least:.3g} and {most:g}")


def check_prices(gpu_hour: Range, api: ApiPrice) -> None:
    """Raise RequestError that names the first price that nobody takes."""
    for flag, value in (
        ("--gpu-price", gpu_hour.low),
        ("--gpu-price", gpu_hour.high),
        ("--api-price", api.input),
        ("--api-price", api.output),
        ("--api-price", api.cached),
    ):
        if not (isfinite(value) and 0 < value <= _MOST_USD):
            raise RequestError(f"{flag} {value:g} is no price in USD")
    if not gpu_hour.low <= gpu_hour.typical <= gpu_hour.high:
        raise RequestError("--gpu-price goes from the lower price to the higher one")
    if api.cached > api.input:
        raise RequestError(
            f"--api-price {api.cached:g} for cached input is more than {api.input:g} for fresh"
        )


def rent_of(
    catalog: Catalog, gpu: str | None, terms: Terms = "on-demand", *, said: Range | None = None
) -> Rent | None:
    """Return what a GPU-hour of *gpu* costs: as *said*, or by `prices.yaml`; None: unknown.

    Typical is the median of the providers. The ends are the quartiles, and of fewer than five
    providers the cheapest and the dearest.
    """
    always = terms == "owned"
    if said is not None:
        return Rent(said, always, "as given")
    rents = catalog.prices.rents(gpu, terms)
    if not rents:
        return None
    prices = [rent.usd for rent in rents]
    low, middle, high = (
        quantiles(prices, n=4, method="inclusive") if len(prices) > 1 else prices * 3
    )
    if len(prices) < _MANY:
        low, high = prices[0], prices[-1]
    first, last = catalog.prices.dates(rents)
    day = first if first == last else f"{first} to {last}"
    who = rents[0].provider if len(rents) == 1 else f"{len(rents)} providers"
    return Rent(Range(low, middle, high), always, f"{terms}, {who}, {day}")


def api_of(
    catalog: Catalog,
    model: str,
    *,
    provider: str | None = None,
    prices: tuple[float, ...] | None = None,
) -> ApiPrice:
    """Return what an API takes for *model*: *prices* as (input, output[, cached]) where given.

    Raises RequestError for a provider whose price is not known.
    """
    if prices is not None:
        fresh, output, *rest = prices
        return ApiPrice(fresh, output, rest[0] if rest else fresh, "as given")
    name = find_model(catalog, model).id
    api = catalog.prices.api(name, provider)
    if api is None:
        known = [a.provider for a in catalog.prices.apis if a.model == name]
        raise RequestError(
            f"no price of {provider or 'an API'} for {name} is known",
            hint=f"known: {', '.join(known)}; or --api-price 0.95/4/0.19" if known else None,
        )
    source = catalog.prices.sources[api.source]
    cached = api.cached if api.cached is not None else api.input
    return ApiPrice(api.input, api.output, cached, api.provider, source.url, source.date)
