"""Which components are meant: a recipe, its name, an array that numbers the regions, or the usual ones of an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from askwhy.components import Recipe, features, from_labels, patches, pixels, superpixels, tokens
from askwhy.errors import InputError, UnsupportedError
from askwhy.models.base import Items
from askwhy.wording import characters, sentences, words

RECIPES: dict[str, Callable[[], Recipe]] = {
    "pixels": pixels, "patches": patches, "superpixels": superpixels, "features": features,
    "words": words, "characters": characters, "sentences": sentences, "tokens": tokens,
}  # fmt: skip


TEXTUAL = ("words", "characters", "sentences", "tokens")


def recipe(components: Any, items: Items) -> Recipe:
    """What the user named: a recipe, its name, an array of labels, or None for the usual one of this kind of input."""
    if isinstance(components, Recipe):
        return components
    if components is None:
        components = {"image": "superpixels", "table": "features", "text": "words" if items.texts else "tokens"}.get(items.kind, "pixels")
    if items.kind == "several":
        raise UnsupportedError("components of several inputs together are not known; use integrated_gradients, lrp or saliency.")
    if items.kind == "text" and components not in TEXTUAL:
        raise InputError(f"components={components!r} means nothing for a text; choose one of {', '.join(map(repr, TEXTUAL))}.")
    if isinstance(components, str):
        if components not in RECIPES:
            raise InputError(f"components={components!r}: choose one of {', '.join(map(repr, RECIPES))}, or give an array that numbers the regions.")
        return RECIPES[components]()
    array = np.asarray(components)
    if array.dtype.kind not in "iu":
        raise InputError(f"components= is {array.dtype} {list(array.shape)}; an array has to number the regions, int [h, w].")
    return Recipe(f"{len(np.unique(array))} given regions", lambda items, i: from_labels(array, items))
