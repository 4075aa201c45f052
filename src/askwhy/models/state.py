"""What a network and its generators hold at a moment, so that a change can be seen or undone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from askwhy._lazy import lazy

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


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


def attributes(net: torch.nn.Module) -> tuple[Any, ...]:
    """The modules and what they hold beside weights, any of which a forward pass may read: switches, strides, functions, tables."""
    own = vars(torch.nn.Module()).keys() - {"training"}
    return tuple((id(m), *(plain(v) for name, v in vars(m).items() if name not in own)) for m in net.modules())


def plain(value: Any) -> Any:
    """What changes when the value does: numbers and texts, also in lists; which object, of anything else."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return tuple((key, plain(one)) for key, one in value.items())
    if isinstance(value, torch.Tensor):
        return id(value), value.data_ptr(), None if value.is_inference() else value._version
    return id(value)


def hooked(net: torch.nn.Module) -> bool:
    """Whether anybody listens to, or changes, what passes through the modules."""
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in all_modules(net))


def random_state(like: torch.Tensor) -> list[Any]:
    """Of the generators that a pass of the model may draw from: torch's, numpy's and Python's."""
    on_gpu = [torch.cuda.get_rng_state(like.device)] if like.is_cuda else []
    return [torch.random.get_rng_state(), np.random.get_state(), random.getstate(), *on_gpu]


def set_random_state(like: torch.Tensor, states: list[Any]) -> None:
    torch.random.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    for state in states[3:]:
        torch.cuda.set_rng_state(state, like.device)


def same_random_state(one: list[Any], other: list[Any]) -> bool:
    """Whether nobody drew in between."""
    tensors = zip(one[:1] + one[3:], other[:1] + other[3:], strict=True)
    numpys = zip(one[1][1:], other[1][1:], strict=True)  # the key and how much of it is used up
    return all(torch.equal(a, b) for a, b in tensors) and all(np.array_equal(a, b) for a, b in numpys) and one[2] == other[2]


def seed_all(seed: int) -> None:
    """Start all of them anew."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def fingerprint(tensors: list[torch.Tensor]) -> tuple[float, ...]:
    """One number a tensor that changes when a value changes or moves, as quick as a sum."""
    ramp = torch.linspace(1, 2, max((t.numel() for t in tensors), default=0))
    return tuple(float(torch.dot(t.detach().flatten().float(), ramp[: t.numel()].to(t.device))) for t in tensors)
