"""Range, Estimate, Speed: what a plan is predicted to do, with an error bar on every number.

Tokens per second, seconds. `low`..`high` covers four of five published measurements of the kind
the model was fitted to, left out one source at a time (`docs/accuracy.md`).
"""

from __future__ import annotations

from kimideploy.facts.types import Strict

#: tokens a sequence holds where loads are told and compared: an agent at work
DEPTH = 32_768


class Range(Strict, frozen=True):
    """A prediction and its error bar: low ≤ typical ≤ high."""

    low: float
    typical: float
    high: float

    def times(self, factor: float) -> Range:
        """Return all three, *factor* times as much."""
        return Range(self.low * factor, self.typical * factor, self.high * factor)


class Nearest(Strict, frozen=True):
    """The published measurement most like a prediction."""

    id: str
    #: what was measured, in words: model, GPUs, engine, layout, concurrency, context
    what: str
    #: output tok/s over all users
    value: float
    url: str
    date: str
    #: what is predicted for the plan under the load of that measurement, tok/s over all users
    predicted: float | None = None


class Estimate(Strict, frozen=True):
    """Decoding at one load: `concurrency` users whose sequences hold `context` tokens each."""

    concurrency: int
    context: int
    #: output tok/s one user sees
    per_user: Range
    #: output tok/s of the whole deployment
    total: Range
    #: what most of a step is spent on: latency, experts, attention, weights, links, host memory
    bound: str


class Speed(Strict, frozen=True):
    """How fast a plan is predicted to be. `points` lack loads the KV cache does not hold."""

    points: tuple[Estimate, ...]
    #: input tok/s of the whole deployment while it reads prompts
    prefill: Range
    #: tokens of the prompt `ttft` is for
    prompt: int
    #: seconds from a request to its first token on an idle server
    ttft: Range
    #: seconds from the start of the command to readiness, weights on a local disk
    load: Range
    #: the same over a network file system, such as Lustre, Weka or NFS
    load_network: Range
    #: where the numbers come from, in words
    basis: str
    nearest: Nearest | None = None
