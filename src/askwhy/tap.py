"""The fifth noun: read or edit what a layer gives, inside a `with` block; always undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from askwhy._lazy import lazy
from askwhy.errors import LayerError, near

if TYPE_CHECKING:
    import torch
else:
    torch = lazy("torch", "torch")


def find_layer(net: torch.nn.Module, layer: Any) -> tuple[str, torch.nn.Module]:
    """A layer by name or module -> (name, module). Raises LayerError with near names."""
    if isinstance(layer, str):
        try:
            return layer, net.get_submodule(layer)
        except AttributeError as error:
            known = [name for name, _ in net.named_modules() if name]
            raise LayerError(f"layer={layer!r}: the model has no such layer; {near(layer, known)}") from error
    for name, module in net.named_modules():
        if module is layer:
            return name, module
    raise LayerError(f"layer= is a {type(layer).__name__} that is no part of this model; give a module of it, or its name.")


@contextmanager
def hooked(net: torch.nn.Module, names: Iterable[str], hook: Callable[[str, torch.nn.Module, Any], Any]) -> Iterator[None]:
    """Inside the block, hook(name, module, output) runs behind each of these layers; what it returns, if anything, replaces the output."""
    handles = []
    try:
        for name in dict.fromkeys(names):
            handles.append(net.get_submodule(name).register_forward_hook(lambda module, args, out, name=name: hook(name, module, out)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def tap(
    net: torch.nn.Module, layers: Sequence[Any], edit: Callable[[str, torch.Tensor], torch.Tensor | None] | None = None
) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Inside the block, each layer's outputs are kept under its name, in the order of its calls.

    edit(name, output) may return another tensor for the model to go on with. The model goes on with a copy, so that a
    later in-place operation does not change what is kept. Example: `with tap(net, ["conv1"]) as seen: net(x)`.
    """
    seen: dict[str, list[torch.Tensor]] = {find_layer(net, layer)[0]: [] for layer in layers}

    def hook(name: str, module: torch.nn.Module, out: Any) -> torch.Tensor:
        if not isinstance(out, torch.Tensor):
            raise LayerError(f"layer {name!r} gives a {type(out).__name__} and not one tensor; choose a layer inside it.")
        changed = edit(name, out) if edit else None
        out = out if changed is None else changed
        seen[name].append(out)
        return out.clone()

    with hooked(net, seen, hook):
        yield seen


def once(seen: dict[str, list[torch.Tensor]], name: str) -> torch.Tensor:
    """The one output of a layer. Raises LayerError if the layer did not run, or ran several times."""
    outs = seen[name]
    if len(outs) != 1:
        why = "did not run in this forward pass" if not outs else f"runs {len(outs)} times in one forward pass, so its output is not one map"
        raise LayerError(f"layer {name!r} {why}; name another layer.")
    return outs[0]
