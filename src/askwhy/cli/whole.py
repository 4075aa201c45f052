"""Every method about all rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from askwhy.cli.asking import Question, parameters_of, top_classes
from askwhy.cli.results import joined
from askwhy.cli.rows import Rows
from askwhy.cli.said import Begin, note
from askwhy.errors import AskwhyError, InputError, LayerError, ModelError, UnsupportedError

if TYPE_CHECKING:
    import pandas

    from askwhy.explanation import Explanation
    from askwhy.models.base import Model
    from askwhy.report import Case, Table

TOLD = 5  # rows whose refusal is told one by one


@dataclass(eq=False)
class Answers:
    """What was found so far; after an interrupt, what there is."""

    tables: list[Table] = field(default_factory=list)
    refused: list[tuple[str, AskwhyError]] = field(default_factory=list)
    silent: dict[tuple[str, int], str] = field(default_factory=dict)  # method and row that it could not explain -> why

    def reasons(self, number: int) -> list[tuple[str, str]]:
        """Which methods refused a row, and what they said."""
        alone = [(method, said) for (method, row), said in self.silent.items() if row == number]
        return [(method, str(error)) for method, error in self.refused] + alone


def calls(question: Question, rows: Rows) -> int:
    """How often methods are called, for the progress bar."""
    return sum(1 if at_once(method) else len(rows.table) for method in question.methods)


def at_once(method: str) -> bool:
    """What draws at random is asked row by row, so that a row has the same numbers alone and among others."""
    return "seed" not in parameters_of(method)


def ask_whole(model: Model, rows: Rows, question: Question, begin: Begin, answers: Answers) -> None:
    """A method that refuses is noted, and the others go on."""
    for method in question.methods:
        try:
            (ask_at_once if at_once(method) else ask_one_by_one)(model, rows, method, question, begin, answers)
        except (InputError, UnsupportedError, ModelError, LayerError) as error:
            answers.refused.append((method, error))
            if len(question.methods) > 1:
                note(f"askwhy: {method} refuses: {error}")


def ask_at_once(model: Model, rows: Rows, method: str, question: Question, begin: Begin, answers: Answers) -> None:
    from askwhy.ask import explain

    options, told = question.of(method, {"background": rows.kept}), begin(f"{rows.file.name}: {method}")
    why = explain(model, rows.table, method, question.target, versus=question.versus, progress=told, **options)
    answers.tables.append(table_of(rows, why, list(rows.table.index)))


def ask_one_by_one(model: Model, rows: Rows, method: str, question: Question, begin: Begin, answers: Answers) -> None:
    from askwhy.ask import explain

    options, found = question.of(method, {"background": rows.kept}), {}
    failed = 0
    try:
        for number in rows.table.index:
            told = begin(f"row {number}: {method}")
            try:
                found[number] = explain(model, rows.table.loc[[number]], method, question.target, versus=question.versus, progress=told, **options)
            except (InputError, ModelError) as error:
                failed += 1
                if not found and failed == min(TOLD, len(rows.table)):
                    raise
                answers.silent[method, number] = str(error)
                if failed <= TOLD:
                    note(f"askwhy: row {number}: {method} refuses: {error}")
    finally:
        if found:
            answers.tables.append(table_of(rows, joined(list(found.values())), list(found)))


def table_of(rows: Rows, why: Explanation, numbers: Sequence[int]) -> Table:
    from askwhy.report import Table

    return Table(rows.file.name, why, numbers, rows.said if "background" in parameters_of(why.method) else "")


def one_target(model: Model, rows: Rows, question: Question) -> Question:
    """Of two classes the second one for all rows, where none is named: then their values can stand side by side."""
    if question.target is not None or len(rows.table) < 2 or not has_two_classes(model, rows.table):
        return question
    note(f"askwhy: all rows are explained for {(model.labels or ('', 'class 1'))[1]}, the second of two classes; --target names another one.")
    return replace(question, target=1)


def has_two_classes(model: Model, table: pandas.DataFrame) -> bool:
    return len(top_classes(model, table.iloc[:1])) == 2


# ---- row by row again -----------------------------------------------------------------------------------------------


def cases(model: Model, rows: Rows, answers: Answers, numbers: Sequence[int]) -> Iterator[Case]:
    """Some of the rows, each with all that was found about it; of all outputs at once, the one that the model predicts."""
    places = [{number: place for place, number in enumerate(table.numbers)} for table in answers.tables]
    for number in numbers:
        item = rows.item(number)
        found = [predicted(table.why[place[number]]) for table, place in zip(answers.tables, places, strict=True) if number in place]
        yield item.case(top_classes(model, item.x), found, answers.reasons(number))


def predicted(why: Explanation) -> Any:
    return why[why.outputs[int(why.prediction[0].argmax())]] if why.outputs else why


def check_answered(rows: Rows, answers: Answers) -> None:
    """Raises what the only method said, or UnsupportedError for rows that none could explain."""
    if not answers.tables and len(answers.refused) == 1:
        raise answers.refused[0][1]
    answered = {number for table in answers.tables for number in table.numbers}
    missing = [number for number in rows.table.index if number not in answered]
    if missing:
        shown = ", ".join(map(str, missing[:5])) + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
        raise UnsupportedError(f"no method could explain row {shown} of {rows.file.name}; see the reasons above.")
