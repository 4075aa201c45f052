"""What happens inside a network, as a page: pictures of its layers and what was measured in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from askwhy.errors import InputError
from askwhy.inside.activations import Activations
from askwhy.inside.attention import Attention
from askwhy.inside.projection import Projection

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from askwhy.kept import Kept


@dataclass(frozen=True)
class Section:
    title: str
    figures: Sequence[str]  # data URIs
    texts: Sequence[str]  # summaries


def render_inside(found: Sequence[tuple[str, Kept]], model_name: str, refused: Sequence[tuple[str, str]] = (), script: str = "") -> str:
    """Answers under their titles as one HTML file without a network. Raises InputError.

    Example: `Path("inside.html").write_text(render_inside([("the items in each layer", projection)], "lite0"), "utf-8")`.
    """
    if not found:
        raise InputError("a page about the inside of a network needs at least one answer.")
    from askwhy.report import TEMPLATES, environment, reproduce, trusted

    results = [result for _, result in found]
    return environment().get_template("inside.html").render(
        sections=[section(title, result) for title, result in found],
        refused=[(capital(title), why) for title, why in refused],
        model_name=model_name,
        script=script,
        style=trusted((TEMPLATES / "style.css").read_text("utf-8")),
        versions=reproduce.versions(results),  # type: ignore[arg-type]
        seeds=reproduce.seeds(results),  # type: ignore[arg-type]
    )  # fmt: skip


def section(title: str, result: Kept) -> Section:
    from matplotlib import pyplot as plt

    from askwhy.show import as_data_uri

    figures = []
    for ax in pictures(result):
        figures.append(as_data_uri(ax))
        plt.close(ax.figure)  # type: ignore[arg-type]
    return Section(capital(title), figures, summaries(result))


def pictures(result: Kept) -> Iterator[Axes]:
    """Those that a reader would ask for: of each item where items are looked at one by one."""
    if isinstance(result, Activations):
        yield from (result.plot(item=i) for i in range(len(result)))
    elif isinstance(result, Attention):
        ways = ["words", "layers", *(["deletion"] if result.curves is not None else [])] if result.rolled else ["heads"]
        yield from (result.plot(how=how, i=i) for i in range(len(result)) for how in ways)
    else:
        yield result.plot()
    if isinstance(result, Projection) and result.told is not None:
        yield result.plot(how="layers")


def summaries(result: Kept) -> list[str]:
    return [result.summary(i) for i in range(len(result))] if isinstance(result, Attention) else [result.summary()]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
