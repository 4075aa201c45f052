"""A torch `nn.Module`, unmodified: its scores, gradients and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, InputError, ModelError
from askwhy.models.base import Frame, Items, check_finite, is_out_of_memory, show_shape, to_numpy
from askwhy.models.fast import cast, twin
from askwhy.models.pictures import frame_of, from_values, is_picture, read_picture, seen

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

WORTH_A_TWIN = 48  # forward passes from which on it pays to prepare a faster twin
SCORE_NAMES = ("logits", "output", "out", "scores", "prediction_logits")


@dataclass(eq=False)
class TorchModel:
    """What `wrap` makes of an `nn.Module`."""

    net: torch.nn.Module
    labels: tuple[str, ...] | None = None
    transform: Callable[[Any], Any] | None = None
    select: Callable[[Any], Any] | None = None
    probabilities: bool = False
    offers: frozenset[str] = frozenset({"predictions", "gradients", "layers"})
    memory: dict[Any, Any] = field(default_factory=dict)

    @property
    def like(self) -> torch.Tensor:
        """A tensor of the model, for its device and dtype."""
        tensors = (t for t in chain(self.net.parameters(), self.net.buffers()) if t.is_floating_point())
        return next(tensors, torch.empty(0))

    def prepare(self, x: Any) -> Items:
        raw = raw_items(x)
        if raw is not None:
            return self._prepare_raw(raw)
        if isinstance(x, (list, tuple)) and isinstance(x[0], torch.Tensor):
            x = torch.stack(tuple(x))
        array = torch.as_tensor(x if isinstance(x, torch.Tensor) else np.asarray(x))
        if array.ndim < 2 or len(array) == 0:
            raise InputError(f"x has the shape {show_shape(array)}; its first axis counts the items, so a single one is x[None].")
        check_finite(array, "item")
        names = tuple(map(str, x.columns)) if hasattr(x, "columns") else None
        pictures = tuple(from_values(to_numpy(item)) if array.ndim == 4 else None for item in array)
        return Items(self._place(array), pictures, (None,) * len(array), names=names)

    def _prepare_raw(self, raw: list[Any]) -> Items:
        if self.transform is None:
            raise InputError(
                f"{type(raw[0]).__name__} is no tensor, and this model has no transform: askwhy.wrap(net, transform=...) says how to turn it into one."
            )
        from PIL import Image

        ready, grey, pictures, frames = [], [], [], []
        for item in raw:
            if not is_picture(item):
                raise InputError(f"x holds a {type(item).__name__}; give pictures (a path, a PIL image, a uint8 array) or tensors.")
            photo = read_picture(item)
            ready.append(self._transformed(photo))
            grey.append(self._transformed(Image.new("RGB", photo.size, (127, 127, 127))))
            frame = self._frame(photo.size)
            h, w = ready[-1].shape[-2:]
            pictures.append(seen(photo, frame, h, w) if frame else from_values(to_numpy(ready[-1])))
            frames.append(frame)
        if len({tuple(t.shape) for t in ready}) > 1:
            raise InputError(f"transform= gave different shapes, {show_shape(ready[0])} and others; let it resize to one size.")
        items = Items(self._place(torch.stack(ready)), tuple(pictures), tuple(frames), self._place(torch.stack(grey)))
        check_finite(items.batch, "item")
        return items

    def _transformed(self, photo: Any) -> torch.Tensor:
        assert self.transform is not None
        out = self.transform(photo)
        if not isinstance(out, (torch.Tensor, np.ndarray)):
            raise InputError(f"transform= returned {type(out).__name__}; it has to return one tensor without a batch axis.")
        return torch.as_tensor(out)

    def _frame(self, size: tuple[int, int]) -> Frame | None:
        key = ("frame", size)
        if key not in self.memory:
            assert self.transform is not None
            self.memory[key] = frame_of(self.transform, size)
        return self.memory[key]

    def _place(self, x: torch.Tensor) -> torch.Tensor:
        like = self.like
        return x.detach().to(like.device, like.dtype if x.is_floating_point() else x.dtype)

    def forward(self, batch: torch.Tensor) -> Any:
        """One pass as the caller's grad mode has it: scores [m, k] where the model gives any, else its raw output."""
        try:
            out = self.net(batch)
        except AskwhyError:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(f"the model failed on an input of shape {show_shape(batch)}: {first_line(error)}") from error
        return self.scores(out)

    def scores(self, out: Any) -> Any:
        """Choose the scores among what the model returned; probabilities if the wrap asked for them."""
        out = self.select(out) if self.select else find_scores(out)
        if not isinstance(out, torch.Tensor):
            return out
        if out.ndim == 1:
            out = out[:, None]
        if self.probabilities and out.ndim == 2:
            out = out.softmax(-1) if out.shape[1] > 1 else out.sigmoid()
        return out

    def outputs(self, items: Items, batch: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.forward(batch)

    def engine(self, items: Items, samples: torch.Tensor, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"precision={precision!r}: choose 'float32' (the model's own) or 'bfloat16' (faster, not exact).")
        exact = precision == "float32"
        if exact and calls < WORTH_A_TWIN:
            return None, "forward"
        with torch.no_grad():
            run = self._twin(self.like.dtype if exact else torch.bfloat16, samples)
            if run is None:
                return None, "forward"
            return run, f"twin {precision}"

    def _twin(self, dtype: torch.dtype, samples: torch.Tensor) -> Callable[[Any], Any] | None:
        """The faster twin, made anew when a weight has changed; None if it does not give the model's own scores."""
        state = tuple((t.data_ptr(), t._version) for t in (*self.net.parameters(), *self.net.buffers()))
        kept, made = self.memory.get(("twin", dtype), (None, None))
        if kept != state:
            made = twin(self.net, dtype) or (None if dtype == self.like.dtype else cast(self.net, dtype))
            self.memory["twin", dtype] = state, made
        if made is None:
            return None
        own = made

        def run(batch: torch.Tensor) -> Any:
            with torch.no_grad():
                return self.scores(own(batch))

        if dtype != self.like.dtype:
            return run
        return run if same_scores(self.forward(samples), run, samples) else None

    def compose(self, present: np.ndarray, x: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.from_numpy(present).to(x.device), x, absent)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        frozen: list[torch.nn.Parameter] = []
        training = False
        for module in self.net.modules():  # one walk, since it costs as much as a small method
            training |= module.training
            frozen += [p for p in module._parameters.values() if p is not None and p.requires_grad]
        if training:
            name = next(name or "the model itself" for name, module in self.net.named_modules() if module.training)
            raise ModelError(f"the model is in training mode ({name}), where dropout and batch norm change its answers; call model.eval() first.")
        devices = [self.like.device] if self.like.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            for p in frozen:
                p.requires_grad_(False)
            try:
                yield
            finally:
                for p in frozen:
                    p.requires_grad_(True)


def same_scores(wanted: Any, run: Callable[[Any], Any], samples: torch.Tensor) -> bool:
    """Whether a twin gives the model's scores to 1e-4 (relative above 1)."""
    try:
        got = run(samples)
    except RuntimeError:  # the twin cannot take this input; the model itself can
        return False
    if not isinstance(wanted, torch.Tensor) or not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
        return False
    return bool(((got - wanted).abs() <= 1e-4 * wanted.abs().clamp(min=1)).all())


def raw_items(x: Any) -> list[Any] | None:
    """The raw items as a list, or None when x is a batch of numbers already."""
    if is_picture(x):
        return [x]
    if isinstance(x, np.ndarray) and x.ndim == 4 and len(x) and is_picture(x[0]):
        return list(x)
    if isinstance(x, (list, tuple)) and len(x) and not isinstance(x[0], (int, float, list, np.generic, torch.Tensor)):
        return list(x) if is_picture(x[0]) or not isinstance(x[0], np.ndarray) else None
    return None


def find_scores(out: Any) -> Any:
    """The tensor [m, k] of scores in a tuple, dict or dataclass, if there is just one that can be meant."""
    if isinstance(out, torch.Tensor):
        return out
    if isinstance(out, dict):
        parts = dict(out)
    elif is_dataclass(out) and not isinstance(out, type):
        parts = {f.name: getattr(out, f.name) for f in fields(out)}
    elif isinstance(out, tuple) and hasattr(out, "_fields"):
        parts = dict(zip(out._fields, out, strict=True))
    elif isinstance(out, (tuple, list)):
        parts = {str(i): part for i, part in enumerate(out)}
    else:
        return out
    named = next((parts[name] for name in SCORE_NAMES if isinstance(parts.get(name), torch.Tensor)), None)
    if named is not None:
        return named
    found = {name: t for name, t in parts.items() if isinstance(t, torch.Tensor) and t.is_floating_point() and t.ndim == 2}
    return next(iter(found.values())) if len(found) == 1 else out


def first_line(error: BaseException) -> str:
    """What the library said, cut to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
