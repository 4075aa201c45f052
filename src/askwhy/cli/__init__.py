"""The command line. Its verbs are the questions; a user's mistake is one sentence and exit code 1, wrong usage is 2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from askwhy.cli import dream, inside, overall
from askwhy.cli.said import errors_in_one_sentence, note, progress_bar
from askwhy.errors import Cancelled, UnsupportedError

if TYPE_CHECKING:
    from askwhy.cli.asking import Question
    from askwhy.cli.given import Given, Item
    from askwhy.cli.rows import Rows
    from askwhy.models.base import Model
    from askwhy.report import Case

MODEL = (
    "FILE.py:FUNCTION that returns anything askwhy.wrap takes, a saved model (.json, .ubj, .txt, .cbm, .onnx), an address (https://...), "
    "or a model of the zoo. Default: efficientnet-lite0 for photos, minilm-sentiment for texts."
)
app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help="Ask a trained model why.", pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from askwhy._version import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def explain(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE...]", help="Photos, one table (.csv, .tsv, .parquet), or with --data the model.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The table to explain, where the model is named first: askwhy explain model.json --data rows.csv.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A text to explain; may be given several times.")] = None,
    model: Annotated[str | None, typer.Option(help=MODEL)] = None,
    classes: overall.Classes = None,
    method: Annotated[
        str | None, typer.Option(help="Names of methods, with commas between; 'auto' chooses one; default: several that fit; see: askwhy methods.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="The class to explain, by label or number; 'all' for every output of trees. Default: the predicted one; for a table of two classes "
            "the second."
        ),
    ] = None,
    versus: Annotated[str | None, typer.Option(help="Explain why TARGET rather than this class.")] = None,
    column: Annotated[str | None, typer.Option(help="The column of the table that holds texts; each one is explained.")] = None,
    row: Annotated[
        list[int] | None,
        typer.Option(help="A row of the table, from 0; may be given several times. With --rows: one that gets a card of its own in the report."),
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Rows START:STOP of the table, as 0:20 for the first twenty. Default: all.")] = None,
    background: Annotated[
        Path | None,
        typer.Option(help="A table of usual rows to compare with. Default: other rows of the same table; for trees the training data in them."),
    ] = None,
    drop: overall.Drop = None,
    samples: Annotated[int | None, typer.Option(help="How many samples the methods take that sample.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the methods that sample.")] = 0,
    interactions: Annotated[bool, typer.Option("--interactions", help="Of trees also what pairs of columns do together.")] = False,
    output: Annotated[str | None, typer.Option(help="The scale of the values of trees: 'raw' (log odds, ...) or 'probability'.")] = None,
    out: Annotated[Path, typer.Option(help="The report to write (.html), or for texts and rows all numbers (.csv, .parquet, .npz).")] = Path(
        "report.html"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no file.")] = False,
) -> None:
    """Why did the model answer so? Explain photos, texts or rows of a table by one or several methods."""
    if not files and not text and not (model and data):
        raise typer.BadParameter("name photos or a table to explain, or give --text.")
    with errors_in_one_sentence():
        from askwhy.cli import asking, given, named, results

        if not as_json:
            results.check_writable(out)
        files, model = (files or [], model) if data is None else named.model_and_table(files or [], model, data)
        wish = given.Wish(text or (), column, row or (), rows, background, drop or ())
        kind = given.kind_of(files, wish)
        names = asking.method_names(method, "table" if kind == "row" and not wish.one_by_one else kind)
        if not as_json:
            results.check_holds(out, kind, names)
        options = {"seed": seed} | {k: v for k, v in (("samples", samples), ("interactions", interactions), ("output", output)) if v}
        asking.check_options(names, options)
        read = given.read(files, wish, everything=not as_json and out.suffix.lower() in results.NUMBERS)
        question = asking.Question(names, asking.as_class(target), asking.as_class(versus), options, background is not None)
        run(read, named.model_name(model, kind), classes, question, out, as_json)


app.command()(overall.importance)
app.command()(overall.effect)
app.command()(dream.dream)
app.command()(inside.inside)


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
        run(given.of_photos([str(zoo.photo_path("cat"))]), named.USUAL["photo"], None, question, out, False)


def run(given: Given, model_name: str, classes: str | None, question: Question, out: Path, as_json: bool) -> None:
    """Load the model, ask about everything, and write."""
    from askwhy.cli import named

    note(f"askwhy: loading {model_name}")
    model = named.load_model(model_name, classes)
    if given.rows is None:
        return about_items(model, given.items, given.kind, model_name, question, out, as_json)
    rows = given.rows(model)
    whole = not rows.one_by_one
    question = fitted_to(model, rows, question)
    if whole:
        return about_table(model, rows, model_name, question, out, as_json)
    return about_items(model, [rows.item(number) for number in rows.shown], "row", model_name, question, out, as_json)


def fitted_to(model: Model, rows: Rows, question: Question) -> Question:
    """The methods that suit this table; and what its rows are compared with is told."""
    from askwhy.cli import asking

    question = asking.fitted(question, model, rows.item(rows.table.index[0]))
    if any(map(question.compares, question.methods)):
        rows.check_comparable()
        note(f"askwhy: each row is compared with {rows.said}" + ("" if rows.background else "; --background FILE names a table of usual ones."))
    return question


def about_items(model: Model, items: Sequence[Item], kind: str, model_name: str, question: Question, out: Path, as_json: bool) -> None:
    """One after the other; after an interrupt, what there is."""
    from askwhy.cli import asking, results

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
        raise Cancelled(f"interrupted; {len(cases)} of {len(items)} {kind}s were explained, and they are in the result.")
    check_answered(items, cases)


def about_table(model: Model, rows: Rows, model_name: str, question: Question, out: Path, as_json: bool) -> None:
    """All rows by one method after the other; after an interrupt, what there is."""
    from askwhy.cli import results, whole

    question, answers, interrupted = whole.one_target(model, rows, question), whole.Answers(), False
    try:
        with progress_bar(whole.calls(question, rows)) as begin:
            whole.ask_whole(model, rows, question, begin, answers)
    except KeyboardInterrupt:
        if not answers.tables:
            raise
        interrupted = True
    if not answers.tables:
        whole.check_answered(rows, answers)
    if as_json:
        numbers = list(rows.table.index)
        results.print_json([rows.item(number) for number in numbers], list(whole.cases(model, rows, answers, numbers)))
    else:
        shown = rows.shown if out.suffix.lower() in results.PAGES else ()
        results.hand_over_tables(answers.tables, list(whole.cases(model, rows, answers, shown)), model_name, out)
    if interrupted:
        done = max(len(table.why) for table in answers.tables)
        raise Cancelled(f"interrupted; {done} of {len(rows.table)} rows were explained, and they are in the result.")
    whole.check_answered(rows, answers)


def check_answered(items: Sequence[Item], cases: Sequence[Case]) -> None:
    silent = [case.name for case in cases if not case.explanations]
    if silent:
        shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} more" if len(silent) > 5 else "")
        raise UnsupportedError(f"no method could explain {shown}; see the reasons above.")


def main() -> None:
    """The entry point of the command `askwhy`."""
    app()
