"""The HTML report: what it says, and what it must never do."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

import askwhy
from askwhy.errors import InputError
from askwhy.explanation import Explanation
from askwhy.report import Case, Table, cards, disagreement, images, render, reproduce, whole, words

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
PHOTO = Image.fromarray(RNG.integers(0, 255, (4, 6, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1))
SEEN = RNG.integers(0, 255, (4, 4, 3), dtype=np.uint8).repeat(7, 0).repeat(7, 1)


def heat(values: Any = None, method: str = "occlusion", **other: Any) -> Explanation:
    values = RNG.normal(size=(1, 28, 28)) if values is None else np.asarray(values, float)
    told = {
        "target": ("tiger cat",),
        "prediction": np.array([9.1667]),
        "pictures": (SEEN,),
        "seed": 0,
        "versions": {"numpy": "9.9.9"},
        "model_calls": 1234,
        "seconds": 0.5,
    }
    return Explanation(values, method, **(told | other))


def segments(std_error: Any = None, **other: Any) -> Explanation:
    """Four quadrants, as LIME gives them."""
    regions = np.kron([[0, 1], [2, 3]], np.ones((14, 14), int))[None]
    names = tuple(f"region {k} ({where})" for k, where in enumerate(("upper left", "upper right", "lower left", "lower right")))
    return heat([[0.5, -0.25, 0.0, 0.125]], "lime", regions=regions, components=(names,), std_error=std_error, details={"fidelity": (0.62,)}, **other)


def table(values: Any = ((0.7, -0.2, 0.1),), names: tuple[str, ...] = ("age", "income", "rooms"), **other: Any) -> Explanation:
    return heat(values, components=(names,), pictures=(None,), **other)


def case(*whys: Explanation, name: str = "cat.png", top: Any = (("tiger cat", 0.613), ("lynx", 0.0002)), refused: Any = ()) -> Case:
    return Case(name, PHOTO, list(top), list(whys), list(refused))


def page(*whys: Explanation, **other: Any) -> str:
    return render([case(*whys, **other)], "net")


class Elements(HTMLParser):
    """All elements with their attributes, and the text outside of style and script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("img", "input", "meta", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)


def text(html: str) -> str:
    return Elements(html).text


# ---- safe and self-contained --------------------------------------------------------------------------------------


def test_hostile_text_is_escaped_everywhere() -> None:
    bad = '<script>alert("x")</script>'
    why = replace(segments(), target=(bad,), params={bad: bad}, details={bad: bad}, components=((bad, bad + "1", bad + "2", bad + "3"),), method=bad)
    html = render([case(why, heat(target=(bad,)), name=bad, top=[(bad, 0.5)], refused=[(bad, bad)])] * 2, bad)
    assert "<script>alert" not in html
    assert [tag for tag, _ in Elements(html).found].count("script") == 1
    assert bad in text(html)


def test_attributes_cannot_be_left() -> None:
    html = page(heat(), name='" onerror="alert(1)')
    assert not [key for _, attrs in Elements(html).found for key in attrs if key.startswith("on")]


def test_nothing_is_loaded_from_elsewhere() -> None:
    html = render([case(heat(), segments(), table())] * 2, "net")
    for tag, attrs in Elements(html).found:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for key in ("src", "href", "srcset", "poster", "action"):
            assert (attrs.get(key) or "#").startswith(("data:image/", "#"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", html)


def test_the_policy_allows_exactly_the_own_script() -> None:
    import base64
    import hashlib

    html = page(heat())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attrs["content"] for tag, attrs in Elements(html).found if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_import_needs_no_torch_or_matplotlib() -> None:
    code = "import sys, askwhy.report; assert not {'torch', 'matplotlib', 'jinja2', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metadata_of_the_photo_does_not_travel() -> None:
    photo = PHOTO.copy()
    photo.info["exif"] = b"Exif\x00\x00secret place"
    photo.info["comment"] = b"secret place"
    import base64

    assert b"secret" not in base64.b64decode(images.jpeg(photo).split(",")[1])


# ---- what it says -------------------------------------------------------------------------------------------------


def test_numbers_and_question_are_present() -> None:
    shown = text(page(heat(np.full((1, 28, 28), 0.25)), segments(np.array([[0.1, 0.2, np.nan, 0.01]]))))
    for said in (
        "Why tiger cat?",
        "61.3%",
        "under 0.1%",
        "9.17",
        "+0.250",
        "+0.500",
        "−0.250",
        "± 0.100",
        "1,234",
        "62%",
        "9.9.9",
        "region 0 (upper left)",
    ):
        assert said in shown, said


def test_versus_is_asked_and_marked() -> None:
    shown = text(page(heat(versus=("lynx",))))
    assert "Why tiger cat rather than lynx?" in shown
    assert "lynx compared with" in shown


def test_the_registry_explains_each_method() -> None:
    from askwhy.registry import find

    shown, method = text(page(heat())), find("occlusion")
    assert method.asks in shown
    assert method.reads in shown
    assert method.paper in shown


def test_values_within_their_error_are_marked() -> None:
    sure, unsure, missing = cards.card(segments(np.array([[0.01, 0.2, np.nan, np.nan]])), "LIME").parts
    assert (sure.doubtful, unsure.doubtful, missing.doubtful) == (False, True, False)
    assert missing.std_error == "–"


def test_strongest_parts_are_marked_where_they_are() -> None:
    values = np.zeros((1, 28, 28))
    values[0, 24:, :4] = -2  # the cell in the lower left corner
    (only,) = cards.card(heat(values), "Occlusion").parts
    assert (only.name, only.value, only.tone) == ("lower left", "−2.00", "against")
    assert only.at == pytest.approx((100 * 2 / 28, 100 * 26 / 28))
    at = [p.at for p in cards.card(segments(), "LIME").parts]
    assert [(x is not None and (x[0] > 50, x[1] > 50)) for x in at] == [(False, False), (True, False), (True, True)]


def test_the_mark_of_a_ring_lies_on_the_ring() -> None:
    ring = np.zeros((1, 28, 28), int)
    ring[0, 2:26, 2:26] = 1
    ring[0, 5:23, 5:23] = 0
    why = heat([[0.0, 1.0]], "lime", regions=ring, components=(("inside", "ring"),))
    (only,) = cards.card(why, "LIME").parts
    assert only.at is not None
    assert ring[0, int(only.at[1] * 0.28), int(only.at[0] * 0.28)] == 1


def test_colours_are_not_rescaled_between_maps() -> None:
    weak, strong = (cards.card(heat(np.linspace(-k, k, 784).reshape(1, 28, 28)), "x") for k in (0.001, 8.0))
    assert (weak.scale.low, weak.scale.high) == ("−0.00100", "+0.00100")
    assert (strong.scale.low, strong.scale.middle, strong.scale.high) == ("−8.00", "0", "+8.00")


def test_a_few_extreme_pixels_do_not_fade_the_map_unsaid() -> None:
    values = RNG.uniform(-0.1, 0.1, (1, 100, 100))
    values[0, 0, 0] = 50.0
    made = cards.card(heat(values, "gradient"), "Gradient")
    assert made.clipped
    assert made.scale.high.startswith("+0.09")
    assert "50.0" in made.range
    assert "lie beyond the colours" in text(page(heat(values, "gradient")))


def test_refused_method_is_shown_with_its_message() -> None:
    shown = text(page(heat(), refused=[("guided_backprop", "this model has no ReLU")]))
    assert "Guided backpropagation This method refused to answer. It said: this model has no ReLU" in shown


def test_poor_surrogate_is_warned_about() -> None:
    assert "read its numbers with caution" in text(page(replace(segments(), details={"fidelity": (0.2,)})))
    assert "read its numbers with caution" not in text(page(segments()))


def test_the_part_that_the_model_sees_is_framed() -> None:
    assert "inside the frame" in text(page(heat(frames=((10.0, 0.0, 50.0, 40.0, 60.0, 40.0),))))
    assert "inside the frame" not in text(page(heat(frames=((0.0, 0.0, 60.0, 40.0, 60.0, 40.0),))))


# ---- disagreement -------------------------------------------------------------------------------------------------


def blocks(values: np.ndarray) -> np.ndarray:
    return values.reshape(7, 4, 7, 4).mean((1, 3)).ravel()


def test_rank_correlation_is_scipys() -> None:
    a, b = heat(), heat(np.round(RNG.normal(size=(1, 28, 28))))
    (signed,) = disagreement.compare([a, b], [True, True], ["a", "b"]).pairs  # type: ignore[union-attr]
    (magnitude,) = disagreement.compare([a, b], [True, False], ["a", "b"]).pairs  # type: ignore[union-attr]
    assert signed.correlation == pytest.approx(spearmanr(blocks(a.values[0]), blocks(b.values[0])).statistic)
    assert magnitude.correlation == pytest.approx(spearmanr(blocks(np.abs(a.values[0])), blocks(np.abs(b.values[0]))).statistic)
    assert (signed.magnitudes, magnitude.magnitudes) == (False, True)


@pytest.mark.parametrize("shape", [(28, 28), (30, 45), (7, 7), (3, 5), (1, 1)])
def test_pooling_keeps_the_mean_of_any_shape(shape: tuple[int, int]) -> None:
    values = RNG.normal(size=shape)
    assert disagreement.pooled(values).shape == (7, 7)
    assert disagreement.pooled(values).mean() == pytest.approx(values.mean())


def test_the_cell_of_most_disagreement_is_named() -> None:
    order = np.arange(49.0)
    other = order.copy()
    other[[13, 48]] = order[[48, 13]]  # the second row's last cell and the strongest one change places
    third = order.copy()
    third[13] = 100
    whys = [heat(np.kron(v.reshape(7, 7), np.ones((4, 4)))[None]) for v in (order, other, third)]
    found = disagreement.compare(whys, [True] * 3, ["A", "B", "C"])
    assert found is not None
    assert found.worst is not None
    assert found.worst.name == "row 2 from the top, column 7 from the left (upper right)"
    assert found.worst.low == "A ranks it 36th"
    assert found.worst.high in ("B ranks it 1st", "C ranks it 1st")
    assert found.sentence.startswith("Most alike are B and C (rank correlation 0.94)")
    assert "least alike are A and B (0.88)" in found.sentence


def test_what_was_compared_is_said() -> None:
    shown = text(page(heat(), heat(method="saliency", values=RNG.random((1, 28, 28)))))
    assert "Saliency has no sign" in shown
    assert "Agreement is no proof" in shown


def test_one_method_has_nothing_to_disagree_with() -> None:
    assert "Where the methods disagree" not in text(page(heat()))


def test_the_same_method_twice_is_told_apart() -> None:
    assert cards.named([heat(), segments(), heat()]) == ["Occlusion (1)", "LIME", "Occlusion (2)"]


def test_tables_are_compared_by_feature_and_drawn_as_bars() -> None:
    html = page(table(), table([[0.1, -0.2, 0.7]]))
    assert "the 3 features" in text(html)
    assert "They disagree most about age" in text(html) or "They disagree most about rooms" in text(html)
    assert 'class="bars"' in html
    assert 'class="layer"' not in html
    assert disagreement.compare([table(), heat()], [True, True], ["a", "b"]) is None


# ---- degenerate cases ---------------------------------------------------------------------------------------------


def test_all_zero_maps() -> None:
    shown = text(page(heat(np.zeros((1, 28, 28))), heat(np.zeros((1, 28, 28)))))
    assert "nothing in the input moves the score" in shown
    assert "No two methods can be compared" in shown


def test_one_constant_map_among_others() -> None:
    html = page(heat(np.zeros((1, 28, 28))), heat(), heat())
    assert "nan" not in text(html).lower().split()


@pytest.mark.parametrize(
    "why", [heat(pictures=(None,)), heat(pictures=()), heat(RNG.normal(size=(1, 7, 7))), heat(RNG.normal(size=(1, 3, 28, 28))), heat([[1.0, -2.0]])]
)
def test_shapes_and_missing_pictures(why: Explanation) -> None:
    assert "Why tiger cat?" in text(page(why))


def test_long_and_chinese_labels() -> None:
    label = "虎斑猫" + "很长的名字" * 40
    assert label in text(page(heat(target=(label,)), name="猫.png", top=[(label, 0.9)]))


def test_many_photos_and_methods() -> None:
    html = render([case(*[heat() for _ in range(10)])] * 20, "net")
    assert {f"photo-{k}" for k in range(1, 21)} <= {attrs.get("id") for _, attrs in Elements(html).found}


def test_all_methods_refused() -> None:
    shown = text(page(top=[], refused=[("lime", "no")]))
    assert "No method answered" in shown
    assert "no" in shown


def test_wrong_cases_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        render([], "net")
    with pytest.raises(InputError, match="2 items"):
        page(heat(RNG.normal(size=(2, 28, 28)), target=("a", "b"), prediction=np.zeros(2), pictures=(None, None)))
    with pytest.raises(InputError, match="different questions"):
        page(heat(), heat(target=("lynx",)))


def test_accessible() -> None:
    found = Elements(page(heat(), segments(), refused=[("lime", "no")])).found
    assert all("alt" in attrs for tag, attrs in found if tag == "img")
    labelled = {attrs["for"] for tag, attrs in found if tag == "label"}
    assert all(attrs["id"] in labelled for tag, attrs in found if tag == "input")
    assert [tag for tag, _ in found].count("caption") == [tag for tag, _ in found].count("table")


# ---- words --------------------------------------------------------------------------------------------------------


def test_words() -> None:
    assert [words.number(v) for v in (-0.3006, 12345.0, 1.2e-5, 0.0, 300.0, float("nan"))] == ["−0.301", "1.23 × 10⁴", "1.20 × 10⁻⁵", "0", "300", "–"]
    assert [words.ordinal(k) for k in (1, 2, 3, 11, 22, 31.5)] == ["1st", "2nd", "3rd", "11th", "22nd", "31.5th"]
    assert [words.place(*at) for at in ((0, 0), (0.5, 0.5), (0.5, 1), (1, 0.4))] == ["upper left", "centre", "right", "lower"]


# ---- with real explanations ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3)
    ).eval()
    return askwhy.wrap(
        net,
        labels=["tiger cat", "lynx", "猫"],
        transform=lambda p: torch.from_numpy(np.asarray(p.resize((28, 28)), np.float32) / 255).permute(2, 0, 1),
    )


@pytest.fixture(scope="module")
def real(model: Any) -> list[Explanation]:
    photo = np.asarray(PHOTO)
    blocked = np.kron(np.arange(16).reshape(4, 4), np.ones((7, 7), int))
    return [
        askwhy.occlusion(model, photo, target="猫", size=8, stride=4),
        askwhy.lime(model, photo, target="猫", samples=40, num_features=5, components=askwhy.superpixels("slic", n=9), seed=3),
        askwhy.lime(model, photo, target="猫", samples=40, components=blocked),
    ]


def test_real_explanations(real: list[Explanation]) -> None:
    html = render([case(*real)], "tiny")
    assert "Why 猫?" in text(html)
    for why in real:
        assert words.number(abs(why.top(1)[0][1])) in html
    assert "Where the methods disagree" in html


def test_the_script_gives_the_same_numbers(model: Any, real: list[Explanation]) -> None:
    script = reproduce.script(case(*real), "tiny\nimport os")
    assert "\nimport os" not in script
    calls = [line for line in script.splitlines() if line.startswith("askwhy.")]
    for line, why in zip(calls[:2], real[:2], strict=True):
        again = eval(line, {"askwhy": askwhy, "model": model, "photo": np.asarray(PHOTO)})
        assert np.array_equal(again.values, why.values)
    assert "add your own components= (16 given regions)" in script


def test_classes_without_a_label_are_asked_by_index() -> None:
    assert "target=3" in reproduce.script(case(heat(target=("class 3",))), "net")


# ---- texts and rows -----------------------------------------------------------------------------------------------

HOSTILE = '<script>alert("x")</script>'
TEXT = f"Good, 很好, good {HOSTILE}\nbad"
ROW = [("age", np.int64(39)), (HOSTILE, HOSTILE), ("一个很长的列名" * 12, "很长的内容" * 40), ("gap", float("nan"))]


def read_text(texts: list[str]) -> np.ndarray:
    return np.array([[0.1 * len(t), t.lower().count("good") + 2 * t.count("好") - t.count("bad")] for t in texts], float)


def about_text(why: Explanation | None = None, *more: Explanation, **other: Any) -> Case:
    why = why or askwhy.shapley(read_text, TEXT, target=1)
    return Case("text 1", None, [("good", 0.9)], [why, *more], text=TEXT, **other)


def about_row(*whys: Explanation, **other: Any) -> Case:
    names = tuple(name for name, _ in ROW)
    held = tuple(str(value) for _, value in ROW)
    told = whys or (table([[0.5, -0.25, 0.0, 0.125]], names, data=(held,)),)
    return Case("row 12", None, [], list(told), row=ROW, **other)


@pytest.mark.parametrize("made", [about_text, about_row])
def test_hostile_texts_and_columns_are_escaped(made: Any) -> None:
    html = render([made(), made(refused=[("lime", HOSTILE)])], "net")
    assert "<script>alert" not in html
    assert HOSTILE in text(html)
    assert not [tag for tag, _ in Elements(html).found if tag == "script"], "no map, and so no slider"


def test_a_text_is_shown_and_its_words_are_coloured() -> None:
    html = render([about_text()], "net")
    (quote,) = re.findall(r"<blockquote.*?>(.*?)</blockquote>", html, re.DOTALL)
    assert "很好" in quote
    coloured = re.findall(r'<span title="(.*?)" style="background:(#\w{6});color:(#\w+)">(.*?)</span>', html)
    assert [word for *_, word in coloured][:3] == ["Good", "很", "好"] or [word for *_, word in coloured][:3] == ["Good", "很好", "good"]
    found = {word: (value, paper, ink) for value, paper, ink, word in coloured}
    assert found["bad"] == ("−1.00", "#4393c3", "#fff") or found["bad"][0] == "−1.00"
    assert found["Good"][0] == "+1.00"
    red, blue = (int(found["Good"][1][k : k + 2], 16) for k in (1, 5))
    assert red > blue


def test_the_picture_of_a_word_in_the_darkest_red_is_readable() -> None:
    from askwhy.report.coloured import word

    assert (word("good", 2.0, 2.0).paper, word("good", 2.0, 2.0).ink) == ("#67001f", "#fff")
    assert (word("and", 0.0, 2.0).ink, word(", ", None, 2.0).paper) == ("#14171a", "")


def test_a_word_that_stands_several_times_has_its_own_error_each_time() -> None:
    why = replace(askwhy.shapley(lambda t: read_text(t)[:, 1], "good good"), std_error=np.array([[0.25, 0.01]]))
    parts = cards.card(why, "Shapley values").parts
    assert [(p.name, p.std_error, p.doubtful) for p in parts] == [("good (1st of 2)", "± 0.250", False), ("good (2nd of 2)", "± 0.0100", False)]


def test_a_row_is_shown_as_a_table_with_what_it_holds() -> None:
    html = render([about_row(), about_row()], "net")
    shown = text(html)
    assert "age 39" in shown
    assert "gap missing" in shown
    assert "age = 39 +0.500" in shown
    assert "row-2" in {attrs.get("id") for _, attrs in Elements(html).found}
    assert "Map by" not in html


@pytest.mark.parametrize(
    ("cases", "there", "gone"),
    [
        ([about_row()], ("other rows", "background rows", "a higher score"), ("photo", "picture and one question", "map")),
        ([about_text()], ("other texts", "What the model answers", "colours the words"), ("photo", "map", "picture")),
        ([case(heat())], ("other photos", "What the model thinks it is", "over the picture"), ("other inputs",)),
        ([case(heat()), about_text()], ("other inputs", "What the model thinks it is", "What the model answers"), ("other photos",)),
    ],
)
def test_the_page_speaks_of_what_it_shows(cases: list[Case], there: tuple[str, ...], gone: tuple[str, ...]) -> None:
    shown = text(render(cases, "net"))
    assert [words for words in there if words not in shown] == []
    assert [words for words in gone if words in shown] == []


def test_a_case_shows_one_thing() -> None:
    with pytest.raises(InputError, match="either a photo, a text or a row"):
        render([Case("x", PHOTO, [], [heat()], text="x")], "net")
    with pytest.raises(InputError, match="either a photo, a text or a row"):
        render([Case("x", None, [], [heat()])], "net")


def test_only_methods_that_speak_of_the_same_parts_are_compared() -> None:
    other = table([[0.5, -0.2, 0.1]], ("age <= 3", "income > 2", "rooms = 1"), method="lime")
    pairs = replace(table(), values=RNG.normal(size=(1, 3, 3)), method="shapley_interactions")
    found = disagreement.compare([other, table(), pairs, table()], [True] * 4, ["A", "B", "C", "D"])
    assert found is not None
    assert found.names == ["B", "D"]
    assert found.apart == "A and C speak of other parts, and so cannot be compared."
    assert found.sentence.startswith("B and D")
    assert disagreement.compare([other, table(), pairs, pairs], [True] * 4, ["A", "B", "C", "D"]) is None
    assert found.apart in text(render([about_row(other, table(), table())], "net")).replace("LIME speaks", "A and C speak")


def test_interactions_are_a_matrix() -> None:
    why = askwhy.shapley_interactions(lambda t: read_text(t)[:, 1], "good bad film")
    made = cards.card(why, "Shapley interactions")
    assert (made.layer, made.words) == (None, ())
    assert made.bars is not None
    assert [p.name for p in made.parts][:1] == ["good"] or "x" in made.parts[0].name


def test_a_rule_without_conditions_is_no_all_zero_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "drawn", lambda why: "data:")
    why = table(np.zeros((1, 3)), details={"rule": ("the model answers rich whatever the input holds",), "note": "that"})
    made = cards.card(why, "Anchors")
    assert made.nothing == "the model answers rich whatever the input holds"
    assert not {"rule", "note"} & {key for key, _ in made.facts}


def test_the_script_gives_the_same_numbers_for_a_text() -> None:
    whys = [askwhy.lime(read_text, TEXT, target=1, samples=50, seed=3), askwhy.occlusion(read_text, TEXT, target=1, baseline="it's")]
    whys.append(askwhy.shapley(read_text, TEXT, target=1, components=askwhy.sentences()))
    script = reproduce.script(about_text(*whys), "net").replace("model = ...", "model = read_text")
    assert 'baseline="it\'s"' in script
    assert "removed" not in script
    for line, why in zip([line for line in script.splitlines() if line.startswith("askwhy.")], whys, strict=True):
        names: dict[str, Any] = {"read_text": read_text}
        exec("\n".join([*script.split("\naskwhy.")[0].splitlines(), f"again = {line}"]), names)
        assert np.array_equal(names["again"].values, why.values), line


def test_the_script_gives_the_same_numbers_for_a_row() -> None:
    pandas = pytest.importorskip("pandas")
    rows = pandas.DataFrame({"age": range(20), "it's": ["a", "b"] * 10, "gap": [float("nan"), 1.5] * 10})
    asked = rows.iloc[[4]]

    def predict(frame: Any) -> np.ndarray:
        return frame["age"] / 10 + (frame["it's"] == "a") * frame["age"].gt(9) + frame["gap"].isna()

    whys = [askwhy.explain(predict, asked, name, background=rows) for name in ("shapley", "lime", "occlusion")]
    script = reproduce.script(Case("row 4", None, [], whys, row=[(str(c), asked[c].iloc[0]) for c in asked], background="20 rows\nof x"), "net")
    assert "background = ...  # 20 rows of x" in script
    calls = [line for line in script.splitlines() if line.startswith("askwhy.")]
    assert len(calls) == 3
    head = script.split("\naskwhy.")[0].replace("model = ...", "model = predict").replace("background = ...", "background = rows")
    for line, why in zip(calls, whys, strict=True):
        names: dict[str, Any] = {"predict": predict, "rows": rows}
        exec(f"{head}\nagain = {line}", names)
        assert np.array_equal(names["again"].values, why.values), line


def test_texts_and_rows_are_accessible() -> None:
    found = Elements(render([about_text(), about_row(), about_row(table())], "net")).found
    assert all("alt" in attrs for tag, attrs in found if tag == "img")
    assert [tag for tag, _ in found].count("caption") == [tag for tag, _ in found].count("table")
    assert all("aria-label" in attrs for tag, attrs in found if "tabindex" in attrs and tag == "div")


# ---- many rows ----------------------------------------------------------------------------------------------------

SIGNS = ("age", HOSTILE, "一个很长的列名" * 12, "gap")


def many(n: int = 30, targets: Any = "rich", **other: Any) -> Explanation:
    """Rows of a table whose values sum from 0.5 to the score."""
    draw = np.random.default_rng(1)
    values = draw.normal(size=(n, 4))
    numbers = draw.normal(size=(n, 4))
    numbers[:, 1] = np.arange(n) % 2
    held = tuple((f"{row[0]:.6g}", (HOSTILE, "很长的内容" * 40)[k % 2], f"{row[2]:.6g}", f"{row[3]:.6g}") for k, row in enumerate(numbers))
    told = {
        "method": "tree_shap", "unit": "log odds", "components": (SIGNS,) * n, "data": held, "numbers": numbers, "base_value": np.full(n, 0.5),
        "prediction": values.sum(1) + 0.5, "residual": np.zeros(n), "target": (targets,) * n if isinstance(targets, str) else tuple(targets),
        "params": {"value_function": "path-dependent", "background": "the training data in the trees"}, "versions": {"numpy": "9.9.9"},
    }  # fmt: skip
    return Explanation(values, **(told | other))


def whole_page(*whys: Explanation, cases: Any = (), **other: Any) -> str:
    return render(list(cases), "net", [Table("rows.csv", why, range(100, 100 + len(why)), **other) for why in whys])


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take their time, and most tests are about words."""
    monkeypatch.setattr(whole.show, "as_data_uri", lambda ax: "data:image/png;base64,")


def test_all_rows_are_shown_safely_and_without_help_from_elsewhere() -> None:
    html = whole_page(many(), cases=[about_row()])
    assert "<script>alert" not in html
    assert HOSTILE in text(html)
    for tag, attrs in Elements(html).found:
        assert tag not in ("link", "iframe", "object", "embed", "base", "foreignobject")
        for key in ("src", "href", "srcset", "xlink:href"):
            assert (attrs.get(key) or "#").startswith(("data:image/", "#"))
        assert not [key for key in attrs if key.startswith("on")]


def test_the_policy_allows_the_sorter_and_no_other_script(unpainted: None) -> None:
    import base64
    import hashlib

    html = whole_page(many(), many())
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert "askwhy-rows" in script
    (policy,) = [attrs["content"] for tag, attrs in Elements(html).found if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-inline'; script" in policy


def test_a_section_names_scale_base_value_and_variant(unpainted: None) -> None:
    shown = text(whole_page(many()))
    for said in ("30 rows of rows.csv", "Why rich?", "log odds", "base value 0.500", "path-dependent: what is absent follows", "row 129", "9.9.9"):
        assert said in shown, said
    assert "compared with the training" not in shown
    other = {"value_function": "interventional", "background": "100 rows"}
    assert "compared with 100 rows of train.csv" in text(whole_page(many(params=other), background="100 rows of train.csv"))


def test_pictures_are_drawn_for_light_and_for_dark_paper() -> None:
    found = [attrs for tag, attrs in Elements(whole_page(many())).found if tag in ("source", "img")]
    dark, light = found[::2], found[1::2]
    assert len(dark) == len(light) == 5, "swarm, bars, and three columns"
    for one, other in zip(dark, light, strict=True):
        papers = [np.asarray(Image.open(opened(uri)).convert("RGB"))[0, 0].tolist() for uri in (one["srcset"], other["src"])]
        assert papers == [[0x1C, 0x20, 0x24], [255, 255, 255]]
        assert one["media"] == "screen and (prefers-color-scheme: dark)"


def opened(uri: str | None) -> Any:
    import base64
    import io

    assert uri is not None
    return io.BytesIO(base64.b64decode(uri.split(",")[1]))


def test_rows_asked_about_different_classes_part_and_rare_ones_are_named(unpainted: None) -> None:
    tables, left_out = whole.sections([Table("rows.csv", many(12, ["a", "b", "b"] * 3 + ["c", "b", "b"]), range(12))], "net")
    assert [(one.question, len(one.why), one.table.numbers) for one in tables] == [
        ("Why b?", 8, [1, 2, 4, 5, 7, 8, 10, 11]), ("Why a?", 3, [0, 3, 6])
    ]  # fmt: skip
    assert left_out == ["TreeSHAP: 1 of 12 rows are not in these pictures, since their classes are rare."]
    np.testing.assert_array_equal(tables[1].why.values, many(12).values[[0, 3, 6]])
    both = many(4, "abab", details={"path": ("p0", "p1", "p2", "p3"), "depth": 3})
    assert whole.of_rows(both, np.array([1, 3])).details == {"path": ("p1", "p3"), "depth": 3}
    assert tables[1].which == "3 of the 12 rows of rows.csv: those that are explained for a"


def test_rows_with_parts_of_their_own_have_no_common_picture(unpainted: None) -> None:
    why = many(3, method="lime", components=(SIGNS, SIGNS, (*SIGNS[:3], "gap <= 2")))
    html = whole_page(why, cases=[about_row()])
    assert "LIME speaks of other parts in each row" in text(html)
    assert 'class="case whole"' not in html


def test_without_a_common_base_value_there_are_no_forces(unpainted: None) -> None:
    for why in (many(base_value=np.arange(30.0)), many(residual=None), many(base_value=None)):
        html = whole_page(why)
        assert 'class="forces"' not in html
        assert "Row by row" in html
    assert 'class="forces"' in whole_page(many())


def test_of_very_many_rows_it_is_said_which_are_shown(unpainted: None) -> None:
    shown = text(whole_page(many(2500)))
    assert "1,000 of the 2,500 rows, evenly over the table" in shown
    assert "The first 500 of 2,500 rows" in shown
    assert "2,500 rows of rows.csv" in shown
    np.testing.assert_array_equal(whole.spread(5, 1000), range(5))
    assert (whole.spread(2500, 1000)[[0, -1]] == [0, 2499]).all()


def test_interactions_show_pairs_and_the_values_that_they_sum_to(unpainted: None) -> None:
    pairs = np.random.default_rng(2).normal(size=(30, 4, 4))
    why = many(prediction=pairs.sum((1, 2)) + 0.5)
    (one,), _ = whole.sections([Table("rows.csv", replace(why, values=pairs), range(30))], "net")
    assert [p.title for p in one.pictures][:4] == [
        "Which columns matter, and which way", "How much each column matters", "What pairs of columns do together", "The strongest pairs",
    ]  # fmt: skip
    assert f'data-v="{pairs[0].sum() + 0.5:.6g}"' in one.listed
    j = int(np.abs(pairs.sum(2)).mean(0).argmax())
    partner = np.abs(pairs[:, j]).mean(0)
    partner[j] = 0
    assert f"Coloured by {SIGNS[int(partner.argmax())]}," in one.pictures[4].reads


def test_one_row_or_nothing_makes_no_pictures(unpainted: None) -> None:
    assert 'class="case whole"' not in whole_page(many(1), cases=[about_row()])
    with pytest.raises(InputError, match="at least one"):
        render([], "net", [])


def test_many_rows_are_accessible(unpainted: None) -> None:
    found = Elements(whole_page(many(), many(12, ["a", "b"] * 6))).found
    assert all("alt" in attrs for tag, attrs in found if tag == "img")
    assert [tag for tag, _ in found].count("caption") == [tag for tag, _ in found].count("table")
    ids = [attrs["id"] for _, attrs in found if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"] for tag, attrs in found if tag == "a"} == {f"#table-{k}" for k in (1, 2, 3)}


def test_the_script_of_a_table_gives_the_same_numbers() -> None:
    rows = RNG.normal(size=(6, 3))
    why = askwhy.linear_effects(fitted := linear(), rows, background=rows)
    script = reproduce.of_table(Table("rows.csv", why, range(6), "6 rows of\nrows.csv"), "net\nimport os")
    assert "\nimport os" not in script
    assert "background = ...  # 6 rows of rows.csv" in script
    names: dict[str, Any] = {"model": fitted, "rows": rows, "background": rows}
    exec("\n".join(line for line in script.splitlines() if "= ..." not in line), names)
    assert np.array_equal(names["why"].values, why.values)
    assert "background" not in reproduce.of_table(Table("rows.csv", many(), range(30)), "net")


def linear() -> Any:
    from sklearn.linear_model import LinearRegression

    x = np.random.default_rng(3).normal(size=(20, 3))
    return LinearRegression().fit(x, x @ [1.0, 2.0, 3.0])


def test_the_score_is_told_with_its_scale_where_methods_differ() -> None:
    odds = replace(many(1), prediction=np.array([2.5]))
    assert "The score that is explained is 2.50 (log odds)." in text(render([about_row(odds)], "net"))
    probability = replace(odds, method="shapley", unit="score units", prediction=np.array([0.9]))
    assert "is 2.50 (log odds) by TreeSHAP, 0.900 by Shapley values" in text(render([about_row(odds, probability)], "net"))


def test_a_row_whose_values_sum_to_its_score_is_a_waterfall(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(cards, "as_data_uri", lambda ax: drawn.append(ax) or "data:")
    cards.card(many(1), "TreeSHAP")
    cards.card(many(1, residual=None), "LIME")
    assert ["from 0.5 without any of them" in " ".join(ax.get_xlabel().split()) for ax in drawn] == [True, False]
