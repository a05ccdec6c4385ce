"""The error boundary: every exception becomes a sentence, a hint and a number, in one place.

What a command raises      exit code   what is shown on stderr
KimiError                  its own     error: …, and hint: … where there is one
a usage error of Typer     2           likewise
KeyboardInterrupt          130         nothing
BrokenPipeError of stdout  0           nothing: the reader has read enough
OSError of a full stdout   3           one sentence
any other Exception        70          one sentence with the path of the traceback

With `--json` among the command's words the error is one JSON object instead.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from kimideploy.errors import KimiError, MachineError

USAGE, BUG, INTERRUPTED = 2, 70, 130
#: what a file or device says that stdout leads to and that takes no more
_OUTPUT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Shown(NamedTuple):
    """An error as it is shown; `kind` is request, machine, weights, engine, busy or bug."""

    kind: str
    message: str
    hint: str | None
    exit_code: int


class Boundary(TyperGroup):
    """The root group: `main` ends every call with an exit code of the table, never a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  Typer's own signature
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> Any:
        """Run the command that *args* name; returns its exit code unless *standalone_mode*."""
        words = list(sys.argv[1:] if args is None else args)

        def run() -> Any:
            result = super(Boundary, self).main(
                args=args,
                prog_name=prog_name,
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
            # Why here: what is still buffered fails at exit otherwise, where nobody catches it.
            sys.stdout.flush()
            return result

        code = _guarded(run, words)
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a pipe that broke is the reader's leave, or a bug."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # Why here: Typer ends a broken pipe, whosever it was, with exit code 1.
            if not _reader_left():
                raise RuntimeError("a pipe or connection of the command broke") from error
            raise typer.Exit from error


def _guarded(run: Any, words: Sequence[str]) -> int:
    try:
        result = run()
    except KimiError as error:
        kind = type(error).__name__.removesuffix("Error").lower()
        return _show(Shown(kind, error.message, error.hint, error.exit_code), words)
    except typer.TyperException as error:
        return _show(_usage(error), words)
    except (KeyboardInterrupt, typer.Abort):
        _reader_left()
        return INTERRUPTED
    except BrokenPipeError as error:
        return 0 if _reader_left() else _show(_bug(error), words)
    except Exception as error:  # noqa: BLE001  the boundary is where a bug ends
        return _show(_full(error) or _bug(error), words)
    return result if isinstance(result, int) else 0


def _usage(error: typer.TyperException) -> Shown:
    """A usage error in our words; "no arguments" carries the whole help as its message."""
    text = error.format_message().strip()
    context = getattr(error, "ctx", None)
    if text.startswith("Usage:"):
        return Shown("help", text, None, error.exit_code)
    path = context.command_path if context is not None else "kimideploy"
    return Shown(
        "request", text[:1].lower() + text[1:].rstrip("."), f"{path} --help", error.exit_code
    )


def _show(shown: Shown, words: Sequence[str]) -> int:
    # Why suppress: whoever reads stderr may be gone; the exit code still says what happened.
    with suppress(OSError):
        if shown.kind == "help":
            sys.stderr.write(f"{shown.message}\n")
        elif wants_json(words):
            import json  # noqa: PLC0415

            sys.stderr.write(json.dumps({"error": shown._asdict()}, ensure_ascii=True) + "\n")
        else:
            sys.stderr.write(_printable(f"error: {shown.message}\n"))
            if shown.hint is not None:
                sys.stderr.write(_printable(f"\nhint: {shown.hint}\n"))
    return shown.exit_code


def wants_json(words: Sequence[str]) -> bool:
    """Return whether `--json` is among *words*, before a `--` that ends the options."""
    options = words[: words.index("--")] if "--" in words else words
    return "--json" in options


def _printable(text: str) -> str:
    """Return *text* as stderr's encoding can show it, and without what steers a terminal."""
    encoding = sys.stderr.encoding or "ascii"
    # Why: a message may quote a file or a server, and these may say anything.
    tame = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return tame.encode(encoding, "backslashreplace").decode(encoding)


def _full(error: Exception) -> Shown | None:
    """An output that takes no more, in words; None for any other error."""
    if not isinstance(error, OSError) or error.filename or error.errno not in _OUTPUT:
        return None
    message = f"the output can't be written: {error.strerror}"
    return Shown("machine", message, None, MachineError.exit_code)


def _bug(error: Exception) -> Shown:
    message = f"this is a bug of kimideploy: {type(error).__name__}"
    try:
        path = _write_traceback(error)
    except OSError as failure:
        return Shown("bug", f"{message}; no traceback was saved: {failure}", None, BUG)
    return Shown("bug", f"{message}; the traceback is in {path}", None, BUG)


def _write_traceback(error: Exception) -> str:
    """Write the traceback to a new file that only its owner reads; returns the path."""
    import platform  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    import traceback  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from platformdirs import user_log_dir  # noqa: PLC0415

    from kimideploy import __version__  # noqa: PLC0415

    folder: Path | None = Path(user_log_dir("kimideploy"))
    try:
        Path(str(folder)).mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = None
    handle, path = tempfile.mkstemp(prefix="kimideploy-", suffix=".traceback", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"kimideploy {__version__}, Python {platform.python_version()}, ")
        file.write(f"{platform.platform()}\n")
        file.writelines(traceback.format_exception(error))
    return path


def _reader_left() -> bool:
    """Return whether the reader of stdout or stderr is gone; what is buffered then goes nowhere."""
    left = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if _broken(stream.fileno()):
                left = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return left


def _broken(descriptor: int) -> bool:
    import select  # noqa: PLC0415

    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
