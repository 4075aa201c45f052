"""The HTML report: one file, no network, for the person who has to answer for the model."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from askwhy.errors import InputError
from askwhy.registry import SCORE
from askwhy.report.case import Case, Table

if TYPE_CHECKING:
    from jinja2 import Environment

    from askwhy.explanation import Explanation
    from askwhy.report.cards import Card
    from askwhy.report.disagreement import Disagreement
    from askwhy.report.phrases import Phrases

__all__ = ["Case", "Table", "render"]

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class View:
    """What the template shows of one case."""

    case: Case
    phrases: Phrases
    photo: str  # data URI; nothing for a text or a row
    question: str
    asked: tuple[str | None, str | None]  # target and versus, to mark them among the predictions
    score: str
    frame: tuple[float, float, float, float] | None  # what the model saw: left, top, width, height in percent of the photo
    cards: Sequence[Card]
    refused: Sequence[tuple[str, str]]
    disagreement: Disagreement | None
    script: str


def render(cases: Sequence[Case], model_name: str, tables: Sequence[Table] = ()) -> str:
    """The whole page as one HTML file: pictures of all rows of the tables first, then the cases one by one.

    Raises InputError. Example: `Path("report.html").write_text(render(cases, "lite0"), "utf-8")`.
    """
    if not cases and not tables:
        raise InputError("a report needs at least one case, or a table.")
    for case in cases:
        case.check()
    from askwhy.report import phrases, reproduce, whole
    from askwhy.show import sorter

    wholes, left_out = whole.sections(tables, model_name) if tables else ([], [])
    whys = [table.why for table in tables] + [why for case in cases for why in case.explanations]
    return environment().get_template("page.html").render(
        views=[view(case, model_name) for case in cases],
        wholes=wholes,
        left_out=left_out,
        page=phrases.WHOLE if wholes else phrases.of_page(case.kind for case in cases),
        classes=any(case.top for case in cases) or any(case.kind == "photo" for case in cases),
        maps=any(case.kind == "photo" for case in cases),
        model_name=model_name,
        style=trusted((TEMPLATES / "style.css").read_text("utf-8")),
        slider=trusted(slider()),
        slider_hash=digest(slider()),
        sorter=trusted(sorter()),
        sorter_hash=digest(sorter()),
        versions=reproduce.versions(whys),
        seeds=reproduce.seeds(whys),
    )  # fmt: skip


def view(case: Case, model_name: str) -> View:
    from askwhy.report import cards, disagreement, images, phrases, reproduce

    names = cards.named(case.explanations)
    made = [cards.card(why, name) for why, name in zip(case.explanations, names, strict=True)]
    first = case.explanations[0] if case.explanations else None
    return View(
        case=case,
        phrases=phrases.OF_KIND[case.kind],
        photo="" if case.photo is None else images.jpeg(case.photo),
        question=f"Why {first.question()}?" if first is not None else "No method answered",
        asked=(None, None) if first is None or not first.target else (first.target[0], first.versus[0] if first.versus else None),
        score=scores(case.explanations, names),
        frame=next((found for why in case.explanations if (found := framed(why.frames)) is not None), None),
        cards=made,
        refused=[(cards.title(name), message) for name, message in case.refused],
        disagreement=disagreement.compare(case.explanations, [card.signed for card in made], names),
        script=reproduce.script(case, model_name),
    )


def scores(whys: Sequence[Explanation], names: Sequence[str]) -> str:
    """What is explained, with its scale; some methods explain log odds where others explain a probability."""
    from askwhy.report import words

    found: dict[str, list[str]] = {}
    for why, name in zip(whys, names, strict=True):
        if len(why.prediction):
            scale = f" ({why.unit})" if why.residual is not None and why.unit != SCORE else ""
            found.setdefault(words.number(float(why.prediction[0])) + scale, []).append(name)
    return next(iter(found), "") if len(found) < 2 else ", ".join(f"{score} by {words.listed(by)}" for score, by in found.items())


def framed(frames: Sequence[Sequence[float] | None]) -> tuple[float, float, float, float] | None:
    """The part of the photo that the model saw, in percent; None where it is unknown or the whole photo."""
    if not frames or frames[0] is None:
        return None
    left, top, right, bottom, width, height = frames[0]
    box = (100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height)
    return None if min(box[2:]) > 99 else box


@cache
def environment() -> Environment:
    """Labels and file names are anybody's text: everything is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from askwhy.report import words

    made = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"number": words.number, "percent": words.percent, "held": words.held}
    return made


def slider() -> str:
    return (TEMPLATES / "slider.js").read_text("utf-8")


def trusted(text: str) -> Any:
    """Our own, not escaped."""
    from markupsafe import Markup

    return Markup(text)


def digest(script: str) -> str:
    """The page's policy allows the script with this hash and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
