"""A torch `nn.Module`, unmodified: its scores, gradients and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, InputError, ModelError, UnsupportedError
from askwhy.models.base import Items, check_finite, contents, is_out_of_memory, show_shape, to_numpy
from askwhy.models.fast import cast, twin
from askwhy.models.photos import raw_items, through
from askwhy.models.pictures import from_values

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
        """A tensor of the model, for its device and dtype; an empty one of a model without parameters."""
        tensors = (t for t in chain(self.net.parameters(), self.net.buffers()) if t.is_floating_point())
        return next(tensors, torch.empty(0))

    def prepare(self, x: Any) -> Items:
        raw = raw_items(x, self.transform is not None)
        if raw is not None:
            return self._prepare_raw(raw)
        array = as_tensor(x)
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
        made = through(self.transform, raw, self.memory)
        grey = None if made.grey is None else self._place(as_tensor(made.grey.astype(made.batch.dtype)))
        return Items(self._place(as_tensor(made.batch)), made.pictures, made.frames, grey)

    def _place(self, x: torch.Tensor) -> torch.Tensor:
        like = self.like
        if not len(like) and like.ndim == 1:
            return x.detach()
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
        if isinstance(out, torch.Tensor) and out.ndim == 1 and batch.ndim == 3:
            self._refuse_unbatched(batch)
        return self.scores(out)

    def _refuse_unbatched(self, batch: torch.Tensor) -> None:
        """A convolution takes [c, h, w] too, and its scores [classes] would pass for one score of each of c items."""
        if any(isinstance(m, torch.nn.Conv2d) and m.in_channels == len(batch) > 1 for m in self.net.modules()):
            raise ModelError(
                f"the model takes an input of shape {show_shape(batch)} for a single picture; give x[None]. (If these are {len(batch)} items, let the model return [n, 1].)"
            )

    def scores(self, out: Any) -> Any:
        """Choose the scores among what the model returned; probabilities if the wrap asked for them."""
        if self.probabilities:
            return probabilities(out)
        return as_column(self.select(out) if self.select else find_scores(out))

    def outputs(self, items: Items, batch: torch.Tensor) -> Any:
        with torch.no_grad():
            return self.forward(batch)

    def engine(self, items: Items, samples: torch.Tensor, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"precision={precision!r}: choose 'float32' (the model's own) or 'bfloat16' (faster, not exact).")
        exact = precision == "float32"
        if exact and calls < WORTH_A_TWIN:
            return None, "forward"
        own = self.like.dtype if len(self.like) or not samples.is_floating_point() else samples.dtype
        with torch.no_grad():
            run = self._exact_twin(own, samples) if exact or own == torch.bfloat16 else self._other_twin(torch.bfloat16, samples)
        return run, "forward" if run is None else f"twin {precision}"

    def _exact_twin(self, dtype: torch.dtype, samples: torch.Tensor) -> Callable[[Any], Any] | None:
        """The faster twin; None if there is none, or it does not give the model's own scores."""
        run = self._kept(dtype, twin)
        if run is None:
            return None
        try:
            return run if same_scores(self.forward(samples), run, samples) else None
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, AskwhyError) or not is_out_of_memory(error):
                raise
            return None  # not even the samples fit together: ask the model itself, which may be given less

    def _other_twin(self, dtype: torch.dtype, samples: torch.Tensor) -> Callable[[Any], Any]:
        """The twin in another dtype, or else a plain copy in it. Raises UnsupportedError where the model cannot run so."""
        reason: Exception | None = None
        for make in (twin, cast):
            try:
                run = self._kept(dtype, make)
                if run is not None:
                    run(samples[:1])
                    return run
            except Exception as error:  # whatever the user's layers raise in a dtype that they were not written for
                if is_out_of_memory(error):
                    raise
                reason = error
        raise UnsupportedError(f"the model cannot compute in {dtype}: {first_line(reason) if reason else ''}; leave precision out.") from reason

    def _kept(self, dtype: torch.dtype, make: Callable[..., Any]) -> Callable[[Any], Any] | None:
        """What `make` makes of the model, made anew when a weight has changed."""
        tensors = [*self.net.parameters(), *self.net.buffers()]
        # the version counts changes in place, but not those through .data, which the fingerprint shows
        state = tuple((t.data_ptr(), t._version) for t in tensors), fingerprint(tensors)
        known, made = self.memory.get((make.__name__, dtype), (None, None))
        if known != state:
            made = make(self.net, dtype)
            self.memory[make.__name__, dtype] = state, made
        if made is None:
            return None
        own = made

        def run(batch: torch.Tensor) -> Any:
            with torch.no_grad():
                return self.scores(own(batch))

        return run

    def compose(self, present: np.ndarray, x: torch.Tensor, absent: torch.Tensor) -> torch.Tensor:
        # bit by bit, absent ^ ((x ^ absent) & mask): exact, and three times as quick as torch.where
        bits = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
        mask = torch.from_numpy(present).to(x.device).to(bits).neg_()  # 0 or all bits
        shown, hidden = x.view(bits), absent.view(bits)
        return ((shown ^ hidden) & mask).bitwise_xor_(hidden).view(x.dtype)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        modules = all_modules(self.net)
        frozen = [p for module in modules for p in module._parameters.values() if p is not None and p.requires_grad]
        if any(module.training for module in modules):
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


def all_modules(net: torch.nn.Module) -> set[torch.nn.Module]:
    """`net.modules()`, which costs as much as a small method, in a quarter of the time."""
    found: set[torch.nn.Module] = set()
    rest: list[torch.nn.Module | None] = [net]
    while rest:
        module = rest.pop()
        if module is not None and module not in found:
            found.add(module)
            rest += module._modules.values()
    return found


def fingerprint(tensors: list[torch.Tensor]) -> tuple[float, ...]:
    """One number a tensor that changes when a value changes or moves, as quick as a sum."""
    ramp = torch.linspace(1, 2, max((t.numel() for t in tensors), default=0))
    return tuple(float(torch.dot(t.detach().flatten().float(), ramp[: t.numel()].to(t.device))) for t in tensors)


def same_scores(wanted: Any, run: Callable[[Any], Any], samples: torch.Tensor) -> bool:
    """Whether a twin gives the model's scores to 1e-4 (relative above 1)."""
    try:
        got = run(samples)
    except Exception:  # noqa: BLE001  whatever the twin cannot do with this input: the model itself can
        return False
    if not isinstance(wanted, torch.Tensor) or not isinstance(got, torch.Tensor) or got.shape != wanted.shape:
        return False
    return bool(((got - wanted).abs() <= 1e-4 * wanted.abs().clamp(min=1)).all())


def as_tensor(x: Any) -> torch.Tensor:
    """Numbers in any packing. Raises InputError."""
    if isinstance(x, torch.Tensor):
        return x
    if isinstance(x, (list, tuple)) and x and all(isinstance(item, torch.Tensor) for item in x):
        if len({tuple(item.shape) for item in x}) > 1:
            raise InputError(f"x holds tensors of different shapes, {show_shape(x[0])} and others; resize them, or ask for one at a time.")
        return torch.stack(tuple(x))
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError(f"x cannot be read as numbers: {first_line(error)}") from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"x is a {type(x).__name__} of {array.dtype}; a torch model needs numbers.")
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))  # torch warns about what it must not write to


def parts_of(out: Any) -> dict[Any, Any]:
    """What a model returned, by name or place; empty for a single thing."""
    if isinstance(out, dict):
        return dict(out)
    if is_dataclass(out) and not isinstance(out, type):
        return {f.name: getattr(out, f.name) for f in fields(out)}
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return dict(zip(out._fields, out, strict=True))
    return dict(enumerate(out)) if isinstance(out, (tuple, list)) else {}


def find_scores(out: Any) -> Any:
    """The tensor [m, k] of scores in a tuple, dict or dataclass, if there is just one that can be meant."""
    parts = parts_of(out)
    named = next((parts[name] for name in SCORE_NAMES if isinstance(parts.get(name), torch.Tensor)), None)
    if named is not None:
        return named
    found = [t for t in parts.values() if isinstance(t, torch.Tensor) and t.is_floating_point() and t.ndim == 2]
    return found[0] if len(found) == 1 else out


def probabilities(out: Any) -> torch.Tensor:
    """The model's own where it returns some under that name; else the softmax, or the sigmoid of a single score."""
    own = parts_of(out).get("probabilities")
    if isinstance(own, torch.Tensor):
        return as_column(own)
    found = as_column(find_scores(out))
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        raise InputError(
            f"output='probabilities' needs scores [n, classes], but the model returns {contents(out)}; give output= a function that makes them."
        )
    return found.softmax(-1) if found.shape[1] > 1 else found.sigmoid()


def as_column(out: Any) -> Any:
    """One score an input, [m], is [m, 1]."""
    return out[:, None] if isinstance(out, torch.Tensor) and out.ndim == 1 else out


def first_line(error: BaseException) -> str:
    """What the library said, cut to one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
