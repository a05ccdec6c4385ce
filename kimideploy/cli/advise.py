"""`kimideploy advise`: the API, a machine of one's own, or another model, and why."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimideploy.cli.completion import hardware_words
from kimideploy.cli.options import JsonOpt, ProfilesOpt, takes
from kimideploy.cli.traffic import TrafficOptions, number

if TYPE_CHECKING:
    from kimideploy.planning.advice import Answers
    from kimideploy.planning.traffic import Traffic

EXAMPLES = [
    "kimideploy advise",
    "kimideploy advise --tokens-per-day 50M --cache-hit 0.8",
    "kimideploy advise --air-gapped --hardware 8xH200 --hardware 4xB300",
    "kimideploy advise --non-thinking --tokens-per-day 2M",
    "kimideploy advise --tokens-per-day 1B --gpu-price 2.50 --json",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What was said of the work, question by question; None where nothing was said."""

    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="the model you have in mind")
    ] = None
    air_gapped: Annotated[
        bool | None,
        typer.Option("--air-gapped/--no-air-gapped", help="data must not leave your machines"),
    ] = None
    api_only: Annotated[
        bool | None, typer.Option("--api-only/--no-api-only", help="no machines of your own")
    ] = None
    prototype: Annotated[
        bool | None, typer.Option("--prototype/--no-prototype", help="it may not last")
    ] = None
    inspect_reasoning: Annotated[
        bool | None,
        typer.Option(
            "--inspect-reasoning/--no-inspect-reasoning", help="the reasoning is read or kept"
        ),
    ] = None
    non_thinking: Annotated[
        bool | None,
        typer.Option("--non-thinking/--thinking", help="answers without thinking are needed"),
    ] = None
    images: Annotated[bool | None, typer.Option("--images/--no-images", help="it reads images")] = (
        None
    )
    benchmarks: Annotated[
        bool | None,
        typer.Option(
            "--benchmarks/--no-benchmarks", help="only figures that others than the vendor measured"
        ),
    ] = None
    monthly_budget: Annotated[
        float | None, typer.Option(metavar="USD", help="the most it may cost")
    ] = None
    hardware: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WORD",
            autocompletion=hardware_words,
            help="a machine to weigh: 8xH200, 1xRTX4090+512GiB; repeatable  [several]",
        ),
    ] = None

    def said(self) -> dict[str, Any]:
        """Return what was given, by field."""
        every = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in every if value is not None and value != []}


#: what a dialogue asks and the answer lists when nobody said it: flag → question
_QUESTIONS = {
    "tokens_per_day": "tokens a day, input and output together",
    "input_output": "input tokens for each output token",
    "cache_hit": "share of the input that is in the cache, 0 to 1",
    "hours_per_day": "hours a day in which the traffic comes",
    "air_gapped": "must the data stay on your own machines",
    "non_thinking": "do you need answers without thinking",
    "inspect_reasoning": "will someone read or keep the reasoning",
    "images": "does it have to read images",
    "benchmarks": "only a model with figures that others than its vendor measured",
    "prototype": "is it a prototype that may not last",
}


@takes(Needs, name="needs")
@takes(TrafficOptions, name="traffic")
def advise(
    *,
    needs: Needs,
    traffic: TrafficOptions,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Say whether the API, your own machine or another model is the choice, and why.

    Costs are worked out for your traffic from prices and predicted speed.
    Without options on a terminal it asks; elsewhere what is not said is taken as a default,
    which the answer lists. The exit code is 1 when data must stay and no machine holds the model.
    """
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.planning.advise import advise as advised  # noqa: PLC0415
    from kimideploy.planning.types import encode  # noqa: PLC0415

    if not needs.said() and not traffic.said() and sys.stdin.isatty() and sys.stderr.isatty():
        needs, traffic = asked()
    catalog = load_catalog(user_overlays(profiles or ()))
    advice = advised(
        _answers(needs, traffic),
        catalog,
        rents=lambda gpu: traffic.known_rent(catalog, gpu),
        price=lambda model: traffic.api(catalog, model),
    )
    if as_json:
        sys.stdout.write(encode(advice).decode())
    else:
        from kimideploy.views.advise import shown  # noqa: PLC0415
        from kimideploy.views.terminal import terminal  # noqa: PLC0415

        sys.stdout.write(shown(advice, terminal(sys.stdout)))
    if advice.place == "self-host" and advice.best is None:
        raise typer.Exit(1)


def asked() -> tuple[Needs, TrafficOptions]:
    """Return what the user answers on the terminal; the questions go to stderr."""
    from kimideploy.planning.traffic import Traffic  # noqa: PLC0415

    usual = _usual(Traffic())
    numbers: dict[str, Any] = {}
    needs: dict[str, Any] = {}
    typer.echo("Enter takes what is in brackets, Ctrl-C leaves.", err=True)
    for name, question in _QUESTIONS.items():
        # Why: `check` would refuse both, and a dialogue must not end in an error it asked for.
        if name == "inspect_reasoning" and needs.get("non_thinking"):
            continue
        text = question[0].upper() + question[1:]
        if name in usual:
            numbers[name] = _prompted(name, text, usual[name])
        else:
            needs[name] = typer.confirm(f"{text}?", default=False, err=True)
    words = typer.prompt(
        "Hardware to weigh, such as 8xH200 4xB300 (several are tried)",
        default="",
        show_default=False,
        err=True,
    )
    if words.split():
        needs["hardware"] = words.split()
    return Needs(**needs), TrafficOptions(**numbers)


def _prompted(name: str, text: str, usual: str) -> Any:
    """Ask until the number is one that this question can have."""
    from kimideploy.errors import RequestError  # noqa: PLC0415

    while True:
        word = typer.prompt(text, default=usual, err=True)
        try:
            value: Any = word if name == "tokens_per_day" else number(word, "it")
            said: dict[str, Any] = {name: value}
            TrafficOptions(**said).traffic()
        except RequestError as error:
            typer.echo(f"  {error.message}", err=True)
        else:
            return value


def _usual(traffic: Traffic) -> dict[str, str]:
    """Return the default of each number that is asked for, as one writes it."""
    from kimideploy.planning.words import tokens  # noqa: PLC0415

    return {
        "tokens_per_day": tokens(traffic.tokens_per_day),
        "input_output": f"{traffic.input_per_output:g}",
        "cache_hit": f"{traffic.cache_hit:g}",
        "hours_per_day": f"{traffic.hours_per_day:g}",
    }


def _answers(needs: Needs, traffic: TrafficOptions) -> Answers:
    from kimideploy.planning.advice import Answers  # noqa: PLC0415

    work = traffic.traffic()
    said = needs.said() | traffic.said()
    usual = _usual(work)
    assumed = tuple(
        f"{question}: {usual.get(name, 'no')}  --{name.replace('_', '-')}"
        for name, question in _QUESTIONS.items()
        if name not in said
    )
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in needs.said().items()
    }
    return Answers(traffic=work, assumed=assumed, **given)
