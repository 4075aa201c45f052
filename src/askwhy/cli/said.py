"""What the command line says beside its answers, on the error channel."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from askwhy.errors import AskwhyError

Begin = Callable[[str], Any]  # what is asked now -> a progress callback


def note(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """A user's mistake, or an interrupt, without a traceback."""
    try:
        yield
    except AskwhyError as error:
        note(f"askwhy: {error}".replace("wrap(model, labels=[...])", "name the classes with --classes"))
        raise typer.Exit(1) from None
    except MemoryError:
        note("askwhy: there is not enough memory for this; ask about fewer rows at a time, as with --rows 0:1000, or for less about each.")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        note("askwhy: interrupted; nothing was written.")
        raise typer.Exit(1) from None


@contextmanager
def progress_bar(calls: int) -> Iterator[Begin]:
    """How far the call in progress is, and all of them, with the time left, on the terminal's error channel."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        now, whole = bar.add_task("", total=None), bar.add_task(f"all {calls}", total=calls, visible=calls > 1)
        begun = iter(range(calls))

        def begin(text: str) -> Any:
            bar.update(whole, completed=next(begun, calls))
            bar.reset(now, description=escape(text), total=None)
            return lambda done, total: bar.update(now, completed=done, total=total)

        yield begin
        bar.update(whole, completed=calls)
