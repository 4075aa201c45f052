"""A torch `nn.Module`, unmodified: its scores, gradients and layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy
from askwhy.errors import AskwhyError, InputError, ModelError, UnsupportedError
from askwhy.models.arguments import Arguments, Padded, read_arguments, reads_filled, whole_inputs
from askwhy.models.base import Items, check_finite, first_line, is_out_of_memory, said_clearly, show_shape, to_numpy
from askwhy.models.fast import as_dtype, cast, copy_in, twin
from askwhy.models.incremental import incremental
from askwhy.models.inputs import items_of
from askwhy.models.outputs import as_column, find_scores, joined, probabilities
from askwhy.models.photos import raw_items, through
from askwhy.models.pictures import from_values, is_picture
from askwhy.models.slope import same_slopes, slope_twin
from askwhy.models.state import all_modules, attributes, fingerprint, hooked, random_state, same_random_state, seed_all, set_random_state
from askwhy.models.text import Encoded, as_texts, encode, in_groups

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

WORTH_A_TWIN = 48  # forward passes from which on it pays to prepare a faster twin
WORTH_A_SLOPE_TWIN = 16  # forward and backward passes from which on it pays to prepare one that can be differentiated


@dataclass(eq=False)
class TorchModel:
    """What `wrap` makes of an `nn.Module`."""

    net: torch.nn.Module
    labels: tuple[str, ...] | None = None
    transform: Callable[[Any], Any] | None = None
    select: Callable[[Any], Any] | None = None
    probabilities: bool = False
    seed: int | None = None  # of a model that draws random numbers
    tokenizer: Any = None  # of a model of texts
    offers: frozenset[str] = frozenset({"predictions", "gradients", "layers"})
    memory: dict[Any, Any] = field(default_factory=dict)

    @property
    def like(self) -> torch.Tensor:
        """A number of the model's device and dtype; none of a model without parameters."""
        tensors = (t.new_empty(1) for t in chain(self.net.parameters(), self.net.buffers()) if t.is_floating_point())
        return next(tensors, torch.empty(0))

    def prepare(self, x: Any) -> Items:
        texts = as_texts(x) if self.tokenizer is not None else None
        if texts is not None:
            made = encode(self.tokenizer, texts)
            items = self._prepare_several(made.inputs if isinstance(made.inputs, dict) else (made.inputs,), made)
            return replace(items, texts=tuple(texts)) if all(isinstance(one, str) for one in texts) else items  # type: ignore[type-var]
        if isinstance(x, Mapping) or (isinstance(x, tuple) and len(x) and not is_picture(x[0])):
            return self._prepare_several(x)
        raw = raw_items(x, self.transform is not None)
        if raw is not None:
            return self._prepare_raw(raw)
        array = as_tensor(x)
        if array.ndim < 2 or len(array) == 0:
            raise InputError(f"x has the shape {show_shape(array)}; its first axis counts the items, so a single one is x[None].")
        if array.dtype in (torch.int64, torch.int32):
            tokens = self._prepare_several((array,), must=False)
            if tokens is not None:
                return tokens
        check_finite(array, "item")
        names = tuple(map(str, x.columns)) if hasattr(x, "columns") else None
        pictures = tuple(from_values(to_numpy(item)) if array.ndim == 4 else None for item in array)
        return Items(self._place(array), pictures, (None,) * len(array), names=names)

    def _prepare_several(self, x: Any, texts: Encoded | None = None, must: bool = True) -> Any:
        """Several inputs, or one of tokens; None (or, if there must be one, an error) where there is nothing to explain."""
        arguments = read_arguments(self.net, x, self._place)
        readings = {} if texts is None else {next(iter(whole_inputs(arguments))): texts.readings}
        with self.untouched(), torch.inference_mode(False), torch.no_grad(), said_clearly(arguments.described()):
            items = items_of(self.net, arguments, readings, self._absent_ids(texts))
        if items is None and must:
            raise InputError(f"x holds {', '.join(arguments.values)}, none of which are numbers, or tokens that the model looks up in an embedding.")
        return items

    def _absent_ids(self, texts: Encoded | None) -> dict[str, int]:
        """The tokens that say nothing, as the tokenizer, or else the model's configuration, names them."""
        configured = getattr(getattr(self.net, "config", None), "pad_token_id", None)
        return {**({} if configured is None else {"pad": configured}), **(texts.absent_ids if texts else {})}

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
        if not len(like):
            return x.detach()
        return x.detach().to(like.device, like.dtype if x.is_floating_point() else x.dtype)

    def forward(self, batch: torch.Tensor, arguments: Arguments | None = None) -> Any:
        """One pass as the caller's grad mode has it: scores [m, k] where the model gives any, else its raw output."""
        return self._pass(batch, arguments) if self.seed is None else self._seeded(batch, arguments, self.seed)

    def _seeded(self, batch: torch.Tensor, arguments: Arguments | None, seed: int) -> Any:
        """Each input alone and from the same seed, so that its score depends neither on chance nor on its neighbours."""
        outs = []
        for k in range(len(batch)):
            seed_all(seed)
            outs.append(self._pass(batch[k : k + 1], None if arguments is None else arguments.rows([k])))
        return joined(outs)

    def _pass(self, batch: torch.Tensor, arguments: Arguments | None) -> Any:
        given = batch.clone() if self.memory.get("writes", not batch.requires_grad) else batch  # the user's data stay as they are
        with said_clearly(show_shape(batch) if arguments is None else arguments.described()):
            out = self.net(given) if arguments is None else arguments.call(self.net, given)
        if given is not batch and "writes" not in self.memory:
            self.memory["writes"] = not torch.equal(given, batch)
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

    def outputs(self, items: Items, batch: torch.Tensor | list[str], owners: Sequence[int] | None = None) -> Any:
        with torch.no_grad():
            if isinstance(batch, list):
                return in_groups(batch, self.tokenizer, self._read, self._reads_filled)
            return self.forward(batch, items.beside(range(len(items)) if owners is None else owners))

    def _read(self, given: Any) -> Any:
        """The scores of what a tokenizer made of texts."""
        arguments = read_arguments(self.net, given if isinstance(given, dict) else (given,), self._place)
        with said_clearly(arguments.described()):
            return self.scores(arguments.passed(self.net, arguments.values))

    def _reads_filled(self, texts: Padded) -> bool:
        """On the left each length is asked about by itself, since a model may have to be told the places."""
        if not texts.left and "filled" not in self.memory:
            self.memory["filled"] = reads_filled(self.net, read_arguments(self.net, dict(texts), self._place), texts)
        return not texts.left and self.memory["filled"]

    def engine(self, items: Items, item: int, samples: torch.Tensor, calls: int, precision: str) -> tuple[Callable[[Any], Any] | None, str]:
        if precision not in ("float32", "bfloat16"):
            raise InputError(f"precision={precision!r}: choose 'float32' (the model's own) or 'bfloat16' (faster, not exact).")
        exact = precision == "float32"
        if isinstance(samples, list):
            if not exact:
                raise UnsupportedError(f"precision={precision!r} and the words of a text do not go together; leave precision out.")
            return None, "texts"
        if not exact and self.seed is not None:
            raise InputError(f"precision={precision!r} and a model that draws random numbers do not go together; leave precision out.")
        if exact and (calls < WORTH_A_TWIN or self.seed is not None or items.arguments is not None):
            return None, "forward"
        if items.arguments is not None:
            return self._rough(items, item), f"copy {precision}"
        own = self.like.dtype if len(self.like) or not samples.is_floating_point() else samples.dtype
        with torch.no_grad():
            run = self._exact_twin(own, samples) if exact or own == torch.bfloat16 else self._other_twin(torch.bfloat16, samples)
            boxed = None if run is None else self._incremental(own if exact else torch.bfloat16, items.batch[item], samples, calls)
        return boxed or run, "forward" if run is None else f"{'incremental' if boxed else 'twin'} {precision}"

    def _incremental(self, dtype: torch.dtype, x: torch.Tensor, samples: torch.Tensor, calls: int) -> Callable[[Any], Any] | None:
        """The twin that computes only what a box over the input changes, where it pays and is proved."""
        made = self.memory.get((twin.__name__, dtype), (None, None))[1]
        return None if made is None else incremental(made, x, samples, calls, self.scores)

    def _rough(self, items: Items, item: int) -> Callable[[Any], Any]:
        """A copy in bfloat16, given what this item is beside the batch."""
        copied: Any = self._made(torch.bfloat16, copy_in)

        def run(batch: torch.Tensor) -> Any:
            with torch.no_grad(), said_clearly(f"{show_shape(batch)} in bfloat16"):
                return as_dtype(self.scores(items.beside([item] * len(batch)).call(copied, batch.to(torch.bfloat16))), batch)

        return run

    def _exact_twin(self, dtype: torch.dtype, samples: torch.Tensor) -> Callable[[Any], Any] | None:
        """The faster twin; None if there is none, or it does not give the model's own scores."""
        run = None if self.memory.get("writes") else self._kept(dtype, twin)
        if run is None:
            return None
        try:
            return run if same_scores(self.forward(samples), run, samples) else None
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, AskwhyError) or not is_out_of_memory(error):
                raise
            return None  # not even the samples fit together: ask the model itself, which may be given less

    def slope_twin(self, samples: torch.Tensor, calls: int, question: Any, read: Callable[[Any], Any]) -> Callable[[torch.Tensor], Any] | None:
        """A faster forward pass to be differentiated, where it pays and is proved.

        read(outputs) gives the scores of samples; `question` stands for it, so that asking again needs no second proof.
        """
        own = self.like.dtype if len(self.like) or not samples.is_floating_point() else samples.dtype
        if calls < WORTH_A_SLOPE_TWIN or self.seed is not None or self.memory.get("writes") or hooked(self.net):
            return None
        made = self._made(own, slope_twin)
        if made is None:
            return None
        twins, proved = self.memory.get("slopes proved", (None, []))
        if twins is not made:
            proved = []
        if question not in proved:
            if not same_slopes(lambda batch: self.forward(batch.clone()), lambda batch: self.scores(made(batch)), samples, read):
                return None
            proved.append(question)
        self.memory["slopes proved"] = made, proved[-16:]
        return lambda batch: self.scores(made(batch))

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

    def _made(self, dtype: torch.dtype, make: Callable[..., Any]) -> Callable[[Any], Any] | None:
        """What `make` makes of the model, made anew when a weight or an attribute has changed."""
        tensors = [*self.net.parameters(), *self.net.buffers()]
        # the version counts changes in place, but not those through .data, which the fingerprint shows
        state = tuple((t.data_ptr(), t._version) for t in tensors), fingerprint(tensors), attributes(self.net)
        known, made = self.memory.get((make.__name__, dtype), (None, None))
        if known != state:
            made = make(self.net, dtype)
            self.memory[make.__name__, dtype] = state, made
        return made  # type: ignore[no-any-return]

    def _kept(self, dtype: torch.dtype, make: Callable[..., Any]) -> Callable[[Any], Any] | None:
        """What `make` makes of the model, for scores only."""
        own = self._made(dtype, make)
        if own is None:
            return None

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
        state = random_state(self.like)
        for p in frozen:
            p.requires_grad_(False)
        try:
            yield
            self._refuse_chance(state)
        except AskwhyError as error:
            self._refuse_chance(state, error)  # the likelier reason
            raise
        finally:
            for p in frozen:
                p.requires_grad_(True)
            set_random_state(self.like, state)

    def _refuse_chance(self, state: list[Any], cause: AskwhyError | None = None) -> None:
        """Raise ModelError if the model has drawn random numbers since."""
        if self.seed is None and not same_random_state(state, random_state(self.like)):
            raise ModelError(
                "the model draws random numbers in its forward pass (dropout with training=True, torch.rand, np.random, random, ...), so it has no one score to explain; askwhy.wrap(net, seed=0) runs every pass from the same seed."
            ) from cause


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
