"""Which model does what is required: by what profiles say of thinking, images and benchmarks."""

from __future__ import annotations

from kimideploy.catalog.find import find_model
from kimideploy.catalog.types import Catalog, Model
from kimideploy.errors import RequestError
from kimideploy.planning.advice import Answer, Answers, Fired


def choose_model(answers: Answers, catalog: Catalog) -> tuple[Model, tuple[Fired, ...], list[str]]:
    """Return the model that does what is required, the rules that said so, and the others.

    The one that was asked for where it will do, else the newest that does. Raises RequestError
    when no model of the profiles does.
    """
    wanted = find_model(catalog, answers.model)
    newest = sorted(catalog.models.values(), key=lambda model: model.released, reverse=True)
    able = [m for m in [wanted, *(m for m in newest if m is not wanted)] if not _lacks(m, answers)]
    if not able:
        raise RequestError("no model of the profiles does all that is required of it")
    independent = {b.model: b for b in catalog.advice.benchmarks if b.independent}
    proven = [model for model in able if model.id in independent] if answers.benchmarks else []
    chosen = (proven or able)[0]
    fired = []
    if answers.non_thinking:
        fired.append(_non_thinking(wanted, able[0], chosen))
    if answers.images:
        text = f"{wanted.name} reads images, by API and self-hosted; video is for the API alone"
        if wanted.vision is None:
            text = f"{wanted.name} reads no images; {able[0].name} does"
        points: Answer | None = "other-model" if wanted.vision is None else None
        fired.append(Fired("images", points, "requirement", text, decides=points is not None))
    if answers.benchmarks:
        fired.append(_benchmarks(wanted, chosen, catalog))
    others = [_passed_over(model, answers, catalog) for model in newest if model is not chosen]
    return chosen, tuple(fired), others


def _lacks(model: Model, answers: Answers) -> str | None:
    if answers.non_thinking and model.thinking.mode in ("forced", "always"):
        return "it always thinks"
    if answers.images and model.vision is None:
        return "it reads no images"
    return None


def _non_thinking(wanted: Model, able: Model, chosen: Model) -> Fired:
    if wanted is able:
        text = f"{wanted.name} can answer without thinking"
        return Fired("non-thinking", None, "requirement", text)
    text = (
        f"{wanted.name} always thinks, by API and self-hosted; {able.name} is the newest of the"
        " family whose thinking can be switched off"
    )
    if chosen is not able:
        text += f", and so can that of {chosen.name}"
    return Fired("non-thinking", "other-model", "requirement", text, decides=True)


def _benchmarks(wanted: Model, chosen: Model, catalog: Catalog) -> Fired:
    figures = {
        b.model: f"{b.name} {b.percent:g} %, {'run by others' if b.independent else 'its vendor'}"
        for b in catalog.advice.benchmarks
    }
    known = [b for b in catalog.advice.benchmarks if b.model == chosen.id and b.independent]
    told = "; ".join(f"{catalog.models[name].name}: {figure}" for name, figure in figures.items())
    if not known:
        text = f"no figure that others than the vendor measured is known of what is left ({told})"
        return Fired("benchmarks", None, "note", text)
    date = catalog.advice.sources[known[0].source].date
    if chosen is wanted:
        text = f"{chosen.name} has a figure that others measured ({told}, {date})"
        return Fired("benchmarks", None, "preference", text)
    text = (
        f"{chosen.name} is the newest with a figure that others than its vendor measured"
        f" ({date}). {told}. Measure your own tasks before you believe any of them"
    )
    return Fired("benchmarks", "other-model", "preference", text, decides=True)


def _passed_over(model: Model, answers: Answers, catalog: Catalog) -> str:
    lacks = _lacks(model, answers)
    if lacks is not None:
        return f"{model.name}: {lacks}"
    independent = {b.model for b in catalog.advice.benchmarks if b.independent}
    if answers.benchmarks and model.id not in independent:
        return f"{model.name}: only its vendor's own figures are known"
    return f"{model.name} ({model.released}): does what is required, too"
