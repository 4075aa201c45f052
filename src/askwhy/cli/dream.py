"""What does a cat look like to the model? Portraits of classes and filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from askwhy.cli.results import FIGURES, write_result
from askwhy.cli.said import errors_in_one_sentence, note, progress_bar
from askwhy.errors import AskwhyError, FileError, InputError, LayerError

if TYPE_CHECKING:
    from askwhy.models.base import Model
    from askwhy.models.torch_module import TorchModel
    from askwhy.overall.portrait import Portrait

MODEL = "A model of the zoo, or FILE.py:FUNCTION that returns a torch module or what askwhy.wrap makes of it."
PHOTOS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FILTERS = 8  # of a layer, where none are named


def dream(
    model: Annotated[str, typer.Argument(help=MODEL)] = "efficientnet-lite0",
    target: Annotated[list[str] | None, typer.Option(help="A class, by label or number; may be given several times.")] = None,
    layer: Annotated[list[str] | None, typer.Option(help="A layer whose filters are shown; may be given several times.")] = None,
    channels: Annotated[str | None, typer.Option(help=f"Which filters of the layers, as 0:16 or 3,5,8. Default: the first {FILTERS}.")] = None,
    preset: Annotated[str, typer.Option(help="naive, lecture, yosinski, lucid, maco or robust; several with commas between.")] = "robust",
    steps: Annotated[int | None, typer.Option(help="How many steps. Default: the preset's.")] = None,
    views: Annotated[int | None, typer.Option(help="How often each step looks, under other noise and motion: 4 is steadier than robust's 2, and slower. Default: the preset's.")] = None,
    judge: Annotated[str | None, typer.Option(help="Another model that says whether it sees the class.")] = None,
    images: Annotated[Path | None, typer.Option(help="A folder of real photos, to compare with.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Seed of the start and the motion.")] = 0,
    out: Annotated[Path, typer.Option(help="The report to write (.html), or of one preset a picture (.png, .svg, .pdf) or all numbers (.npz).")] = Path("dreams.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print numbers for other programs, and write no file.")] = False,
) -> None:  # fmt: skip
    """What does a cat look like to the model? askwhy dream efficientnet-lite0 --target "tiger cat" --judge squeezenet."""
    with errors_in_one_sentence():
        from askwhy.cli.asking import as_class
        from askwhy.cli.named import load_model
        from askwhy.overall.presets import preset_of

        presets = [name.strip() for name in preset.split(",")]
        if not target and not layer:
            raise InputError('nothing is named: give --target CLASS, as --target "tiger cat", or --layer NAME.')
        for name in presets:
            preset_of(name)
        check_out(out, as_json, len(presets) * (bool(target) + len(layer or ())))
        photos = None if images is None else photos_in(images)
        wrapped, other = load_model(model), None if judge is None else load_model(judge)
        options = {"judge": other, "images": photos, "steps": steps, "views": views, "seed": seed}
        asked = questions(wrapped, [as_class(one) for one in target or ()], layer or (), channels)
        found: list[tuple[str, Portrait]] = []
        try:
            with progress_bar(len(presets) * len(asked)) as begin:
                seek(wrapped, asked, presets, options, begin, found)
        except AskwhyError:
            if found:
                hand_over(found, model, out, as_json)
            raise
        hand_over(found, model, out, as_json)


def questions(model: Model, targets: Sequence[Any], layers: Sequence[str], channels: str | None) -> list[tuple[str, list[Any]]]:
    """Titles and targets: the classes, then the filters of each layer. Raises InputError, LayerError."""
    from askwhy.layers import torch_model
    from askwhy.tap import find_layer

    wrapped = torch_model(model)
    named = [find_layer(wrapped.net, layer)[0] for layer in layers]
    which = None if channels is None else numbers(channels)
    classes = [("classes", list(targets))] if targets else []
    return classes + [(f"filters of layer {name}", filters_of(wrapped, name, which, channels)) for name in named]


def filters_of(model: TorchModel, name: str, which: list[int] | None, said: str | None) -> list[Any]:
    """The channels as targets, wherever the layer has them, from one look at a grey picture. Raises InputError, LayerError."""
    import torch

    from askwhy.layers import channels_of
    from askwhy.overall.canvas import canvas_of
    from askwhy.targets import check_layer, ending_at, neuron

    canvas = canvas_of(model, None, None, None)
    x = canvas.inputs(torch.full((1, *canvas.shape), 0.5).to(canvas.black))
    with model.untouched(), torch.no_grad():
        check_layer(model.net, name, lambda: model.forward(x))
        out = ending_at(model.net, name, lambda: model.forward(x))
    if out.ndim < 2:
        raise LayerError(f"layer {name!r} gives one number for an item, and has no filters; name another.")
    axis = channels_of(model, name, out)
    width = out.shape[axis]
    if which is not None and max(which) >= width:
        raise InputError(f"--channels {said}: layer {name!r} has {width} channels, counted from 0 to {width - 1}.")
    return [neuron(name, k if axis == 1 else (..., k)) for k in which or range(min(FILTERS, width))]


def numbers(channels: str) -> list[int]:
    """ "0:16" or "3,5,8". Raises InputError."""
    try:
        first, colon, last = channels.partition(":")
        found = list(range(int(first or 0), int(last))) if colon else [int(one) for one in channels.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0:
        raise InputError(f"--channels {channels}: give numbers from 0 on, as 0:16 or 3,5,8.")
    return found


def seek(model: Model, asked: Any, presets: Sequence[str], options: dict[str, Any], begin: Any, found: list[tuple[str, Portrait]]) -> None:
    """Portraits of each question by each preset; after an interrupt, what there is."""
    from askwhy.overall.maximize import activation_maximization

    for title, targets in asked:
        for preset in presets:
            told = begin(f"{title}, {preset}")
            own = options if title == "classes" else {**options, "judge": None}
            portrait = activation_maximization(model, targets, preset=preset, progress=told, **own)
            found.append((f"{title[0].upper()}{title[1:]}" + (f", {preset}" if len(presets) > 1 else ""), portrait))
            if portrait.details["stopped"]:
                note("askwhy: interrupted; the best portraits so far are in the result.")
                return


def photos_in(folder: Path) -> list[str]:
    """Raises FileError."""
    if not folder.is_dir():
        raise FileError(f"--images {folder}: there is no such folder.")
    found = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in PHOTOS)
    if not found:
        raise FileError(f"--images {folder}: the folder holds no photos ({', '.join(PHOTOS)}).")
    return found


def check_out(out: Path, as_json: bool, count: int) -> None:
    """Before the work. Raises InputError, FileError."""
    from askwhy.cli.results import check_place

    if as_json:
        return
    wanted = f"a name that ends in .html (a report), {', '.join(FIGURES)} (a picture) or .npz (to load again)"
    check_place(out, wanted, (".html", ".npz", *FIGURES))
    if out.suffix.lower() != ".html" and count > 1:
        raise InputError(f"--out {out} holds one set of portraits, and {count} are asked for; write a report, as {out.with_suffix('.html')}.")


def hand_over(found: Sequence[tuple[str, Portrait]], model: str, out: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps([as_numbers(title, portrait) for title, portrait in found], indent=2))
        return
    from askwhy.report.dreams import render_dreams

    for _, portrait in found:
        print(portrait.summary())
    write_result(found[0][1], out, lambda: render_dreams(found, model))


def as_numbers(title: str, portrait: Portrait) -> dict[str, Any]:
    """What JSON can hold; not the pixels."""
    judged: dict[str, Any] = {}
    natural: dict[str, Any] = {}
    if portrait.judge_rank is not None:
        judged = {"judge_rank": portrait.judge_rank.tolist(), "judge_probability": probabilities(portrait), "judge_top": portrait.judge_top}
    if portrait.natural is not None and portrait.nearest is not None:
        natural = {"natural": portrait.natural.tolist(), "layers": portrait.natural_layers, "nearest": portrait.nearest.tolist()}
    return {
        "title": title, "method": portrait.method, "target": portrait.target, "score": portrait.score.tolist(), "start": portrait.start.tolist(),
        **judged, **natural, "params": dict(portrait.params), "seed": portrait.seed, "model_calls": portrait.model_calls, "versions": dict(portrait.versions),
    }  # fmt: skip


def probabilities(portrait: Portrait) -> list[float | None]:
    assert portrait.judge_probability is not None
    return [None if share != share else share for share in portrait.judge_probability.tolist()]
