"""`kimideploy verify`: what an endpoint promises, asked and judged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from kimideploy.cli.completion import models
from kimideploy.cli.options import JsonOpt, ProfilesOpt

if TYPE_CHECKING:
    from kimideploy.conformance.verdict import Verdict

EXAMPLES = [
    "kimideploy verify http://127.0.0.1:8000",
    "kimideploy verify https://api.moonshot.ai --api-key-file key --suite full",
    "kimideploy verify http://gpu1:8000 --suite vendor samples.jsonl",
    "kimideploy verify http://gpu1:8000 --against http://gpu2:8000 --json",
    "kimideploy verify http://gpu1:8000 --record run/ --junit verdict.xml",
    "kimideploy verify --replay run/",
]

KeyFileOpt = Annotated[
    Path | None,
    typer.Option("--api-key-file", metavar="FILE", help="the key to send, alone in a file"),
]


class Command(TyperCommand):
    """`--suite vendor FILE` names the file right behind the suite."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say the option that the bare word behind `vendor` stands for."""
        words: list[str] = []
        for word in args:
            behind = words[-2:] == ["--suite", "vendor"] or words[-1:] == ["--suite=vendor"]
            words += ["--samples", word] if behind and not word.startswith("-") else [word]
        return super().parse_args(ctx, words)


app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(cls=Command)
def verify(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="an OpenAI-compatible endpoint")
    ] = None,
    *,
    suite: Annotated[
        Literal["quick", "full", "vendor"],
        typer.Option("--suite", help="what is asked; vendor takes a file of requests behind it"),
    ] = "quick",
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="the name it serves under  [default: its first]"),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="MODEL",
            autocompletion=models,
            help="whose promises it must keep  [default: by its name, else kimi-k2.7-code]",
        ),
    ] = None,
    api_key_file: KeyFileOpt = None,
    against: Annotated[
        str | None, typer.Option(metavar="URL", help="another endpoint, asked the same")
    ] = None,
    against_key_file: Annotated[
        Path | None, typer.Option("--against-key-file", metavar="FILE", help="the other one's key")
    ] = None,
    samples: Annotated[
        Path | None,
        typer.Option("--samples", metavar="FILE", help="of suite vendor: a request body a line"),
    ] = None,
    expected: Annotated[
        Path | None,
        typer.Option("--expected", metavar="FILE", help="of suite vendor: results to agree with"),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            metavar="FILE",
            help="of suite vendor: where results go, and go on from  [default: beside the samples]",
        ),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=256, help="of suite vendor: requests at once")
    ] = 5,
    least_f1: Annotated[
        float | None,
        typer.Option("--least-f1", min=0, max=1, help="of suite vendor: the trigger F1 to reach"),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="DIR", help="keep what was asked and answered")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="DIR", help="judge a record again, without an endpoint")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write the verdict as JUnit XML, too")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=7200, help="seconds one request may take")
    ] = 600,
    deadline: Annotated[
        float, typer.Option(min=1, max=86400, help="seconds the whole run may take")
    ] = 3600,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31, help="draw the same code words again")
    ] = None,
    profiles: ProfilesOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Ask an endpoint for what it promises, and judge the answers.

    Reasoning in its field and used in later turns, tool calls parsed, nothing leaked, limits and
    refusals clear. Any OpenAI-compatible endpoint: your own, a hosted API, a proxy. The exit code
    is 1 where a promise is broken.
    """
    from kimideploy.catalog.load import load_catalog, user_overlays  # noqa: PLC0415
    from kimideploy.cli import verifying  # noqa: PLC0415
    from kimideploy.errors import RequestError  # noqa: PLC0415

    wrong = _contradiction(
        url, suite, samples=samples, expected=expected, results=results, record=record,
        replay=replay, against=against, least_f1=least_f1,
    )  # fmt: skip
    if wrong is not None:
        raise RequestError(wrong[0], hint=wrong[1])
    catalog = load_catalog(user_overlays(profiles or ()))
    with _progress(quiet=as_json) as tell:
        wanted = verifying.Wanted(
            catalog=catalog,
            model=model,
            profile=profile,
            suite=suite,
            timeout=timeout,
            deadline=deadline,
            seed=seed,
            samples=samples,
            expected=expected,
            results=results,
            concurrency=concurrency,
            least_f1=least_f1,
            tell=tell,
        )
        if replay is not None:
            verdict = verifying.replayed(replay, wanted)
        else:
            verdict = verifying.verified(str(url), api_key_file, wanted, record=record)
        other = None
        if against is not None:
            other = verifying.verified(against, against_key_file, wanted)
    _show(verdict, other, junit, as_json=as_json)
    if not verdict.ok:
        raise typer.Exit(1)


def _contradiction(  # noqa: PLR0911  one a contradiction
    url: str | None,
    suite: str,
    *,
    samples: Path | None,
    expected: Path | None,
    results: Path | None,
    record: Path | None,
    replay: Path | None,
    against: str | None,
    least_f1: float | None,
) -> tuple[str, str] | None:
    """What does not go together, and what helps."""
    vendor = suite == "vendor"
    if (url is None) == (replay is None):
        return "an endpoint's URL, or --replay DIR, is needed: one of them", "kimideploy verify URL"
    if vendor and samples is None:
        return "suite vendor needs requests", "--suite vendor samples.jsonl"
    if not vendor and any(one is not None for one in (samples, expected, results, least_f1)):
        return "samples, results and F1 are of the suite vendor", "--suite vendor FILE"
    if vendor and (record is not None or replay is not None):
        return "suite vendor keeps its own results, and has no record", "--results FILE"
    if replay is not None and record is not None:
        return "a replay makes no new record", "leave --record out"
    if against is not None and results is not None:
        return "--results is one file, and two endpoints are asked", "leave --results out"
    return None


def _show(verdict: Verdict, other: Verdict | None, junit: Path | None, *, as_json: bool) -> None:
    import msgspec  # noqa: PLC0415

    from kimideploy.errors import MachineError  # noqa: PLC0415
    from kimideploy.files import write_whole  # noqa: PLC0415
    from kimideploy.views.junit import junit as as_junit  # noqa: PLC0415
    from kimideploy.views.terminal import terminal  # noqa: PLC0415
    from kimideploy.views.verify import compared, shown  # noqa: PLC0415

    if junit is not None:
        try:
            both = (verdict,) if other is None else (verdict, other)
            write_whole(junit, as_junit(both))
        except OSError as error:
            raise MachineError(f"{junit} can't be written: {error.strerror}") from error
    if as_json:
        document = _document(verdict)
        if other is not None:
            document = {"a": document, "b": _document(other)}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document)).decode() + "\n")
        return
    look = terminal(sys.stdout)
    text = shown(verdict, look) if other is None else compared(verdict, other, look)
    sys.stdout.write(text)


def _document(verdict: Verdict) -> dict[str, Any]:
    import msgspec  # noqa: PLC0415

    document: dict[str, Any] = msgspec.to_builtins(verdict)
    return document | {"ok": verdict.ok, "score": verdict.score}


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """Yield what is told how far it is; a line that changes, on a terminal only."""
    import time  # noqa: PLC0415

    from kimideploy.views.amounts import span  # noqa: PLC0415
    from kimideploy.views.terminal import tame  # noqa: PLC0415

    began = time.monotonic()
    live = sys.stderr.isatty() and not quiet

    def tell(done: int, total: int, name: str) -> None:
        if not live:
            return
        took = time.monotonic() - began
        left = f", {span(took / done * (total - done))} left" if done and total > done else ""
        sys.stderr.write(f"\r\x1b[K{done}/{total} {tame(name)[:40]}{left}")
        sys.stderr.flush()

    try:
        yield tell
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
