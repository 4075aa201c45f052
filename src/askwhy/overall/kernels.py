"""The weights of a convolution as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.answer import versions
from askwhy.checks import is_whole
from askwhy.errors import InputError, LayerError, UnsupportedError
from askwhy.kept import Kept
from askwhy.layers import torch_model
from askwhy.models.base import show_shape, to_numpy
from askwhy.models.pictures import plain, probe
from askwhy.models.torch_module import TorchModel
from askwhy.overall.receptive import one_layer

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
else:
    torch = lazy("torch", "torch")

MOST = 64  # kernels in a picture
ACROSS = 8  # channels of one that are no colours


@dataclass(frozen=True, eq=False)
class Weights(Kept):
    """The kernels of a convolution, as they are: values [out, in, h, w] (h is 1 for a series).

    colours: the channels of the photo in the order in which the layer reads them, such as "BGR"; "" where they are no colours.
    """

    layer: str
    values: np.ndarray
    colours: str
    params: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    model_calls: int = 0
    seconds: float = 0.0
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def scale(self) -> float:
        """The largest |weight|: full colour in the picture, for all kernels alike."""
        return float(np.abs(self.values).max()) or 1.0

    def pictures(self) -> np.ndarray:
        """uint8 [out, h, w, 3]: grey is 0, white +scale and black -scale in each colour. Raises UnsupportedError where they are no colours."""
        if not self.colours:
            raise UnsupportedError(
                f"layer {self.layer!r} reads {self.values.shape[1]} channels that are no colours; plot() draws them as signed maps."
            )
        rgb = self.values[:, [self.colours.index(one) for one in "RGB"]].transpose(0, 2, 3, 1)
        return (127.5 + 127.5 * rgb / self.scale).round().astype(np.uint8)

    def summary(self) -> str:
        """A few lines: what the kernels are, how strong they are, and what a picture of them tells."""
        n, c, h, w = self.values.shape
        size = np.sqrt((self.values.astype(np.float64) ** 2).sum((1, 2, 3)))
        faint = int((size < 0.01 * size.max()).sum())
        lines = [
            f"layer {self.layer!r}: {n} kernels of {h} x {w} over {c} channel{'s' * (c > 1)}{f' ({self.colours})' if self.colours else ''}, "
            f"weights from {self.values.min():.3g} to {self.values.max():.3g}",
            f"length of a kernel: median {np.median(size):.3g}, largest {size.max():.3g} (kernel {int(size.argmax())})"
            + (f"; {faint} below 1% of it, which do next to nothing" if faint else ""),
        ]
        if self.colours:
            lines.append(f"in the picture grey is 0 and full colour is a weight of {self.scale:.3g}, the same for all kernels")
        return "\n".join([*lines, *self.details.values()])

    def plot(self, ax: Axes | None = None, most: int = MOST) -> Axes:
        """The kernels as colour pictures, or as signed maps, a line of channels for each; returns the axes and never shows them."""
        from askwhy import show

        if not is_whole(most, 1):
            raise InputError(f"most={most!r}: give how many kernels to show, 1 or more.")
        n, c, h = self.values.shape[:3]
        shown = min(n, most if self.colours or c == 1 else min(most, 16))
        title = f"weights of layer {self.layer!r}" + (f", {shown} of {n} kernels" if shown < n else f", {n} kernels")
        if self.colours:
            told = f"{title}; grey 0, full colour ±{self.scale:.3g}"
            return show.tiles(list(self.pictures()[:shown]), list(map(str, range(shown))), ax, title=told)
        if c == 1:
            return show.tiles(list(self.values[:shown, 0]), list(map(str, range(shown))), ax, title=title, unit="weight")
        if h == 1:  # of a series: all channels of a kernel in one map
            return show.tiles(list(self.values[:shown, :, 0]), list(map(str, range(shown))), ax, title=f"{title}: channels x steps", unit="weight")
        across = min(c, ACROSS)
        maps = [self.values[k, j] for k in range(shown) for j in range(across)]
        title += f", {across} of {c} input channels" if across < c else ""
        names, rows = [f"channel {j}" for _ in range(shown) for j in range(across)], [f"kernel {k}" for k in range(shown)]
        return show.tiles(maps, names, ax, columns=across, title=title, unit="weight", rows=rows)

    def __repr__(self) -> str:
        return f"<Weights of layer {self.layer!r}, {' x '.join(map(str, self.values.shape))}>"


def filter_weights(model: Any, layer: Any = None) -> Weights:
    """The kernels of a convolution: of the named one, or of the first as the model is written down.

    A kernel that reads the three channels of a photo is drawn as a picture in the photo's colours; their order, RGB or BGR,
    is found by sending a red picture through the model's transform (Krizhevsky et al. 2012, figure 3). Any other is drawn
    as signed maps. Only what reads pixels can be judged by eye: deeper kernels read channels, use `askwhy.filters`.
    Raises LayerError, UnsupportedError. Example: `askwhy.filter_weights(model).plot()`.
    """
    wrapped = torch_model(model)
    kinds = (torch.nn.Conv1d, torch.nn.Conv2d)
    found = [name for name, part in wrapped.net.named_modules() if isinstance(part, kinds)]
    if layer is None and not found:
        raise UnsupportedError("the model has no convolution of one or two dimensions; askwhy.filters(model, X, layer) shows what a unit answers to.")
    name = found[0] if layer is None else one_layer(wrapped, layer)
    part: Any = wrapped.net.get_submodule(name)
    if not isinstance(part, kinds):
        near = next((one for one in found if one.startswith(f"{name}.")), found[0] if found else None)
        raise LayerError(
            f"layer {name!r} is a {type(part).__name__} and no convolution; {f'name one, such as {near!r}' if near else 'the model has none'}."
        )
    values = to_numpy(part.weight).copy()
    values = values[:, :, None] if values.ndim == 3 else values
    if not np.isfinite(values).all():
        raise UnsupportedError(f"the weights of layer {name!r} hold NaN or infinite numbers, {show_shape(values)}; the model is broken.")
    coloured = isinstance(part, torch.nn.Conv2d) and found[0] == name and values.shape[1] == 3 and part.groups == 1
    colours, note = colours_of(wrapped, part) if coloured else ("", "")
    return Weights(name, values, colours, details={"note": note} if note else {}, versions=versions())


def colours_of(model: TorchModel, part: Any) -> tuple[str, str]:
    """The colours of the three channels in their order, and how that is known."""
    if model.transform is None:
        return "RGB", "the model has no transform, so its channels are taken for red, green, blue"
    order = order_of(model.transform)
    if order is None:
        return "", "the transform does not keep the colours apart, so that the channels are drawn one by one"
    return order, f"the transform gives the channels as {order}"


def order_of(transform: Any) -> str | None:
    """ "RGB", "BGR", ... by which channel of the model's input answers to each colour; None where that is not one for one."""
    from PIL import Image

    black = plain(transform, (64, 64), 0)
    answers = [probe(transform, Image.new("RGB", (64, 64), colour)) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    if black is None or black.ndim != 3 or black.shape[0] != 3 or any(one is None or one.shape != black.shape for one in answers):
        return None
    shift = np.array([np.abs(one - black).mean((1, 2)) for one in answers])  # [colour, channel]
    if ((shift > 1e-6 * shift.max()).sum(0) != 1).any() or len(set(shift.argmax(0))) != 3:
        return None
    return "".join("RGB"[k] for k in shift.argmax(0))
