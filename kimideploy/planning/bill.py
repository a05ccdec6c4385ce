"""Bill: what a traffic costs on machines like a plan's and by an API.

USD; tokens a day are input and output together; a month is 365/12 days.
"""

from __future__ import annotations

from kimideploy.facts.types import Strict
from kimideploy.planning.estimates import Range
from kimideploy.planning.traffic import ApiPrice, Rent, Traffic

COST_SCHEMA = "kimideploy.cost/1"


class Load(Strict, frozen=True):
    """One replica at one concurrency."""

    concurrency: int
    context: int
    #: tokens of the traffic per second, when it is always busy
    rate: Range
    #: output tok/s of all users while no prompt is read
    decode: Range
    #: output tok/s one user sees, the reading of others' prompts included
    per_user: Range
    #: share of its time that reading prompts takes
    reading: float
    #: what most of a decode step is spent on
    bound: str


class PerMillion(Strict, frozen=True):
    """USD per million tokens of each kind."""

    input: Range
    cached: Range
    output: Range
    #: of the traffic's mix
    blended: Range


class CurvePoint(Strict, frozen=True):
    """A month at one traffic."""

    tokens_per_day: float
    api: float
    machine: Range
    machines: int


class Bill(Strict, frozen=True):
    """What a traffic costs on machines like the plan's and by an API, and where they meet."""

    traffic: Traffic
    api: ApiPrice
    rent: Rent
    #: GPUs that are rented for one machine, and replicas of the plan on it
    gpus: int
    replicas: int
    #: hours a day the machine is paid for, loading included
    paid_hours: float
    #: USD
    machine_hour: Range
    #: machines the traffic needs, at typical speed
    machines: int
    #: share of the machines' busy hours that the traffic takes, at typical speed
    busy: float
    load: Load
    full: Load
    #: tokens a day of this mix that one machine takes
    capacity: Range
    #: USD a month
    machine_month: Range
    api_month: float
    #: at the predicted load, idle time included; and with every machine always busy
    per_million: PerMillion
    at_full_load: PerMillion
    #: tokens a day from which on one machine costs no more than the API; None: never
    break_even: Range | None
    curve: tuple[CurvePoint, ...]
    #: what decides it, a sentence each
    dominated_by: tuple[str, ...] = ()
    schema: str = COST_SCHEMA
