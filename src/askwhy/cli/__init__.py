"""The command line. Its verbs are the questions; a user's mistake is one sentence and exit code 1, wrong usage is 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from askwhy.cli.said import errors_in_one_sentence, note, progress_bar
from askwhy.errors import Cancelled, UnsupportedError

if TYPE_CHECKING:
    from askwhy.cli.asking import Question
    from askwhy.cli.given import Given, Item
    from askwhy.report import Case

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="Ask a trained model why.", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from askwhy._version import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def explain(
    files: Annotated[list[str] | None, typer.Argument(metavar="[FILE...]", help="Photos, or one table (.csv, .tsv).")] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to explain; may be given several times.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="FILE.py:FUNCTION that returns anything askwhy.wrap takes, a saved model (.onnx, .json, .cbm, ...), an address (https://...), "
            "or a model of the zoo. Default: efficientnet-lite0 for photos, minilm-sentiment for texts."
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Names of methods, with commas between; 'auto' chooses one; default: several that fit; see: askwhy methods.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The class to explain, by label or number. Default: the predicted one.")] = None,
    versus: Annotated[str | None, typer.Option(help="Explain why TARGET rather than this class.")] = None,
    column: Annotated[str | None, typer.Option(help="The column of the table that holds texts; each one is explained.")] = None,
    row: Annotated[list[int] | None, typer.Option(help="A row of the table, from 0; may be given several times.")] = None,
    rows: Annotated[str | None, typer.Option(help="Rows START:STOP of the table, as 0:20 for the first twenty.")] = None,
    background: Annotated[Path | None, typer.Option(help="A table of usual rows to compare with. Default: other rows of the same table.")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column that is not for the model; may be given several times.")] = None,
    samples: Annotated[int | None, typer.Option(help="How many samples the methods take that sample.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the methods that sample.")] = 0,
    out: Annotated[Path, typer.Option(help="The report to write (.html), or for texts and rows all numbers (.csv, .npz).")] = Path("report.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no file.")] = False,
) -> None:
    """Why did the model answer so? Explain photos, texts or rows of a table by one or several methods."""
    if not files and not text:
        raise typer.BadParameter("name photos or a table to explain, or give --text.")
    with errors_in_one_sentence():
        from askwhy.cli import asking, given, named, results

        if not as_json:
            results.check_writable(out)
        wish = given.Wish(text or (), column, row or (), rows, background, drop or ())
        kind = given.kind_of(files or [], wish)
        names = asking.method_names(method, kind)
        if not as_json:
            results.check_holds(out, kind, names)
        options = {"seed": seed} | ({} if samples is None else {"samples": samples})
        asking.check_options(names, options)
        read = given.read(files or [], wish, everything=not as_json and out.suffix.lower() in results.NUMBERS)
        question = asking.Question(names, as_class(target), as_class(versus), options)
        run(read, named.model_name(model, kind), question, out, as_json)


@app.command()
def methods(as_json: Annotated[bool, typer.Option("--json", help="Print the table for other programs.")] = False) -> None:
    """List the methods: what each one asks, and what it needs."""
    with errors_in_one_sentence():
        from askwhy.registry import methods as known

        columns = ("name", "question", "scope", "when", "access", "needs", "inputs", "asks", "reads", "paper")
        if as_json:
            print(json.dumps([{c: getattr(m, c) for c in columns} for m in known()], indent=2))
            return
        for m in known():
            print(f"{m.name}  (needs {m.needs}; for {', '.join(m.inputs)}; {m.scope}, {m.when}, {m.access})")
            print(f"    {m.asks}")


@app.command()
def demo(out: Annotated[Path, typer.Option(help="The report to write.")] = Path("askwhy-demo.html")) -> None:
    """Ask EfficientNet-Lite0, a real ImageNet network, why it calls a real photo a cat."""
    with errors_in_one_sentence():
        from askwhy import zoo
        from askwhy.cli import asking, given, named, results

        results.check_writable(out)
        question = asking.Question(asking.DEMO_METHODS.split(","), options={"seed": 0})
        run(given.of_photos([str(zoo.photo_path("cat"))]), named.USUAL["photo"], question, out, False)


def run(given: Given, model_name: str, question: Question, out: Path, as_json: bool) -> None:
    """Ask about everything, then write; after an interrupt, what there is."""
    from askwhy.cli import asking, named, results

    note(f"askwhy: loading {model_name}")
    model = named.load_model(model_name)
    items = given.items(model)
    question = asking.fitted(question, model, items[0])
    cases: list[Case] = []
    interrupted = False
    try:
        with progress_bar(len(items) * len(question.methods)) as begin:
            for item in items:
                cases.append(asking.ask_all(model, item, question, begin))
    except KeyboardInterrupt:
        if not cases:
            raise
        interrupted = True
    results.hand_over(items, cases, model_name, out, as_json)
    if interrupted:
        raise Cancelled(f"interrupted; {len(cases)} of {len(items)} {given.kind}s were explained, and they are in the result.")
    check_answered(items, cases)


def check_answered(items: list[Item], cases: list[Case]) -> None:
    silent = [case.name for case in cases if not case.explanations]
    if silent:
        shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
        raise UnsupportedError(f"no method could explain {shown}; see the reasons above.")


def as_class(text: str | None) -> Any:
    """A class number is typed as text; anything else is a label."""
    return int(text) if text is not None and text.isdigit() else text


def main() -> None:
    """The entry point of the command `askwhy`."""
    app()
