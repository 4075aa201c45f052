"""The pictures of many rows of a table: what stands where, in which colour, and what is said about it."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure

from askwhy import show
from askwhy.errors import InputError
from askwhy.show.feature import feature_of
from askwhy.show.paper import GREY, INKS
from askwhy.show.pictures import AGAINST, FOR, wrapped
from askwhy.show.segments import segments

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(60, 4)) * [1, 3, 0.1, 2]
NAMES = ["age", "income", "a <script>alert(1)</script> & $x$", "收入的一个很长的名字"]
TABLE = RNG.normal(size=(60, 4))
MIXED = TABLE.astype(object)
MIXED[:, 0] = RNG.choice(["Oslo", "Lima", "Rome", "Bonn", "Wien"], 60, p=[0.4, 0.25, 0.2, 0.1, 0.05])
MIXED[::7, 1] = None


def drawn(ax):
    """Rendered, as it must be without a warning."""
    ax.figure.savefig(io.BytesIO(), format="png")
    return ax


def rows_of(ax):
    return [label.get_text().replace("\n", "") for label in ax.get_yticklabels()]


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ---- a feature ------------------------------------------------------------------------------------------------------


def test_shades_are_ranks_and_an_outlier_fades_nothing():
    np.testing.assert_allclose(feature_of([10, 30, 20, 1e9]).shades, [0, 2 / 3, 1 / 3, 1])
    np.testing.assert_allclose(feature_of([0, 0, 0, 1, 2]).shades, [0, 0, 0, 2 / 3, 1])
    np.testing.assert_allclose(feature_of([5, 5, np.nan]).shades, [0.5, 0.5, np.nan])
    assert np.isnan(feature_of([None, np.nan]).shades).all()


@pytest.mark.parametrize("gone", [None, np.nan, pd.NA, pd.NaT, float("nan")], ids=str)
def test_what_is_missing(gone):
    for cells in (["a", gone, "b"], [1, gone, 2.5], [pd.Timestamp("2020-01-01"), gone, pd.Timestamp("2021-01-01")]):
        assert feature_of(np.array(cells, object)).missing.tolist() == [False, True, False]


def test_kinds_of_features():
    assert feature_of(np.array(["3", "1", "3", "nan"])).levels == ("3", "1", "nan")  # words, also where they look like numbers
    assert feature_of(np.array([True, False])).numbers.tolist() == [1, 0]
    assert feature_of(pd.Series(pd.date_range("1970-01-02", periods=2)).to_numpy()).numbers.tolist() == [1, 2]
    assert feature_of(pd.Categorical(["b", "a", None, "b"])).numbers[[0, 1, 3]].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "name", ["x" * 200, "一个没有空格的很长的名字" * 9, "words and words " * 20, "$a$ " * 50], ids=["long", "Chinese", "words", "$"]
)
def test_long_names_are_cut_and_not_lost(name):
    for lines in (1, 2):
        shown = wrapped(name, 32, lines).split("\n")
        assert len(shown) == lines
        assert shown[-1].endswith("…")
        plain = "".join(shown).replace(r"\$", "$").removesuffix("…").replace(" ", "")
        assert len(plain) > 6 * lines
        assert name.replace(" ", "").startswith(plain)
    assert wrapped("age") == "age"


# ---- beeswarm -------------------------------------------------------------------------------------------------------


def test_a_dot_for_each_row_at_its_value():
    ax = drawn(show.beeswarm(VALUES, NAMES, TABLE, title="t", unit="log odds"))
    assert [name.split()[0] for name in rows_of(ax)] == ["income", NAMES[3], "age", "a"]
    assert ax.get_xlabel() == "log odds; 60 rows, each a dot"
    for lane, j in zip(ax.collections, [1, 3, 0, 2], strict=True):
        np.testing.assert_allclose(lane.get_offsets()[:, 0], VALUES[:, j])
        best, worst = TABLE[:, j].argmax(), TABLE[:, j].argmin()
        assert lane.get_facecolors()[best].sum() > lane.get_facecolors()[worst].sum()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert 0 in [line.get_xdata()[0] for line in ax.lines]


def test_dots_of_a_lane_stay_in_it_and_do_not_cover_each_other():
    ax = drawn(show.beeswarm(VALUES, NAMES, TABLE))
    for row, lane in enumerate(ax.collections):
        assert np.abs(lane.get_offsets()[:, 1] - row).max() < 0.5
        pixels = ax.transData.transform(lane.get_offsets())
        gaps = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)[np.triu_indices(60, 1)]
        assert np.mean(gaps < 0.5 * np.sqrt(lane.get_sizes()[0]) * ax.figure.dpi / 72) < 0.02


def test_equal_values_stack_with_low_features_below():
    ax = show.beeswarm(np.ones((5, 1)), ["a"], np.array([[3.0], [1], [5], [2], [4]]))
    heights = -ax.collections[0].get_offsets()[:, 1]
    assert np.argsort(heights).tolist() == [1, 3, 0, 4, 2]


def test_categories_and_missing_values_have_their_own_colours():
    ax = drawn(show.beeswarm(VALUES, NAMES, MIXED))
    by_name = dict(zip(rows_of(ax), ax.collections, strict=True))
    common = feature_of(MIXED[:, 0]).levels
    inks = [to_hex(c) for c in by_name["age"].get_facecolors()]
    for cell, colour in zip(MIXED[:, 0], inks, strict=True):
        assert colour == ([*INKS[:3], GREY, GREY][common.index(cell)])
    assert {to_hex(c) for c in by_name["income"].get_facecolors()[::7]} == {GREY}
    assert GREY not in {to_hex(c) for c in by_name["income"].get_facecolors()[1::7]}
    said = {text.get_text(): to_hex(text.get_color()) for text in ax.texts}
    assert said == {**dict(zip(common[:3], INKS[:3], strict=True)), "2 others": GREY}
    assert ax.figure.axes[1].get_ylabel() == "the feature's value, by rank; grey: missing"
    assert [t.get_text() for t in ax.figure.axes[1].get_yticklabels()] == ["low", "high"]


def test_without_features_the_sign_is_the_colour():
    ax = show.beeswarm(VALUES, NAMES)
    assert len(ax.figure.axes) == 1
    colours = [to_hex(c) for c in ax.collections[0].get_facecolors()]
    assert colours == [FOR if v > 0 else AGAINST for v in VALUES[:, 1]]


def test_the_rest_is_summed_in_grey():
    ax = show.beeswarm(VALUES, NAMES, TABLE, most=3)
    assert rows_of(ax)[2] == "2 others, summed"
    np.testing.assert_allclose(ax.collections[2].get_offsets()[:, 0], VALUES[:, [0, 2]].sum(1))
    assert {to_hex(c) for c in ax.collections[2].get_facecolors()} == {GREY}


def test_orders():
    values = np.array([[3.0, 2], [0, 2]])
    assert rows_of(show.beeswarm(values, ["a", "b"], order="mean")) == ["b", "a"]
    assert rows_of(show.beeswarm(values, ["a", "b"], order="max")) == ["a", "b"]
    assert rows_of(show.beeswarm(values[:, ::-1], ["b", "a"], order=None)) == ["b", "a"]
    with pytest.raises(InputError, match=r"order='size'.*'mean', 'max' or None"):
        show.beeswarm(values, ["a", "b"], order="size")


def test_many_rows_are_all_counted():
    """The density's columns are as thick as they have rows, hold their colours in proportion, and a lone row is seen."""
    n = 20_000
    values = np.concatenate([np.zeros(n // 2), np.full(n // 4, 1.0), np.full(n // 4 - 1, 2.0), [3.0]])
    cells = np.arange(n) % 4 / 3.0
    ax = drawn(show.beeswarm(values[:, None], ["a"], cells[:, None]))
    assert not ax.collections
    assert "20,000 rows, all counted" in ax.get_xlabel().replace("\n", " ")
    picture, (left, right, bottom, top) = ax.images[0].get_array(), ax.images[0].get_extent()
    assert bottom > top  # rows count downwards
    assert ax.get_xlim() == (left, right)
    thick = (picture[..., 3] > 0).sum(0)
    at = ((np.arange(4) - left) / (right - left) * len(thick)).astype(int)
    assert thick[at].tolist() == [45, 22, 22, 3]
    assert np.flatnonzero(thick).tolist() == at.tolist()
    stack = picture[:, at[0]]
    _, counts = np.unique(stack.round(6), axis=0, return_counts=True)
    assert sorted(counts.tolist()) == [11, 11, 11, 12]
    assert stack[0].sum() < stack[-1].sum()  # the low ones at the foot


def test_thin_stacks_of_a_common_lane_are_seen_at_any_colour():
    ax = show.beeswarm(np.linspace(0, 1, 1001)[:, None], ["a"])
    assert len(ax.images) == 1
    assert len(show.beeswarm(np.linspace(0, 1, 1000)[:, None], ["a"]).collections) == 1


# ---- importance -----------------------------------------------------------------------------------------------------


def test_bars_are_means_with_standard_errors():
    ax = drawn(show.importance(VALUES, NAMES, unit="points"))
    order, size = [1, 3, 0, 2], np.abs(VALUES)
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], size.mean(0)[order])
    ends = np.array([line[:, 0] for line in ax.collections[0].get_segments()])
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * 1.96 * (size.std(0, ddof=1) / np.sqrt(60))[order])
    assert ax.get_xlabel() == "mean |value| in points; 60 rows, 95 % error bars"
    assert ax.texts[0].get_text() == f"{size.mean(0)[1]:.3g}"


def test_the_others_are_summed_row_by_row():
    ax = show.importance(VALUES, NAMES, most=3)
    assert rows_of(ax)[2] == "2 others, summed"
    assert ax.patches[2].get_width() == pytest.approx(np.abs(VALUES[:, [0, 2]]).sum(1).mean())
    assert [to_hex(bar.get_facecolor()) == GREY for bar in ax.patches] == [False, False, True]


def test_one_row_has_no_error_bars():
    ax = show.importance(VALUES[:1], NAMES)
    assert not ax.collections
    assert ax.get_xlabel() == "|value| in score units; 1 row"


def test_cohorts_stand_side_by_side():
    groups = np.where(np.arange(60) % 3 == 0, "女", "men")
    ax = drawn(show.importance(VALUES, NAMES, cohorts=groups))
    assert legend_of(ax) == ["女 (20 rows)", "men (40 rows)"]
    first, second = ax.patches[:4], ax.patches[4:]
    np.testing.assert_allclose([bar.get_width() for bar in first], np.abs(VALUES[groups == "女"]).mean(0)[[1, 3, 0, 2]])
    np.testing.assert_allclose([bar.get_width() for bar in second], np.abs(VALUES[groups == "men"]).mean(0)[[1, 3, 0, 2]])
    assert all(a.get_y() + a.get_height() <= b.get_y() for a, b in zip(first, second, strict=True))


def test_outputs_are_stacked():
    values = np.stack([VALUES, 2 * VALUES, 0.5 * VALUES], 2)
    ax = drawn(show.importance(values, NAMES, outputs=["a", "b", "c"]))
    assert legend_of(ax) == ["b", "a", "c"]
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose([bar.get_x() for bar in ax.patches[4:]], ends[:8])
    np.testing.assert_allclose(ends[8:], 3.5 * np.abs(VALUES).mean(0)[[1, 3, 0, 2]])
    many = show.importance(np.repeat(VALUES[:, :, None], 9, 2), NAMES, outputs=list("abcdefghi"))
    assert legend_of(many)[-1] == "4 others"
    assert many.patches[-1].get_x() + many.patches[-1].get_width() == pytest.approx(9 * np.abs(VALUES[:, 2]).mean())


def test_importances_found_in_another_way_keep_their_sign():
    ax = drawn(show.importance(np.array([0.1, -0.3, 0.2]), ["a", "b", "c"], error=np.array([0.01, 0.2, 0.02]), most=2))
    assert [bar.get_width() for bar in ax.patches] == [-0.3, 0.2]
    assert ax.get_xlabel() == "score units (1 smaller ones not shown)"
    ends = ax.collections[0].get_segments()[0][:, 0]
    assert ax.get_xlim()[0] < ends.min() < ends.max() < ax.texts[0].get_position()[0]


# ---- force ----------------------------------------------------------------------------------------------------------

ROW, BASE = np.array([1.0, -2.0, 0.5, 0.25, -0.125, 0.0]), 10.0
PARTS = ["a", "b", "c", "d", "e", "f"]


def test_segments_meet_at_the_score():
    found = segments(ROW, PARTS, BASE, 9.625, 10)
    assert [(s.name, s.start, s.stop) for s in found] == [
        ("a", 8.625, 9.625), ("c", 8.125, 8.625), ("d", 7.875, 8.125), ("b", 11.625, 9.625), ("e", 11.75, 11.625),
    ]  # fmt: skip
    few = segments(ROW, PARTS, BASE, 9.625, 3)
    assert [(s.name, s.value) for s in few] == [("a", 1), ("2 smaller ones", 0.75), ("b", -2), ("e", -0.125)]


def test_values_that_do_not_sum_to_the_score_are_refused():
    for draw in (show.force, show.force_svg):
        with pytest.raises(InputError, match=r"base 10 and the values' sum -0.375 do not give 9.7"):
            draw(ROW, PARTS, BASE, 9.7)


def test_arrows_and_labels():
    ax = drawn(show.force(ROW, PARTS, BASE, 9.625, title="row 1", unit="points"))
    assert [to_hex(arrow.get_facecolor()) for arrow in ax.patches] == [FOR] * 3 + [AGAINST] * 2
    spans = [(arrow.get_xy()[:, 0].min(), arrow.get_xy()[:, 0].max()) for arrow in ax.patches]
    assert spans[0][1] == 9.625 == spans[3][0]
    assert spans[2][0] == 7.875
    assert spans[4][1] == 11.75
    tiny = show.force(np.array([5.0, 0.001]), ["a", "b"], 0.0, 5.001)
    assert tiny.patches[1].get_xy()[:, 0].min() == pytest.approx(0)  # the head of a short arrow is no longer than the arrow
    labels = {text.get_text().split()[0]: text.xy for text in ax.texts if hasattr(text, "xy")}
    assert labels["a"] == (9.125, pytest.approx(labels["b"][1] - 0.62))  # three on the left, two on the right
    assert labels["d"][1] > labels["c"][1] > labels["a"][1]
    assert {"base 10", "9.625"} <= {text.get_text() for text in ax.texts}


def test_labels_of_a_force_plot_do_not_cover_each_other():
    values = np.array([3, -2, 0.01, 0.02, -0.01, 0.03, -0.02, 0.04])
    ax = drawn(show.force(values, [f"a feature with a long name {k} = 1.234" for k in range(8)], 0.0, float(values.sum())))
    boxes = [text.get_window_extent() for text in ax.texts if hasattr(text, "xy")]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_a_row_of_zeros():
    ax = drawn(show.force(np.zeros(3), ["a", "b", "c"], 1.0, 1.0))
    assert not ax.patches
    assert len(parse(show.force_svg(np.zeros(3), ["a", "b", "c"], 1.0, 1.0)).findall(".//{*}polygon")) == 0


def parse(text):
    return ElementTree.fromstring(text)


def test_force_as_svg():
    root = parse(show.force_svg(ROW[:4], NAMES, BASE, 9.75, title="<b>", unit="points"))
    arrows = root.findall("{*}polygon")
    assert [arrow.get("fill") for arrow in arrows] == [FOR] * 3 + [AGAINST]
    tips = [max(float(p.split(",")[0]) for p in arrow.get("points").split()) for arrow in arrows[:3]]
    assert tips[0] == min(float(p.split(",")[0]) for p in arrows[3].get("points").split())
    assert arrows[1].find("{*}title").text == f"{NAMES[2]}: +0.5 points"
    assert root.find("{*}rect").get("fill") == "#ffffff"  # its own paper


def test_nothing_in_a_name_is_markup():
    bad = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a & b\x00\x1b", "]]></svg>"]
    texts = [
        show.force_svg(ROW[:4], bad, BASE, 9.75, title=bad[0], unit=bad[1]),
        show.force_rows_svg(VALUES, bad, 0.0, features=np.array([bad] * 60, object), title=bad[3], unit=bad[0], row_names=bad * 15),
    ]
    for text in texts:
        tags = {node.tag.split("}")[1] for node in parse(text).iter()}
        assert tags <= {"svg", "rect", "path", "polygon", "text", "tspan", "title"}
        assert bad[0] in "".join(parse(text).itertext())


def heights(path):
    return [float(number) for number in re.findall(r"V([-\d.]+)", path)]


def test_rows_side_by_side_reach_from_base_to_score():
    text = show.force_rows_svg(VALUES, NAMES, 0.5, order="given", most=4)
    root = parse(text)
    bands = [path for path in root.findall("{*}path") if path.get("stroke") == "#fff"]
    assert len(bands) == 8  # four features, for and against
    line = next(path for path in root.findall("{*}path") if path.get("stroke-width") == "1.4")
    at, score = np.array(heights(line.get("d"))), 0.5 + VALUES.sum(1)
    assert np.corrcoef(at, -score)[0, 1] > 0.999999
    unit = (at.max() - at.min()) / np.ptp(score)  # pixels
    first = np.array(heights(bands[0].get("d")))  # the most important one: from the score down by what speaks for
    np.testing.assert_allclose(first[:60], at, atol=0.11)
    np.testing.assert_allclose((first[60:][::-1] - first[:60]) / unit, np.maximum(VALUES[:, 1], 0), atol=0.11 / unit * 2)
    titles = [strip.find("{*}title").text for strip in root.findall("{*}rect") if strip.find("{*}title") is not None]
    assert len(titles) == 60
    strong = np.argsort(-np.abs(VALUES[3]))
    assert titles[3].splitlines()[1:] == [f"{NAMES[j]} {VALUES[3, j]:+.3g}" for j in strong]
    assert titles[3].splitlines()[0] == f"row 3: {score[3]:.4g} score units"


def test_orders_of_rows():
    values = np.array([[1.0, 0], [-1, 5], [1.1, 0], [-1, 5.2]])
    first = lambda order: [t.splitlines()[0].split(":")[0] for t in titles_of(show.force_rows_svg(values, ["a", "b"], 0.0, order=order))]  # noqa: E731
    assert first("given") == ["row 0", "row 1", "row 2", "row 3"]
    assert first("prediction") == ["row 3", "row 1", "row 2", "row 0"]
    alike = first("similarity")
    assert {frozenset(alike[:2]), frozenset(alike[2:])} == {frozenset({"row 0", "row 2"}), frozenset({"row 1", "row 3"})}
    assert first("auto") == alike


def titles_of(text):
    return [strip.find("{*}title").text for strip in parse(text).findall("{*}rect") if strip.find("{*}title") is not None]


def test_many_rows_share_columns_and_say_so():
    values = RNG.normal(size=(3000, 3))
    text = show.force_rows_svg(values, ["a", "b", "c"], 0.0, features=values)
    assert "3,000 rows, highest score first; each column is the mean of 5 to 5 of them" in "".join(parse(text).itertext())
    titles = titles_of(text)
    assert len(titles) == 600
    best = np.argsort(-values.sum(1))[:5]
    assert titles[0].startswith(f"mean of 5 rows, from row {best[0]} to row {best[4]}: {values[best].sum(1).mean():.4g}")
    with pytest.raises(InputError, match=r"there are 3,000; give up to 2,000, or order='prediction'"):
        show.force_rows_svg(values, ["a", "b", "c"], 0.0, order="similarity")


# ---- dependence and partners ----------------------------------------------------------------------------------------


def test_dots_stand_at_what_the_feature_holds():
    ax = drawn(show.scatter(TABLE[:, 0], VALUES[:, 0], "age", unit="points"))
    found = ax.collections[-1].get_offsets()
    assert sorted(map(tuple, found.tolist())) == sorted(zip(TABLE[:, 0].tolist(), VALUES[:, 0].tolist(), strict=True))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("age (60 rows)", "value of age, points")


def test_missing_numbers_stand_at_the_margin():
    x = TABLE[:, 0].copy()
    x[::5] = np.nan
    ax = drawn(show.scatter(x, VALUES[:, 0], "age"))
    offsets = ax.collections[-1].get_offsets()
    assert np.isfinite(offsets).all()
    left = offsets[:, 0] < np.nanmin(x)
    assert sorted(offsets[left, 1].tolist()) == sorted(VALUES[::5, 0].tolist())
    assert ax.get_xticklabels()[0].get_text() == "missing"
    assert offsets[left, 0].max() < ax.lines[0].get_xdata()[0] < np.nanmin(x)


def test_levels_stand_side_by_side_by_their_mean():
    cells = MIXED[:, 0].copy()
    cells[::9] = None
    ax = drawn(show.dependence(cells, VALUES[:, 0], "city"))
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    means = {level: VALUES[cells == level, 0].mean() for level in {*cells[cells != None]}}  # noqa: E711
    assert ticks == ["missing", *sorted(means, key=means.get, reverse=True)]
    offsets = ax.collections[-1].get_offsets()
    for at, level in zip(ax.get_xticks()[1:], ticks[1:], strict=True):
        mine = np.abs(offsets[:, 0] - at) < 0.45
        assert sorted(offsets[mine, 1].tolist()) == sorted(VALUES[cells == level, 0].tolist())
    short = {tuple(np.round(line.get_ydata(), 9)) for line in ax.lines}
    assert {(round(mean, 9),) * 2 for mean in means.values()} <= short


def test_rare_levels_share_a_column():
    cells = np.array([f"level {k}" for k in range(30)] * 2)
    ax = drawn(show.scatter(cells, VALUES[:, 0], "city"))
    assert [label.get_text() for label in ax.get_xticklabels()][-1] == "19 others"
    assert np.sum(ax.collections[-1].get_offsets()[:, 0] > 10.5) == 38


def test_few_distinct_numbers_are_spread_and_named():
    ax = show.scatter(np.arange(60) % 2, VALUES[:, 0], "flag")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1"]
    places = ax.collections[-1].get_offsets()[:, 0]
    assert len(np.unique(places)) == 60
    assert np.abs(places - places.round()).max() < 0.3


def test_colours_of_the_second_feature():
    ax = drawn(show.dependence(TABLE[:, 0], VALUES[:, 0], "age", interacting=("income", np.arange(60.0))))
    offsets, colours = ax.collections[-1].get_offsets(), ax.collections[-1].get_facecolors()
    of = {tuple(at): colour for at, colour in zip(offsets.tolist(), colours, strict=True)}
    assert of[(TABLE[59, 0], VALUES[59, 0])][:3].sum() > of[(TABLE[0, 0], VALUES[0, 0])][:3].sum()
    scale = ax.figure.axes[1]
    assert [t.get_text() for t in scale.get_yticklabels()][:: len(scale.get_yticks()) - 1] == ["0", "59"]
    assert scale.get_ylabel() == "income, by rank"
    named = drawn(show.dependence(TABLE[:, 0], VALUES[:, 0], "age", interacting=("city", np.where(np.arange(60) < 9, None, MIXED[:, 0]))))
    assert legend_of(named)[-1] == "missing"
    assert sum(to_hex(c) == GREY for c in named.collections[-1 - len(legend_of(named))].get_facecolors()) == 9


def test_ten_thousand_dots_and_no_more():
    ax = show.scatter(np.arange(12_000.0), np.arange(12_000.0), "x")
    assert len(ax.collections[-1].get_offsets()) == 10_000
    assert "12,000 rows, 10,000 of them drawn" in ax.get_xlabel()


def test_dates_on_the_axis():
    days = pd.Series(pd.date_range("2020-01-01", periods=60)).to_numpy()
    ax = drawn(show.dependence(days, VALUES[:, 0], "day", interacting=("other day", days)))
    assert any(label.get_text().startswith("2020") for label in ax.get_xticklabels())
    assert ax.figure.axes[1].get_yticklabels()[0].get_text() == "2020-01-01"


def test_the_partner_that_was_put_in():
    """Also beside one that goes along with the feature itself, and never for noise, levels or not."""
    rng, hits = np.random.default_rng(5), 0
    for _ in range(10):
        x = rng.normal(size=(400, 6))
        x[:, 4] = x[:, 0] + 0.3 * rng.normal(size=400)
        table = x.astype(object)
        table[:, 5] = rng.choice(list("abcdefghijklmnopqrst"), 400)
        values = np.sin(2 * x[:, 0]) + 0.4 * x[:, 0] * np.sign(x[:, 3])
        order = show.strongest_partner(values, table, 0)
        assert sorted(order) == [1, 2, 3, 4, 5]
        hits += order[0] == 3
        assert show.partner_shares(rng.normal(size=400), table, 0).max() < 0.1
    assert hits == 10


def test_shares_of_a_partner():
    """By hand: x_j is constant, so that epsilon squared is that of one analysis of variance."""
    rng = np.random.default_rng(0)
    level = np.repeat(np.array(list("abc"), object), 20)
    values = rng.normal(size=60) + np.repeat([0.0, 1, 3], 20)
    table = np.stack([np.ones(60).astype(object), level], 1)
    groups = [values[level == name] for name in "abc"]
    between = sum(20 * (g.mean() - values.mean()) ** 2 for g in groups)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / 57
    assert show.partner_shares(values, table, 0)[1] == pytest.approx((between - 2 * within) / ((values - values.mean()) ** 2).sum())
    assert show.partner_shares(values, table, 0)[0] == 0


def test_a_straight_line_is_no_interaction():
    x = np.linspace(0, 1, 300)
    assert show.partner_shares(3 * x, np.stack([x, x + 0.1 * RNG.normal(size=300)], 1), 0)[1] < 1e-9


def test_interaction_values_decide_where_they_are_given():
    exact = np.zeros((60, 4, 4))
    exact[:, 0, 2], exact[:, 0, 1], exact[:, 0, 0] = -3, 1, 9
    assert show.strongest_partner(VALUES[:, 0], TABLE, 0, exact).tolist() == [2, 1, 3]


# ---- interactions ---------------------------------------------------------------------------------------------------

PAIRS = RNG.normal(size=(50, 4, 4))
PAIRS = (PAIRS + PAIRS.transpose(0, 2, 1)) / 2 + 8 * np.eye(4)


def test_the_map_of_pairs():
    ax = drawn(show.interactions(PAIRS, NAMES, unit="points"))
    mean = np.abs(PAIRS).mean(0)
    order = np.argsort(-mean.sum(1))
    shown = mean[np.ix_(order, order)]
    off = ~np.eye(4, dtype=bool)
    pairs, own = ax.images
    np.testing.assert_allclose(np.asarray(pairs.get_array())[off], shown[off])
    assert np.ma.getmaskarray(pairs.get_array()).diagonal().all()
    np.testing.assert_allclose(np.asarray(own.get_array())[~off], shown[~off])
    assert pairs.get_clim() == (0, shown[off].max())  # the main effects do not make the pairs pale
    assert pairs.cmap(0.0)[:3] == pytest.approx((1, 1, 1), abs=0.02)
    assert [t.get_text() for t in ax.texts] == [f"{v:.2g}" for v in shown.ravel()]


def test_averages_are_taken_as_they_are():
    first, second = show.interactions(PAIRS, NAMES), show.interactions(np.abs(PAIRS).mean(0), NAMES)
    np.testing.assert_allclose(first.images[0].get_array(), second.images[0].get_array())


def test_ranked_pairs_count_both_halves():
    ax = drawn(show.interaction_pairs(PAIRS, NAMES, most=2))
    i, j = np.triu_indices(4, 1)
    whole = 2 * np.abs(PAIRS[:, i, j])
    best = np.argsort(-whole.mean(0))[:2]
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches], whole.mean(0)[best])
    ends = ax.collections[0].get_segments()[0][:, 0]
    assert np.ptp(ends) == pytest.approx(2 * 1.96 * whole[:, best[0]].std(ddof=1) / np.sqrt(50))
    assert "4 smaller ones not shown" in ax.get_xlabel().replace("\n", " ")
    assert " × " in rows_of(ax)[0]


# ---- decision -------------------------------------------------------------------------------------------------------


def test_lines_from_base_to_score():
    ax = drawn(show.decision(VALUES, NAMES, 0.5, highlight=[7]))
    lines = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(lines[:, 0, 0], 0.5)
    np.testing.assert_allclose(lines[:, -1, 0], 0.5 + VALUES.sum(1))
    np.testing.assert_allclose(np.diff(lines[:, :, 0]), VALUES[:, [2, 0, 3, 1]])  # the least important first
    assert lines[0, :, 1].tolist() == [3.5, 2.5, 1.5, 0.5, -0.5]
    colours = [to_hex(c) for c in ax.collections[0].get_colors()]
    assert colours == [FOR if v > 0 else AGAINST for v in VALUES.sum(1)]
    assert legend_of(ax) == [f"row 7: {0.5 + VALUES[7].sum():.4g}"]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), lines[7, :, 0])


def test_many_lines_are_clear_and_the_rest_moves_them_first():
    few, many = show.decision(VALUES[:2], NAMES, 0.0), show.decision(np.tile(VALUES, (50, 1)), NAMES, 0.0, most=3)
    assert few.collections[0].get_alpha() > 0.8 > 0.1 > many.collections[0].get_alpha()
    assert rows_of(many)[-1] == "2 others, summed"
    np.testing.assert_allclose(np.array(many.collections[0].get_segments())[:60, 1, 0], VALUES[:, [0, 2]].sum(1))


# ---- the table ------------------------------------------------------------------------------------------------------


class Cells(HTMLParser):
    """What a browser sees: tags, and the cells with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.heads, self.into = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        kept = {"td": self.cells, "th": self.heads}.get(tag)
        if kept is not None:
            kept.append([dict(attributes), ""])
            self.into = kept[-1]

    def handle_endtag(self, tag):
        self.into = None if tag in ("td", "th") else self.into

    def handle_data(self, data):
        if self.into is not None:
            self.into[1] += data


def test_a_table_with_values_and_what_they_stand_for():
    found = Cells(show.table_html(VALUES, NAMES, features=MIXED, base=0.5, title="rows", unit="points"))
    assert [head for _, head in found.heads[:6]] == ["row", "score", "income", NAMES[3], "age", NAMES[2]]
    score, income, _, age, _ = found.cells[:5]
    assert float(score[0]["data-v"]) == pytest.approx(0.5 + VALUES[0].sum(), rel=1e-5)
    assert float(income[0]["data-v"]) == pytest.approx(VALUES[0, 1], rel=1e-5)
    assert income[1] == f"{VALUES[0, 1]:+.3g}".replace("-", "−") + "missing"
    assert age[1].endswith(MIXED[0, 0])
    assert len(found.cells) == 60 * 5


def test_colours_of_the_table_are_white_at_zero():
    found = Cells(show.table_html(np.array([[1.0, 0.0, -1.0]]), ["a", "b", "c"]))
    paper = {attributes["data-v"]: re.findall("#[0-9a-f]+", attributes["style"]) for attributes, _ in found.cells}
    assert paper["0"] == ["#ffffff", "#14171a"]
    red, blue = to_rgba(paper["1"][0]), to_rgba(paper["-1"][0])
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert paper["1"][1] == paper["-1"][1] == "#fff"


def test_nothing_in_a_table_is_markup():
    bad = "<script>alert(1)</script><img src=x>"
    text = show.table_html(
        VALUES[:, :2], [bad, "b"], features=np.array([[bad, '" onclick="x']] * 60, object), row_names=[bad] * 60, title=bad, unit=bad
    )
    found = Cells(text)
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert set(found.cells[0][0]) == {"data-v", "style"}
    assert Cells(show.table_html(VALUES, NAMES, script=False)).tags.count("script") == 0
    assert show.sorter() in text


def test_a_long_and_wide_table_says_what_it_leaves_out():
    values = RNG.normal(size=(700, 40))
    text = show.table_html(values, [f"f{k}" for k in range(40)], columns=5)
    assert "The first 500 of 700 rows; 200 are left out." in text
    found = Cells(text)
    assert len(found.cells) == 500 * 6
    assert found.heads[6][1] == "35 others"
    order = np.argsort(-np.abs(values).mean(0))
    assert float(found.cells[5][0]["data-v"]) == pytest.approx(values[0, order[5:]].sum(), rel=1e-4)


# ---- all of them ----------------------------------------------------------------------------------------------------


def pictures(values, names, features, axes=lambda: None):
    d = len(names)
    pairs = np.abs(values[:, :, None] * values[:, None])
    yield show.beeswarm(values, names, features, axes())
    yield show.importance(values, names, axes())
    yield show.force(values[0], names, 1.0, 1.0 + values[0].sum(), axes())
    yield show.dependence(features[:, 0], values[:, 0], names[0], axes(), interacting=(names[-1], features[:, -1]))
    yield show.interactions(pairs, names, axes())
    yield show.decision(values, names, 1.0, axes())
    if d > 1:
        yield show.interaction_pairs(pairs, names, axes())


@pytest.mark.parametrize(
    ("values", "features"),
    [
        (VALUES[:1], TABLE[:1]),
        (np.zeros((5, 4)), np.ones((5, 4))),
        (VALUES, np.full((60, 4), None)),
        (VALUES, np.full((60, 4), "the same")),
        (VALUES, MIXED),
        (VALUES[:2, :1], TABLE[:2, :1]),
        (RNG.normal(size=(20, 300)), RNG.normal(size=(20, 300))),
    ],
    ids=["one row", "zeros", "all missing", "one level", "mixed", "one feature", "300 features"],
)
def test_whatever_the_rows_hold(values, features):
    names = NAMES[: values.shape[1]] if values.shape[1] < 5 else [f"一个相当长的特征名称 {k}" for k in range(values.shape[1])]
    for ax in pictures(values, names, features):
        drawn(ax)
        assert ax.get_xlabel()
        assert np.isfinite([ax.get_xlim(), ax.get_ylim()]).all()
    parse(show.force_rows_svg(values, names, 0.0, features=features))
    parse(show.force_svg(values[0], names, 0.0, float(values[0].sum())))
    assert "</table>" in show.table_html(values, names, features=features)


def test_pictures_take_axes_and_give_them_back():
    given = []

    def axes():
        given.append(Figure().add_subplot())
        return given[-1]

    assert list(pictures(VALUES, NAMES, MIXED, axes)) == given
    assert len(given) == 7


def test_on_a_dark_background_all_text_is_light_and_the_paper_dark():
    with matplotlib.style.context("dark_background"):
        for ax in pictures(VALUES, NAMES, MIXED):
            drawn(ax)
            assert ax.figure.get_facecolor() == (0, 0, 0, 1)
            outside = [ax.title, ax.xaxis.label, *ax.get_xticklabels(), *ax.get_yticklabels()]
            assert all(sum(to_rgba(text.get_color())[:3]) > 2 for text in outside)
            inside = [text for text in ax.texts if not ax.images]  # a map brings its own paper
            assert all(sum(to_rgba(text.get_color())[:3]) > 1 for text in inside)


def test_dots_differ_from_the_paper():
    """Contrast of at least 1.6 with white and with black."""
    for style, paper in (("default", 1.0), ("dark_background", 0.0)):
        with matplotlib.style.context(style):
            colours = show.beeswarm(VALUES, NAMES, TABLE).collections[0].get_facecolors()[:, :3]
        linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
        light = linear @ [0.2126, 0.7152, 0.0722]
        assert ((np.maximum(light, paper) + 0.05) / (np.minimum(light, paper) + 0.05)).min() > 1.6


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: show.beeswarm(VALUES[0], NAMES), r"needs values \[n, d\], and they have the shape \[4\]"),
        (lambda: show.beeswarm(VALUES[:0], NAMES), r"shape \[0, 4\]"),
        (lambda: show.beeswarm(VALUES, NAMES[:3]), "there are 3 names for 4 features"),
        (lambda: show.beeswarm(VALUES, NAMES, TABLE[:9]), r"features has the shape \[9, 4\], and values \[60, 4\]"),
        (lambda: show.beeswarm(np.where(VALUES[3, 1] == VALUES, np.nan, VALUES), NAMES), r"values\[3, 1\] is nan"),
        (lambda: show.beeswarm(VALUES, NAMES, most=1), "most=1: give how many to show, 2 or more"),
        (lambda: show.importance(VALUES, NAMES, most=True), "most=True"),
        (lambda: show.importance(VALUES, NAMES, error=np.ones(4)), r"error= has the shape \[4\]: it goes with values \[d\]"),
        (lambda: show.importance(VALUES[0], NAMES, cohorts=["a"] * 4), "cohorts= are groups of the rows"),
        (lambda: show.importance(VALUES, NAMES, cohorts=["a"] * 4), "cohorts= has 4 entries for 60 rows"),
        (lambda: show.importance(VALUES, NAMES, cohorts=range(60)), "cohorts= has 60 groups; at most 6"),
        (lambda: show.importance(VALUES[:, :, None], NAMES, outputs=["a", "b"]), "outputs= has 2 names for 1 outputs"),
        (lambda: show.scatter(TABLE[:9, 0], VALUES[:, 0], "a"), r"x has the shape \[9\] for 60 values"),
        (lambda: show.scatter(np.full(60, np.inf), VALUES[:, 0], "a"), "x is infinite in row 0"),
        (lambda: show.strongest_partner(VALUES[:, 0], TABLE, 4), "there is no feature 4: the table has 4"),
        (lambda: show.strongest_partner(VALUES[:9, 0], TABLE, 0), "one value for each row"),
        (lambda: show.strongest_partner(VALUES[:, 0], TABLE, 0, PAIRS), r"interactions has the shape \[50, 4, 4\]; .* \[60, 4, 4\]"),
        (lambda: show.interactions(PAIRS[:, :, :3], NAMES), r"square.*\[50, 4, 3\]"),
        (lambda: show.interaction_pairs(PAIRS[:, :1, :1], NAMES[:1]), "a pair needs two"),
        (lambda: show.decision(VALUES, NAMES, 0.0, highlight=[60]), "highlight=60: there are 60 rows, counted from 0"),
        (lambda: show.force_rows_svg(VALUES, NAMES, 0.0, order="x"), "order='x': choose 'auto', 'similarity', 'prediction', 'given'"),
        (lambda: show.force_rows_svg(VALUES, NAMES, 0.0, row_names=["a"]), "row_names= has 1 entries for 60 rows"),
        (lambda: show.table_html(VALUES, NAMES, row_names=["a"]), "row_names= has 1 entries for 60 rows"),
        (lambda: show.table_html(VALUES, NAMES, columns=0), "columns=0: give how many"),
    ],
)  # fmt: skip
def test_refusals(call, says):
    with pytest.raises(InputError, match=says):
        call()
