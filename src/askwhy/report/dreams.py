"""What a network looks for, as a page: portraits of classes, and of filters layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from askwhy.errors import InputError

if TYPE_CHECKING:
    from askwhy.overall.portrait import Portrait

SHARP = 168  # pixels to which a small picture is enlarged, without smoothing


@dataclass(frozen=True)
class Dream:
    """One portrait as the page shows it."""

    picture: str  # data URI
    name: str
    facts: Sequence[str]
    nearest: Sequence[str]  # data URIs


@dataclass(frozen=True)
class Section:
    """Portraits that were sought in one way."""

    title: str
    how: str
    dreams: Sequence[Dream]
    trust: Sequence[str]


def render_dreams(portraits: Sequence[tuple[str, Portrait]], model_name: str, script: str = "") -> str:
    """Portraits under their titles as one HTML file without a network. Raises InputError.

    Example: `Path("dreams.html").write_text(render_dreams([("classes", portrait)], "lite0"), "utf-8")`.
    """
    if not portraits:
        raise InputError("a page of portraits needs at least one.")
    from askwhy.report import TEMPLATES, environment, reproduce, trusted

    return environment().get_template("dreams.html").render(
        sections=[section(title, portrait) for title, portrait in portraits],
        model_name=model_name,
        script=script,
        style=trusted((TEMPLATES / "style.css").read_text("utf-8")),
        versions=reproduce.versions([portrait for _, portrait in portraits]),  # type: ignore[misc]
        seeds=", ".join(sorted({str(portrait.seed) for _, portrait in portraits})),
    )  # fmt: skip


def section(title: str, portrait: Portrait) -> Section:
    own = portrait.params
    cost = f"{len(portrait.trace):,} steps, {portrait.model_calls:,} passes forward and back, {portrait.seconds:.0f} s"
    how = f"{portrait.method}: {own['parameters']}, {own['regularizer']}; {cost}. {portrait.details['paper']}"
    return Section(title, how, [dream(portrait, k) for k in range(len(portrait))], [f"{said[0].upper()}{said[1:]}." for said in portrait.trust()])


def dream(portrait: Portrait, k: int) -> Dream:
    facts = portrait.told(k).removeprefix(f"{portrait.target[k]}: ").split("; ")
    near = () if portrait.nearest_pictures is None else portrait.nearest_pictures[k]
    return Dream(shown(portrait.pictures[k]), portrait.target[k], [f"{fact[0].upper()}{fact[1:]}." for fact in facts], list(map(shown, near)))


def shown(picture: np.ndarray) -> str:
    """Pixels as a data URI; those of a tiny picture are drawn as squares."""
    from PIL import Image

    from askwhy.report.images import jpeg
    from askwhy.show import as_data_uri

    times = max(1, round(SHARP / max(picture.shape[:2])))
    large = picture.repeat(times, 0).repeat(times, 1)
    return as_data_uri(large) if times > 1 else jpeg(Image.fromarray(large))
