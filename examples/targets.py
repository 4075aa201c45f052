"""Draws docs/targets.jpg: one picture, and what answers for each thing that a network may say about it.

python examples/targets.py [--out docs]      # less than a minute on one core; the networks are trained here
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

import askwhy as aw

SIDE = 32
COLOURS = ("red", "green", "blue")
QUESTION = ["what", "colour", "is", "left", "right"]
CAPTION = ["<start>", "left", "of", *COLOURS]


# ---- pictures: two things of two colours, one on the left and one on the right -------------------------------------


def scenes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures [n, 3, h, w], where each colour is [n, 3, h, w], and which colours are left and right [n, 2]."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(0.25, 0.45, (n, 1, SIDE, SIDE)) + rng.normal(0, 0.04, (n, 3, SIDE, SIDE))
    masks, sides = np.zeros((n, 3, SIDE, SIDE)), np.stack([rng.permutation(3)[:2] for _ in range(n)])
    for picture, mask, pair in zip(pictures, masks, sides, strict=True):
        for side, colour in enumerate(pair):
            mask[colour] = thing(rng, side)
            paint = rng.uniform(0.0, 0.25, 3)
            paint[colour] = rng.uniform(0.75, 1)
            picture[:, mask[colour] > 0] = paint[:, None] + rng.normal(0, 0.04, (3, int(mask[colour].sum())))
    return torch.tensor(pictures.clip(0, 1)).float(), torch.tensor(masks).float(), torch.tensor(sides)


def thing(rng: np.random.Generator, side: int) -> np.ndarray:
    """A disc or a square in one half of the picture."""
    size = int(rng.integers(4, 7))
    y, x = rng.integers(size, SIDE - size), rng.integers(size, SIDE // 2 - size + 1) + side * SIDE // 2
    rows, columns = np.mgrid[:SIDE, :SIDE]
    if rng.random() < 0.5:
        return (rows - y) ** 2 + (columns - x) ** 2 < size**2
    return np.maximum(abs(rows - y), abs(columns - x)) < size - 1


# ---- networks ------------------------------------------------------------------------------------------------------


class Looker(nn.Module):
    """Masks of the colours, and what can be read from them: scores, boxes, areas; and a vector for the whole picture."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.body(picture)
        masks = self.head(features)
        there = masks.sigmoid()
        columns = there.amax(2)  # how surely a colour is in a column
        right = (1 - (1 - columns).flip(2).cumprod(2)).sum(2)  # columns up to the last one that has it
        left = SIDE - (1 - (1 - columns).cumprod(2)).sum(2)
        return {
            "masks": masks,  # [m, 3, h, w]
            "scores": masks.amax((2, 3)),  # [m, 3]
            "edges": torch.stack([left, right], 2),  # [m, 3, 2], in pixels
            "areas": there.mean((2, 3)),  # [m, 3], shares of the picture
            "vector": features.mean((2, 3)),  # [m, 16]
        }


class Answerer(nn.Module):
    """The colour that a question asks for: [m, 3]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.words = body, nn.Embedding(len(QUESTION), 32)
        self.head = nn.Linear(32, 3)

    def forward(self, picture: torch.Tensor, question: torch.Tensor) -> torch.Tensor:
        halves = self.body(picture).unflatten(3, (2, -1)).mean((2, 4)).flatten(1)  # [m, 16 channels of two halves]
        return self.head(halves * self.words(question).sum(1))


class Captioner(nn.Module):
    """The scores of the next word after each word so far: [m, words, vocabulary]."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.words, self.next = body, nn.Embedding(len(CAPTION), 32), nn.GRU(32, 32, batch_first=True)
        self.gate, self.head = nn.Linear(32, 32), nn.Linear(32, len(CAPTION))
        self.said = nn.Linear(32, len(CAPTION))

    def forward(self, picture: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        halves = self.body(picture).unflatten(3, (2, -1)).mean((2, 4)).flatten(1)
        state = self.next(self.words(words))[0]
        return self.head(halves[:, None] * self.gate(state)) + self.said(state)


def fit(net: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], n: int, steps: int, rate: float = 0.01) -> Any:
    """Minimise loss(rows) over batches of rows out of n."""
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(torch.arange(32 * step, 32 * (step + 1)) % n).backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


def networks(n: int = 512) -> tuple[Any, Any, Any]:
    """A looker, and an answerer and a captioner that see with its eyes."""
    torch.manual_seed(0)
    pictures, masks, sides = scenes(n, seed=0)
    looker, cross = Looker(), nn.CrossEntropyLoss()
    fit(looker, lambda rows: nn.functional.binary_cross_entropy_with_logits(looker(pictures[rows])["masks"], masks[rows]), n, 200)

    answerer, asked = Answerer(looker.body), torch.randint(0, 2, (n,))
    questions = torch.stack([words_of(("what colour is left", "what colour is right")[side], QUESTION)[0] for side in asked])
    fit(answerer, lambda rows: cross(answerer(pictures[rows], questions[rows]), sides[rows, asked[rows]]), n, 250)

    captioner, first = Captioner(looker.body), CAPTION.index("red")
    said = torch.tensor([[first + int(a), 1, 2, first + int(b)] for a, b in sides])  # "red left of green"
    so_far = torch.cat([torch.zeros(n, 1, dtype=torch.long), said[:, :-1]], 1)
    fit(captioner, lambda rows: cross(captioner(pictures[rows], so_far[rows]).flatten(0, 1), said[rows].flatten()), n, 200)
    return looker, answerer, captioner


def words_of(text: str, vocabulary: list[str]) -> torch.Tensor:
    return torch.tensor([[vocabulary.index(word) for word in text.split()]])


# ---- one row for each kind of target: two answers about one picture ------------------------------------------------

GREY = 0.35  # the background, which stands for nothing
PATHS, BOXES = {"baseline": GREY}, {"size": 5, "stride": 1, "baseline": GREY}
Row = tuple[str, str, list[tuple[str, Any]]]  # the kind, the method, and two times what was asked and the answer


def two_inputs(answerer: Any, captioner: Any, picture: torch.Tensor) -> list[Row]:
    """A word of a caption, an answer about a picture."""

    def word(place: int, text: str, other: str) -> Any:
        x = {"picture": picture, "words": words_of("<start> red left of", CAPTION)}
        given = {"picture": GREY, "words": "zero"}
        asked, instead = CAPTION.index(text), CAPTION.index(other)
        target, versus = lambda out: out[:, place, asked], lambda out: out[:, place, instead]
        return aw.integrated_gradients(captioner, x, target=target, versus=versus, baseline=given)["picture"]

    def reply(side: str, text: str, other: str) -> Any:
        x = {"picture": picture, "question": words_of(f"what colour is {side}", QUESTION)}
        given = {"picture": GREY, "question": "zero"}
        return aw.integrated_gradients(answerer, x, target=COLOURS.index(text), versus=COLOURS.index(other), baseline=given)["picture"]

    words = [
        ("“[red] left of green”, rather than green", word(0, "red", "green")),
        ("“red left of [green]”, rather than red", word(3, "green", "red")),
    ]
    replies = [
        ("“what colour is left?” red, not green", reply("left", "red", "green")),
        ("“... right?” green, not red", reply("right", "green", "red")),
    ]
    return [("a word of a caption", "integrated_gradients", words), ("an answer to a question", "integrated_gradients", replies)]


def one_input(looker: Any, picture: torch.Tensor, like: torch.Tensor) -> list[Row]:
    """What is read from the network's outputs."""
    model = aw.wrap(looker, output=lambda out: out)  # all that it returns, not only its scores
    found = (looker(picture)["masks"] > 0).float()
    vectors = looker(like)["vector"]

    def two(kind: str, method: str, options: dict[str, Any], *asked: tuple[str, Callable[[Any], torch.Tensor]]) -> Row:
        return kind, method, [(what, aw.explain(model, picture, method, target=read, **options)) for what, read in asked]

    def score(colour: int) -> Any:
        return lambda out: out["scores"][:, colour]

    def edge(side: int) -> Any:
        return lambda out: out["edges"][:, 0, side]

    def mask(colour: int) -> Any:
        return lambda out: (out["masks"][:, colour] * found[:, colour]).sum((1, 2)) / found[:, colour].sum()

    def similarity(k: int) -> Any:
        return lambda out: torch.cosine_similarity(out["vector"], vectors[k : k + 1])

    def area(colour: int) -> Any:
        return lambda out: out["areas"][:, colour]

    return [
        two("a detection's score", "grad_cam", {"layer": "body.3"}, ("there is red", score(0)), ("there is green", score(1))),
        two("a side of a box", "occlusion", BOXES, ("the left edge of red", edge(0)), ("the right edge of red", edge(1))),
        two("a segmentation mask", "integrated_gradients", PATHS, ("the mask of red", mask(0)), ("the mask of green", mask(1))),
        two("a similarity", "occlusion", BOXES, ("like a picture of red", similarity(0)), ("like one of green", similarity(1))),
        two("a regression", "deep_lift", PATHS, ("the area of red", area(0)), ("the area of green", area(1))),
    ]


def inside(looker: Any, picture: torch.Tensor, examples: torch.Tensor, masks: torch.Tensor) -> list[Row]:
    """A neuron, and a direction that was fitted to examples."""
    model = aw.wrap(looker, output=lambda out: out)
    features = looker.body(examples)
    on = [(features * mask).sum((0, 2, 3)) / mask.sum() for mask in (masks[:, :1], masks[:, 1:2], 1 - masks.amax(1, keepdim=True))]
    units = [int((on[k] / (on[1 - k] + on[2] + 0.01)).argmax()) for k in (0, 1)]  # that are busy where this colour is
    neurons = [(f"neuron {u} of body.3", aw.integrated_gradients(model, picture, target=aw.neuron("body.3", u), **PATHS)) for u in units]
    concepts = []
    for colour in (0, 1):
        there = (masks[:, colour].sum((1, 2)) > 0).numpy()
        fitted = LogisticRegression(C=100, max_iter=1000).fit(features.mean((2, 3)).numpy(), there)
        target = aw.concept("body.3", fitted.coef_[0], name=COLOURS[colour])
        concepts.append((f"the direction of {COLOURS[colour]}", aw.integrated_gradients(model, picture, target=target, **PATHS)))
    return [("a neuron", "integrated_gradients", neurons), ("a concept", "integrated_gradients", concepts)]


# ---- the sheet -----------------------------------------------------------------------------------------------------


def draw(rows: list[Row], picture: torch.Tensor, outline: torch.Tensor) -> Any:
    """Two columns of rows, each the input and two maps."""
    half = -(-(len(rows) + 1) // 2)
    figure, axes = plt.subplots(half, 6, figsize=(15, 3 * half), layout="constrained", facecolor="white")
    for ax in axes.ravel():
        ax.set_axis_off()
    for k, (kind, method, answers) in enumerate(rows):
        places = axes[k % half, 3 * (k // half) : 3 * (k // half) + 3]
        places[0].imshow(picture[0].permute(1, 2, 0))
        places[0].set_title(f"{textwrap.fill(kind, 26)}\n({method})", fontsize=12, loc="left")
        for ax, (what, why) in zip(places[1:], answers, strict=True):
            ax.imshow(why.map(), cmap="RdBu_r", norm=matplotlib.colors.CenteredNorm())
            ax.contour(outline, levels=[0.5], colors="0.3", linewidths=0.8)
            ax.set_title(textwrap.fill(f"{what}: {why.prediction[0]:.2f}", 26), fontsize=12)
    said = "Left: what the network sees.\nMaps: red speaks for the answer, or makes the number larger,\nblue speaks against it; white is zero.\nThin lines: the outlines of the things. Numbers: the score."
    axes[-1, 3].text(0, 0.5, said, fontsize=13, va="center", transform=axes[-1, 3].transAxes).set_in_layout(False)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"))
    folder = parser.parse_args().out
    torch.set_num_threads(1)
    looker, answerer, captioner = networks()
    pictures, masks, sides = scenes(64, seed=1)
    clear = masks[:, 0, :, :3].sum((1, 2)) == 0  # of the picture's left edge, so that both sides of the red thing are seen
    shown = next(i for i, pair in enumerate(sides.tolist()) if pair == [0, 1] and clear[i])  # red on the left, green on the right
    like = torch.full((2, 3, SIDE, SIDE), GREY)
    like[0, 0, 8:20, 8:20], like[1, 1, 8:20, 8:20] = 0.9, 0.9
    picture = pictures[shown : shown + 1]
    rows = two_inputs(answerer, captioner, picture) + one_input(looker, picture, like) + inside(looker, picture, *scenes(256, seed=2)[:2])
    for kind, method, answers in rows:
        print(f"{kind}, {method}: " + "; ".join(f"{what} {why.prediction[0]:.3g}" for what, why in answers), flush=True)
    figure = draw(rows, picture, masks[shown].amax(0))
    figure.savefig(folder / "targets.jpg", dpi=70, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
