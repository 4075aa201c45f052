"""The sixth noun: a table `operation -> backward rule`, applied to a model as it is, however its operations are spelled."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError
from askwhy.operations import by_position, key_of, writes

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Rule = Callable[..., Any]  # (op, *args, **kwargs) -> what the op returns, or NotImplemented where this call is not meant
Written = Callable[..., Any]  # (*args, **kwargs) -> the same result in simpler operations, which meet the rules in turn


# the autograd nodes that a rectifier leaves behind; one that the mode did not see means that the rule was bypassed
RECTIFIER_NODES = ("ReluBackward", "HardtanhBackward", "ThresholdBackward")
OPAQUE_NODES = {"DifferentiableGraphBackward": "a torch.jit graph", "CompiledFunctionBackward": "a torch.compile graph"}
COMPARISONS = frozenset({"gt", "ge", "lt", "le", "greater", "less", "greater_equal", "less_equal", "heaviside", "sign", "sgn"})


@dataclass
class Record:
    """What happened inside a `rules` block."""

    operations: Counter[str] = field(default_factory=Counter)  # every operation that was seen
    ruled: Counter[str] = field(default_factory=Counter)  # those that a rule changed
    nodes: list[Any] = field(default_factory=list)  # autograd nodes of the seen rectifiers; kept, since identity is compared
    compared: Counter[str] = field(default_factory=Counter)  # comparisons of activations: a rectifier may be hidden in them
    plain: Counter[str] = field(default_factory=Counter)  # operations on activations that kept their derivative
    kept: dict[int, list[Kept]] = field(default_factory=dict)  # by storage

    def keep(self, x: torch.Tensor) -> Kept:
        """Hold the tensor for the backward pass, also when the model writes into it later."""
        box = Kept(x.detach(), x._version)
        self.kept.setdefault(storage(x), []).append(box)
        return box

    def before_writing(self, x: torch.Tensor) -> None:
        """Copy what is kept of this storage, since it is about to change."""
        for box in self.kept.pop(storage(x), ()):
            box.tensor, box.version = box.get().clone(), None


@dataclass
class Kept:
    """A tensor as it was when it was kept."""

    tensor: torch.Tensor
    version: int | None  # None: a copy of our own

    def get(self) -> torch.Tensor:
        if self.version is not None and self.tensor._version != self.version:
            raise UnsupportedError(
                "the model overwrites an activation in place where it could not be seen (out=, or .data); write that step without in-place operations."
            )
        return self.tensor


def storage(x: torch.Tensor) -> int:
    return x.untyped_storage().data_ptr()


@contextmanager
def rules(
    net: torch.nn.Module, table: Mapping[str, Rule], written: Mapping[str, Written] | None = None,
    *, record: Record | None = None, strict: bool = True,
) -> Iterator[Record]:  # fmt: skip
    """Inside the block, every operation that the table names goes through its rule; those in `written` are replaced first.

    strict=False leaves alone what does not depend on the input. A table whose rules need the `record` brings its own.

    Refuses with UnsupportedError what cannot be intercepted: torch.jit modules here; no_grad around a ruled operation
    while it happens; what bypassed the rules when `check_graph` is called. Example: `with rules(net, {"relu": rule}) as record:`.
    """
    if (hidden := scripted(net)) is not None:
        raise UnsupportedError(f"{hidden} is a torch.jit module, whose operations cannot be intercepted; give the nn.Module that it was made from.")
    record, notes = record or Record(), _NOTES.set([])
    try:
        with _mode(table, record, written or {}, strict=strict):
            yield record
    finally:  # the graph holds the rules, and the rules the graph: nobody else could free the activations
        forget(_NOTES.get())
        _NOTES.reset(notes)
        record.nodes.clear()
        record.kept.clear()


def scripted(net: torch.nn.Module) -> str | None:
    """The first part of the model that torch.jit made, in which no operation can be intercepted."""
    return next((name or "the model itself" for name, m in net.named_modules() if isinstance(m, torch.jit.ScriptModule)), None)


_NOTES: ContextVar[list[tuple[Any, str]]] = ContextVar("notes on tensors")


def note(x: torch.Tensor, name: str, value: Any) -> None:
    """Write on a tensor what a later operation will ask about it; forgotten at the end of the `rules` block."""
    setattr(x, f"_askwhy_{name}", value)
    _NOTES.get().append((weakref.ref(x), name))


def noted(x: torch.Tensor, name: str) -> Any:
    """What `note` wrote under this name; None where it wrote nothing."""
    return getattr(x, f"_askwhy_{name}", None)


def forget(notes: list[tuple[Any, str]]) -> None:
    for reference, name in notes:
        x = reference()
        if x is not None:
            vars(x).pop(f"_askwhy_{name}", None)


def _mode(table: Mapping[str, Rule], record: Record, written: Mapping[str, Written], *, strict: bool) -> Any:
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.record = record

        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            args, kwargs = by_position(args, kwargs or {})
            name = key_of(op)
            active = strict or needs_grad((*args, *kwargs.values()))
            if active and name in written:
                with self:
                    out = written[name](*args, **kwargs)
                if out is not NotImplemented:
                    return out
            writing = note_call(record, name, op, args, kwargs)
            rule = table.get(name)
            if rule is None or not active:
                out = op(*args, **kwargs)
                note_plain(record, name, out, could_be_cut=active and not strict)
                return out
            if not torch.is_grad_enabled():
                raise without_gradients(name)
            if not writing or not args[0]._is_view():
                return ruled(record, name, rule, op, args, kwargs)
            with self:  # an in-place operation on a view would lose the hook: work on a copy and write it back
                copy = args[0].clone()
            out = ruled(record, name, rule, op, (copy, *args[1:]), kwargs)
            return args[0].copy_(out) if out is copy else out

    return Mode()


def note_call(record: Record, name: str, op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Note an operation before it runs; whether it writes into its first argument."""
    record.operations[name] += 1
    writing = writes(op, args, kwargs)
    if writing and record.kept:
        record.before_writing(args[0])
    if name in COMPARISONS and needs_grad(args):
        record.compared[name] += 1
    return writing


def note_plain(record: Record, name: str, out: Any, *, could_be_cut: bool) -> None:
    """Note an operation that ran without a rule, if there is something to differentiate, or would be with gradients."""
    if could_be_cut and not torch.is_grad_enabled() and is_number(out):
        record.plain[f"{name} without gradient"] += 1
    elif is_activation(out):
        record.plain[name] += 1


def without_gradients(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"the model runs {name} without gradients (an autograd.Function, a reentrant checkpoint or a no_grad block), so no rule can reach it; "
        "write it with ordinary operations, use checkpoint(..., use_reentrant=False), or ask with occlusion or lime."
    )


def ruled(record: Record, name: str, rule: Rule, op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What the rule gives, or the operation itself where the rule is not meant."""
    out = rule(op, *args, **kwargs)
    meant = out is not NotImplemented
    if not meant:
        out = op(*args, **kwargs)
    if isinstance(out, torch.Tensor) and out.grad_fn is not None:
        record.nodes.append(out.grad_fn)
        if meant:
            record.ruled[name] += 1
    return out


def is_number(out: Any) -> bool:
    return isinstance(out, torch.Tensor) and out.is_floating_point() and not out.requires_grad


def is_activation(out: Any) -> bool:
    return needs_grad(out if isinstance(out, (tuple, list)) else (out,))


def needs_grad(args: Any) -> bool:
    """Whether any tensor among the arguments depends on the input."""
    return any(
        (a.requires_grad and a.is_floating_point()) if isinstance(a, torch.Tensor) else isinstance(a, (list, tuple)) and needs_grad(a) for a in args
    )


def check_graph(score: torch.Tensor, record: Record, *, rectifiers: bool = True) -> None:
    """Walk the autograd graph of the score and refuse what the rules did not see. Raises UnsupportedError.

    rectifiers=False: the table leaves them as they are.
    """
    known, seen, stack = set(record.nodes), set(), [score.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        opaque = OPAQUE_NODES.get(name.split("::")[-1].rstrip("0123456789"))
        own = type(node) is relay_function()._backward_cls
        if opaque is None and isinstance(node, torch.autograd.function.BackwardCFunction) and not own:
            opaque = f"the autograd.Function {name.removesuffix('Backward')}" + (
                " (a reentrant checkpoint; use use_reentrant=False)" if "Checkpoint" in name else ""
            )
        if opaque is None and rectifiers and name.rstrip("0123456789").endswith(RECTIFIER_NODES) and node not in known:
            opaque = f"a {name.rstrip('0123456789').removesuffix('Backward')} that runs inside another operation"
        if opaque:
            raise UnsupportedError(
                f"the model contains {opaque}, which cannot be intercepted, so this method would silently be a plain gradient there; rewrite that part with ordinary operations, or use gradient, occlusion or lime."
            )
        stack.extend(next_node for next_node, _ in node.next_functions)


def on_gradient(change: Callable[[torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]) -> Rule:
    """A rule: run the operation as it is, then change the gradient that enters it; change(output) -> (gradient -> gradient)."""

    def rule(op: Any, *args: Any, **kwargs: Any) -> Any:
        out = op(*args, **kwargs)
        if out.requires_grad:
            out.register_hook(change(out))
        return out

    return rule


def relay(record: Record, op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], pull: Callable[..., Callable[[torch.Tensor], Any]]) -> Any:
    """Run the operation as it is, and send the gradient back by a rule: pull(x, out) -> (gradient of out -> gradient of x).

    x and out come as `Kept`; x is the first argument, in its value before an in-place operation.
    """
    x, writing, way = args[0], writes(op, args, kwargs), Way()
    held = Kept(x.detach().clone(), None) if writing else record.keep(x)

    def run(given: torch.Tensor) -> torch.Tensor:
        value = op(given, *args[1:], **kwargs)
        # autograd lets no one write into a view that it did not make
        return given if writing else value.clone() if value._is_view() else value

    out = relay_function().apply(x, run, way, writing)
    way.back = pull(held, record.keep(out))
    return out


class Way:
    """The way back through an operation, which is known when the operation is done."""

    back: Callable[[torch.Tensor], Any]


@functools.lru_cache(maxsize=1)
def relay_function() -> Any:
    """An operation whose value and whose backward pass are given."""

    class Relay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor], way: Way, writing: bool) -> torch.Tensor:
            ctx.way = way
            if writing:
                ctx.mark_dirty(x)
            return run(x)

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            return ctx.way.back(gradients[0]), None, None, None

    return Relay
