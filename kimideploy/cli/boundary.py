"""The one place where an exception becomes a sentence, a hint and an exit code."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from kimideploy.errors import KimiError

INTERRUPTED, BUG = 130, 70


class Boundary(TyperGroup):
    """A group of commands whose expected failures are never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; raises typer.Exit with the exit code of DESIGN for every failure."""
        try:
            return super().invoke(ctx)
        except KimiError as error:
            show(error.message, hint=error.hint, code=error.exit_code, kind=type(error).__name__)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError:
            # Why: the reader has what it wanted; the flush at exit must not complain either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except Exception as error:
            if hasattr(error, "format_message"):
                if not wants_json():
                    raise
                code = getattr(error, "exit_code", 2)
                show(error.format_message(), hint=None, code=code, kind="UsageError")
                raise typer.Exit(code) from error
            path = _report(error)
            show(
                f"this is a bug of kimideploy: {type(error).__name__}",
                hint=f"the traceback is in {path}",
                code=BUG,
                kind="Bug",
            )
            raise typer.Exit(BUG) from error


def wants_json() -> bool:
    """Whether the command line asks for JSON."""
    return "--json" in sys.argv[1:]


def show(message: str, *, hint: str | None, code: int, kind: str) -> None:
    """Write an error to stderr: words, or one JSON object with --json."""
    if wants_json():
        error = {"message": message, "hint": hint, "exit_code": code, "kind": kind}
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        return
    sys.stderr.write(f"error: {message}\n")
    if hint is not None:
        sys.stderr.write(f"\nhint: {hint}\n")


def _report(error: Exception) -> Path:
    import platformdirs  # noqa: PLC0415

    text = "".join(traceback.format_exception(error))
    for folder in (platformdirs.user_log_dir("kimideploy"), tempfile.gettempdir()):
        path = Path(folder) / f"crash-{os.getpid()}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError:
            continue
        return path
    sys.stderr.write(text)
    return Path("(stderr)")
