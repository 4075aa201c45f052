"""Does what a method calls important matter? Deletion and insertion on four photos, for the methods that only predict.

    python examples/deletion.py

Pixels are hidden (deletion) or shown (insertion) in the order of each method's map, in 20 steps; what is hidden is blurred.
The numbers are areas under the curve of the class's probability: low is good for deletion, high for insertion. "random"
hides superpixels in random order, the mean of ten orders. Which method looks best depends on what stands for the hidden
part, so these numbers are a check against chance and no ranking (Petsiuk et al. 2018).
"""

from __future__ import annotations

import numpy as np
import torch

import askwhy as aw

PHOTOS = {"cat": "tiger cat", "coffee": "espresso", "motorcycle": "moped", "china": "palace"}
METHODS = {
    "occlusion": {},
    "ablation": {},
    "ablation, keep=True": {"keep": True},
    "rise": {"samples": 1000},
    "lime": {"samples": 500},
    "shapley": {"samples": 500, "components": aw.superpixels(n=40)},
}
STEPS = 20
ORDERS = 10


def curve(model: aw.models.Model, x: torch.Tensor, hidden: torch.Tensor, order: np.ndarray, target: int, insert: bool) -> float:
    """The area under the probability while pixels [h w], in this order, are hidden or shown."""
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    place = torch.as_tensor(rank.reshape(x.shape[1:]))
    counts = np.linspace(0, len(order), STEPS + 1).astype(int)
    touched = torch.stack([place < int(count) for count in counts])[:, None]
    batch = torch.where(touched ^ (not insert), x, hidden)
    with torch.no_grad():
        probability = model.net(batch).softmax(1)[:, target].double().numpy()
    return float(np.trapezoid(probability, dx=1 / STEPS))


def random_orders(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Orders of pixels in which whole superpixels come one after the other."""
    return [np.argsort(rng.permutation(labels.max() + 1)[labels.ravel()], kind="stable") for _ in range(ORDERS)]


def table() -> dict[str, list[tuple[float, float]]]:
    """Deletion and insertion of each method on each photo."""
    from askwhy.components import absent, undivided

    model = aw.zoo.load("efficientnet-lite0")
    found: dict[str, list[tuple[float, float]]] = {}
    for name, label in PHOTOS.items():
        photo = aw.zoo.photo(name)
        items = model.prepare(photo)
        x, target = items.batch[0], list(model.labels).index(label)
        hidden = torch.as_tensor(absent("blur", items, 0, undivided(items))[0][0].copy()).to(x)
        both = lambda order: tuple(curve(model, x, hidden, order, target, insert) for insert in (False, True))  # noqa: B023, E731
        labels = aw.superpixels().make(items, 0).labels
        chance = [both(order) for order in random_orders(labels, np.random.default_rng(0))]
        found.setdefault("random", []).append(tuple(np.mean(chance, 0)))
        for title, options in METHODS.items():
            why = aw.explain(model, photo, title.split(",")[0], target=target, **options)
            found.setdefault(title, []).append(both(np.argsort(-why.map().ravel(), kind="stable")))
    return found


def main() -> None:
    found = table()
    print(f"{'':22}" + "".join(f"{name:>18}" for name in PHOTOS) + f"{'mean':>18}")
    for title, rows in found.items():
        cells = [*rows, tuple(np.mean(rows, 0))]
        print(f"{title:22}" + "".join(f"{f'{deletion:.3f} / {insertion:.3f}':>18}" for deletion, insertion in cells))


if __name__ == "__main__":
    main()
