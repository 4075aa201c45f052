"""Does a map point at the thing it explains? Labelled cut-outs are pasted into photos, so the right answer is known.

The cut-outs are the stamps of Tux Paint (GPL-2, 161 MB; Debian and Ubuntu have them, and nothing has to be installed):

    apt-get download tuxpaint-stamps-default
    dpkg-deb -x tuxpaint-stamps-default_*.deb unpacked
    python examples/pointing_game.py unpacked/usr/share/tuxpaint/stamps --drawing docs/pointing_game.jpg

prints the tables of docs/pointing_game.md; about half an hour on one core. Zhang et al. 2018, https://doi.org/10.1007/s11263-017-1059-x
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, sobel

import askwhy as aw

SUBJECTS = {  # stamp -> ImageNet class: photos (no drawings) whose species or kind is one class, and no near one
    "animals/birds/chicken_profile": "hen", "animals/birds/hen": "hen", "animals/birds/rooster": "cock", "animals/birds/ostrich": "ostrich",
    "animals/birds/vulture": "vulture", "animals/birds/peacock": "peacock", "animals/birds/tucan": "toucan", "animals/birds/drake": "drake",
    "animals/birds/rainbow-lorikeet": "lorikeet", "animals/birds/duck": "drake", "animals/birds/pink_flamingo": "flamingo",
    "animals/birds/pelican": "pelican", "animals/birds/gander": "goose", "animals/birds/penguin": "king penguin",
    "animals/fish/lionfish": "lionfish", "animals/fish/clownfish": "anemone fish", "animals/fish/lobster": "spiny lobster",
    "animals/insects/Brown_slug": "slug", "animals/insects/Woodlouse": "isopod", "animals/insects/fly": "fly",
    "animals/insects/grasshopper": "grasshopper", "animals/insects/mantis": "mantis", "animals/lizards/iguana": "common iguana",
    "animals/mammals/apes/chimp": "chimpanzee", "animals/mammals/apes/gorilla": "gorilla", "animals/mammals/aquatic/orca": "killer whale",
    "animals/mammals/aquatic/otter": "otter", "animals/mammals/aquatic/sea_lion": "sea lion", "animals/mammals/badger": "badger",
    "animals/mammals/bears/european-bear": "brown bear", "animals/mammals/bears/toys/edward_bear": "teddy",
    "animals/mammals/bovines/bison": "bison", "animals/mammals/bovines/ram": "ram", "animals/mammals/camel/dromedary": "Arabian camel",
    "animals/mammals/cats/lion": "lion", "animals/mammals/cats/lion-2": "lion", "animals/mammals/cats/tiger": "tiger",
    "animals/mammals/cats/tiger_sumatran": "tiger", "animals/mammals/dogs/dingo": "dingo", "animals/mammals/dogs/fox": "red fox",
    "animals/mammals/elephant": "African elephant", "animals/mammals/equines/horse": "sorrel", "animals/mammals/equines/zebra": "zebra",
    "animals/mammals/hippopotamus": "hippopotamus", "animals/mammals/pig": "hog", "animals/mammals/pig_golden": "hog",
    "animals/mammals/rodents/beaver": "beaver", "animals/mammals/rodents/marmot": "marmot", "animals/mammals/wildboar": "wild boar",
    "animals/marsupials/koala": "koala", "animals/marsupials/wombat": "wombat", "food/fruit/Strawberry2": "strawberry",
    "food/fruit/cherimoya": "custard apple", "food/fruit/lemon": "lemon", "food/fruit/orange_seville": "orange",
    "food/fruit/pineapple": "pineapple", "food/vegetables/broccoli": "broccoli", "food/vegetables/corn": "corn",
    "hobbies/binoculars": "binoculars", "hobbies/camera_35mm": "reflex camera", "hobbies/music/brass/trumpet": "cornet",
    "hobbies/music/percussion/drum_tomtom_floor": "drum", "hobbies/music/string/cello": "cello",
    "hobbies/music/string/guitar2": "electric guitar", "hobbies/music/string/guitar_electric": "electric guitar",
    "hobbies/music/string/guitar_classical": "acoustic guitar", "hobbies/music/string/violin": "violin",
    "hobbies/music/wind/bassoon": "bassoon", "household/dishes/mug": "coffee mug", "household/dishes/pitcher_small": "pitcher",
    "household/dishes/teapot": "teapot", "household/garbagecan": "ashcan", "household/toilet": "toilet seat",
    "household/tools/hammer": "hammer", "household/tools/paintbrush_large": "paintbrush", "medical/bandage_adhesive": "Band Aid",
    "medical/stethoscope": "stethoscope", "medical/syringe": "syringe", "military/paratrooper": "parachute",
    "military/vehicles/f22_raptor": "warplane", "plants/mushrooms/cep": "bolete", "plants/mushrooms/cep-1": "bolete",
    "plants/mushrooms/cep-2": "bolete", "seasonal/candle": "candle", "sports/basketball": "basketball", "sports/soccer": "soccer ball",
    "sports/tennis_ball": "tennis ball", "town/usps_mailbox": "mailbox", "vehicles/7spoke256": "car wheel",
    "vehicles/auto/sportscar2": "sports car", "vehicles/auto/truck": "pickup", "vehicles/cycle/pink_tricycle": "tricycle",
    "vehicles/emergency/firetruck": "fire engine", "vehicles/flight/balloon360": "balloon", "vehicles/flight/planes/747": "airliner",
    "vehicles/garbagetruck": "garbage truck", "vehicles/race/indycar": "racer",
}  # fmt: skip
SCENES: dict[str, tuple[str, ...]] = {  # photo that pip installed -> the classes above that are in it
    "astronaut": (), "camera": ("reflex camera",), "cat": (), "china": (), "coffee": ("coffee mug",), "flower": (),
    "motorcycle": ("car wheel",), "rocket": (),
}  # fmt: skip
VISIBLE = 0.875  # of the shorter side: what both networks' transforms keep
SIZE = 0.45  # the cut-out's longer side, of what is visible
RANK = 5  # the class has to be among so many first ones
OFTEN, TRIES = 3, 10  # a stamp is in at most so many pictures, after so many tries in other places
THIRD = 3  # slow methods, and questions for another class, get every third picture
BLUR = 0.03  # sigma of the Gaussian, of the side of the map
SEED = 0


@dataclass(frozen=True)
class Paste:
    """A photo with a cut-out in it, and where it is: `mask` is white there."""

    photo: Image.Image
    mask: Image.Image
    stamp: str
    scene: str

    @property
    def target(self) -> str:
        return SUBJECTS[self.stamp]


@dataclass(frozen=True)
class Player:
    """Whoever makes a map [h, w]; `slow` ones play fewer games."""

    name: str
    look: Callable[[Image.Image, str], np.ndarray]
    slow: bool = False


# ---- the game --------------------------------------------------------------------------------------------------------


def paste(stamp: Image.Image, scene: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """The photo and the mask. The place is drawn from the part of the photo that the networks see."""
    side = VISIBLE * min(scene.size)
    scale = SIZE * side / max(stamp.size)
    cut = stamp.convert("RGBA").resize((max(round(stamp.width * scale), 1), max(round(stamp.height * scale), 1)), Image.Resampling.BICUBIC)
    left, top = (round((whole - side) / 2 + rng.random() * (side - part)) for whole, part in zip(scene.size, cut.size, strict=True))
    photo, mask = scene.convert("RGB"), Image.new("L", scene.size)
    photo.paste(cut, (left, top), cut)
    mask.paste(cut.getchannel("A"), (left, top))
    return photo, mask


def pastes(stamps: Path) -> Iterator[Paste]:
    """Every stamp in a scene without its class, again and again; the same for every model."""
    rng = np.random.default_rng(SEED)
    scenes = {name: aw.zoo.photo(name) for name in SCENES}
    for _ in range(TRIES):
        for name in rng.permutation(sorted(SUBJECTS)):
            scene = rng.choice([scene for scene, holds in SCENES.items() if SUBJECTS[name] not in holds])
            with Image.open(stamps / f"{name}.png") as stamp:
                yield Paste(*paste(stamp, scenes[scene], rng), str(name), str(scene))


def first(model: Any, photo: Image.Image, k: int) -> list[str]:
    """The model's first k classes."""
    items = model.prepare(photo)
    with model.untouched():
        scores = np.asarray(model.outputs(items, items.batch))[0]
    return [model.labels[c] for c in np.argsort(-scores)[:k]]


def recognized(model: Any, stamps: Path) -> Iterator[Paste]:
    """The pictures of the game: a map of a class that the model does not see has nothing to point at."""
    kept: Counter[str] = Counter()
    for game in pastes(stamps):
        if kept[game.stamp] < OFTEN and game.target in first(model, game.photo, RANK):
            kept[game.stamp] += 1
            yield game


def seen(model: Any, mask: Image.Image) -> np.ndarray:
    """bool [h, w]: the mask on its way through the model's own transform, so that it meets the map pixel by pixel."""
    grounds = [Image.new("L", mask.size, level) for level in (0, 255)]
    black, white, through = (np.asarray(one) for one in model.prepare([*grounds, mask]).batch)
    return ((through - black) / (white - black)).mean(0) > 0.5


def positive(heat: np.ndarray) -> np.ndarray:
    """What speaks for the class."""
    return np.maximum(heat, 0)


def blurred(heat: np.ndarray) -> np.ndarray:
    return gaussian_filter(heat.astype(float), BLUR * heat.shape[0])


def hit(heat: np.ndarray, mask: np.ndarray) -> float:
    """Whether the maximum lies in the mask; of several equal ones (a superpixel, an empty map) the share that does."""
    top = heat.max()
    return float(mask[heat >= top - 1e-9 * abs(top)].mean())


def inside(heat: np.ndarray, mask: np.ndarray) -> float:
    """The share of the map that lies in the mask; an empty map lies everywhere."""
    total = heat.sum()
    return float(heat[mask].sum() / total) if total > 0 else float(mask.mean())


def marks(heat: np.ndarray, mask: np.ndarray) -> tuple[float, ...]:
    """Hit; hit after blurring what speaks for the class; hit after blurring both signs, which cancel; share inside."""
    up = positive(heat)
    return hit(up, mask), hit(blurred(up), mask), hit(positive(blurred(heat)), mask), inside(up, mask)


# ---- the players -----------------------------------------------------------------------------------------------------


def ask(model: Any, method: str, slow: bool = False, name: str = "", **options: Any) -> Player:
    def look(photo: Image.Image, target: str) -> np.ndarray:
        return aw.explain(model, photo, method, target, **options).map()

    said = ", ".join(f"{key}={value}" for key, value in options.items() if not hasattr(value, "shape"))
    return Player(f"`{method}`" + (f", {said or name}" if said or name else ""), look, slow)


def players(model: Any) -> list[Player]:
    scenes = model.prepare([aw.zoo.photo(name) for name in SCENES]).batch
    return [
        ask(model, "occlusion", slow=True),
        ask(model, "lime", slow=True, samples=300),
        ask(model, "score_cam", slow=True),
        *(ask(model, name) for name in ("grad_cam", "grad_cam_plus_plus", "hires_cam", "layer_cam", "cam", "guided_grad_cam")),
        *(ask(model, name) for name in ("gradient", "saliency", "input_x_gradient")),
        ask(model, "smooth_grad", samples=25),
        ask(model, "integrated_gradients", steps=50),
        ask(model, "expected_gradients", background=scenes, samples=48, name="the scenes, samples=48"),
        *(ask(model, name) for name in ("deep_lift", "guided_backprop", "deconvnet")),
        *(ask(model, "lrp", rule=rule) for rule in ("epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "alpha2-beta1-flat")),
        ask(model, "counterfactual_cam", name="which asks for the opposite"),
        Player("no model: the middle of the picture", lambda photo, target: middle(model, photo)),
        Player("no model: edges", lambda photo, target: edges(model, photo)),
    ]


def view(model: Any, photo: Image.Image) -> np.ndarray:
    """uint8 [h, w, 3]: what the model sees."""
    return np.asarray(model.prepare(photo).pictures[0])


def middle(model: Any, photo: Image.Image) -> np.ndarray:
    """A control: most cut-outs touch the middle, so a map that is always largest there hits without looking."""
    height, width = view(model, photo).shape[:2]
    heat = np.zeros((height, width))
    heat[height // 2, width // 2] = 1
    return heat


def edges(model: Any, photo: Image.Image) -> np.ndarray:
    """A control: a pasted cut-out has sharp edges, which can be found without asking for its class."""
    grey = view(model, photo).mean(2)
    return np.hypot(sobel(grey, 0), sobel(grey, 1))


# ---- the tables ------------------------------------------------------------------------------------------------------


def play(player: Player, games: list[Paste], masks: list[np.ndarray], others: dict[str, str]) -> str:
    """One row. A refusal stands in the table, with its reason."""
    step = THIRD if player.slow else 1
    pairs = list(zip(games, masks, strict=True))
    try:
        start = time.process_time()
        found = np.array([marks(player.look(game.photo, game.target), mask) for game, mask in pairs[::step]])
        seconds = (time.process_time() - start) / len(found)
        wrong = [] if player.slow else [hit(positive(player.look(g.photo, others[g.scene])), mask) for g, mask in pairs[::THIRD]]
    except aw.errors.UnsupportedError as error:
        return f"| {player.name} | refused: {error} | | | | | | |"
    return row(player.name, found, wrong, seconds)


def row(name: str, found: np.ndarray, wrong: list[float], seconds: float) -> str:
    """The means of the marks [n, 4], hits with their binomial standard error."""
    *hits, share = found.mean(0)
    cells = [rate(p, len(found)) for p in hits] + [f"{share:.2f}", rate(float(np.mean(wrong)), len(wrong)) if wrong else "", str(len(found))]
    return f"| {name} | {' | '.join(cells)} | {seconds:.2f} |"


def rate(p: float, n: int) -> str:
    return f"{p:.2f} ± {np.sqrt(p * (1 - p) / n):.2f}"


def table(model_name: str, stamps: Path, pictures: int) -> Iterator[str]:
    """Markdown, line by line, since it takes long."""
    model = aw.zoo.load(model_name)
    games = list(islice(recognized(model, stamps), pictures))
    masks = [seen(model, game.mask) for game in games]
    others = {name: first(model, aw.zoo.photo(name), 1)[0] for name in SCENES}
    yield f"## {model_name}\n"
    yield f"{len(games)} pictures of {len({game.target for game in games})} classes. {chance(masks)}\n"
    yield "| method | hit | hit, blurred | hit, blurred with signs | share inside | hit, asked for another class | n | s a picture |"
    yield "|---|---|---|---|---|---|---|---|"
    for player in players(model):
        yield play(player, games, masks, others)
    yield ""


def chance(masks: list[np.ndarray]) -> str:
    areas = np.array([mask.mean() for mask in masks])
    return f"Chance is {areas.mean():.3f}, the mean share of the picture that the mask takes ({areas.min():.2f} to {areas.max():.2f})."


# ---- the drawing -----------------------------------------------------------------------------------------------------

SHOWN: dict[str, dict[str, Any]] = {
    "grad_cam": {},
    "lrp": {"rule": "epsilon-gamma-box"},
    "integrated_gradients": {"steps": 50},
    "guided_backprop": {},
}


def draw(stamps: Path, path: Path) -> None:
    """Three pastes in three scenes, four methods: the mask's outline, and the maximum."""
    model = aw.zoo.load("efficientnet-lite0")
    games: dict[str, Paste] = {}
    for game in recognized(model, stamps):
        games.setdefault(game.scene, game)
        if len(games) == 3:
            break
    figure, axes = plt.subplots(3, 1 + len(SHOWN), figsize=(13, 8.3), layout="constrained", facecolor="white")
    for line, game in zip(axes, games.values(), strict=True):
        show(model, game, line)
    for bar in set(figure.axes) - set(axes.ravel()):
        bar.remove()  # each map has its own scale, and the game is only about the place of the maximum
    figure.savefig(path, dpi=80, pil_kwargs={"quality": 85})
    plt.close(figure)


def show(model: Any, game: Paste, line: Any) -> None:
    mask = seen(model, game.mask)
    line[0].imshow(view(model, game.photo))
    line[0].set_title(f"why “{game.target}”?", fontsize=13)
    for place, (name, options) in zip(line[1:], SHOWN.items(), strict=True):
        why = aw.explain(model, game.photo, name, game.target, **options)
        why.plot(place)
        point(place, positive(why.map()), mask, name)
    for place in line:
        place.set_xticks([]), place.set_yticks([])


def point(place: Any, heat: np.ndarray, mask: np.ndarray, name: str) -> None:
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    place.contour(mask, [0.5], colors="black", linewidths=1)
    for colour, width in (("white", 5), ("black", 2)):  # to be seen on every colour
        place.plot(x, y, "o", markersize=15, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=width)
    place.set_title(f"{name}: {'hit' if mask[y, x] else 'miss'}", fontsize=13)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stamps", type=Path, help="the folder that holds animals/, food/, ...")
    parser.add_argument("--pictures", type=int, default=80, help="at most so many for each model")
    parser.add_argument("--models", nargs="*", default=["efficientnet-lite0", "squeezenet"])
    parser.add_argument("--drawing", type=Path, help="draw the picture of the document, too")
    given = parser.parse_args()
    if given.drawing:
        draw(given.stamps, given.drawing)
    for name in given.models:
        for line in table(name, given.stamps, given.pictures):
            print(line, flush=True)


if __name__ == "__main__":
    main()
