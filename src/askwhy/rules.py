"""The sixth noun: a table `operation -> backward rule`, applied to a model as it is, however its operations are spelled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import UnsupportedError

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")

Rule = Callable[..., Any]  # (op, *args, **kwargs) -> what the op returns, or NotImplemented where this call is not meant


# other names of the same arithmetic; "rsub" and "rdiv" are b - a and b / a
SPELLINGS = {"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "rtruediv": "rdiv", "negative": "neg"}


def key_of(op: Any) -> str:
    """One name for every spelling: F.relu, torch.relu_, Tensor.relu and nn.ReLU are all "relu"; 2 / x is "rdiv"."""
    name = getattr(op, "__name__", "?").split(".")[0].strip("_")
    return SPELLINGS.get(name, name)


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


@contextmanager
def rules(net: torch.nn.Module, table: Mapping[str, Rule]) -> Iterator[Record]:
    """Inside the block, every operation that the table names goes through its rule.

    Refuses with UnsupportedError what cannot be intercepted: torch.jit modules here; no_grad around a ruled operation
    while it happens; what bypassed the rules when `check_graph` is called. Example: `with rules(net, GUIDED) as record:`.
    """
    if any(isinstance(m, torch.jit.ScriptModule) for m in net.modules()):
        scripted = next(name or "the model itself" for name, m in net.named_modules() if isinstance(m, torch.jit.ScriptModule))
        raise UnsupportedError(f"{scripted} is a torch.jit module, whose operations cannot be intercepted; give the nn.Module that it was made from.")
    record = Record()
    with _mode(table, record):
        yield record


def _mode(table: Mapping[str, Rule], record: Record) -> Any:
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = key_of(op)
            record.operations[name] += 1
            if name in COMPARISONS and needs_grad(args):
                record.compared[name] += 1
            rule = table.get(name)
            if rule is None:
                return op(*args, **kwargs)
            if not torch.is_grad_enabled():
                raise UnsupportedError(
                    f"the model runs {name} without gradients (an autograd.Function, a reentrant checkpoint or a no_grad block), so no rule can reach it; "
                    "write it with ordinary operations, use checkpoint(..., use_reentrant=False), or ask with occlusion or lime."
                )
            view = args[0] if args and isinstance(args[0], torch.Tensor) and args[0]._is_view() else None
            if view is not None:  # an in-place operation on a view would lose the hook: work on a copy and write it back
                args = (view.clone(), *args[1:])
            out = rule(op, *args, **kwargs)
            meant = out is not NotImplemented
            if not meant:
                out = op(*args, **kwargs)
            if isinstance(out, torch.Tensor) and out.grad_fn is not None:
                record.nodes.append(out.grad_fn)
                record.ruled.update([name] if meant else [])
            return view.copy_(out) if view is not None and out is args[0] else out

    return Mode()


def needs_grad(args: Any) -> bool:
    """Whether any tensor among the arguments depends on the input."""
    return any(isinstance(a, torch.Tensor) and a.requires_grad and a.is_floating_point() for a in args)


def check_graph(score: torch.Tensor, record: Record) -> None:
    """Walk the autograd graph of the score and refuse what the rules did not see. Raises UnsupportedError."""
    known, seen, stack = set(record.nodes), set(), [score.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        opaque = OPAQUE_NODES.get(name.split("::")[-1].rstrip("0123456789"))
        if opaque is None and isinstance(node, torch.autograd.function.BackwardCFunction):
            opaque = f"the autograd.Function {name.removesuffix('Backward')}" + (
                " (a reentrant checkpoint; use use_reentrant=False)" if "Checkpoint" in name else ""
            )
        if opaque is None and name.rstrip("0123456789").endswith(RECTIFIER_NODES) and node not in known:
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
