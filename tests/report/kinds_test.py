"""Pages and figures of outputs of every kind, of several networks and of several views."""

import dataclasses
import re

import numpy as np
import pytest
from html_report import Page, make_page
from matplotlib.colors import to_rgba

import outgen_jax as og
from outgen_jax import report
from outgen_jax.report import run as runs
from outgen_jax.report.plotting import SKY

TAGS = ("smiling", "glasses", "hat")
FREE = np.nan


def part(wanted, before, reached, *, entries=None, kind=None, **names):
    """A part from rows [N, K]."""
    rows = [np.array(values, np.float32) for values in (wanted, before, reached)]
    entries = tuple(f"entry {k}" for k in range(rows[0].shape[1])) if entries is None else entries
    return report.Part(entries, *rows, og.outputs.softmax() if kind is None else kind, **names)


def labels(
    wanted=((0.9, 0.0, 0.4),), before=((0.1, 0.7, 0.4),), reached=((0.9, 0.0, 0.5),), **more
):
    return part(wanted, before, reached, **({"entries": TAGS, "kind": og.outputs.sigmoid()} | more))


def numbers(
    wanted=((20.0, -4.0),), before=((35.0, 0.0),), reached=((20.0, -3.0),), scale=5.0, **more
):
    kind = og.outputs.values(scale=scale)
    return part(wanted, before, reached, **({"entries": ("age", "tilt"), "kind": kind} | more))


def run_of(*parts, ids=None):
    """A run of parts, with the distance that they have."""
    number = len(parts[0].wanted)
    images = np.full((number, 8, 8, 3), 90, np.uint8)
    run = report.SynthesisRun(
        source=images,
        generated=images + np.uint8(2),
        parts=parts,
        ids=ids or tuple(f"{row}.png" for row in range(number)),
        steps=np.arange(number),
        distance=np.zeros(number),
        converged=np.ones(number, bool),
    )
    return run._replace(distance=runs.distance_reached(run))


def entry(run):
    """The first image of the gallery, as text without tags."""
    page = make_page(run)
    assert Page(page).open == []
    start = page.index("<article")
    return page[start : page.index("</article>")]


def text_of(html):
    return " ".join(Page(html).text.split())


def cells(html):
    """The rows of all tables: names and numbers."""
    rows = re.findall(r"<tr[^>]*>(<th scope=\"row\".*?)</tr>", html)
    return [[text_of(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)] for row in rows]


def figure_texts(run, **options):
    figure = report.synthesis_figure(run, **({"rows": [0]} | options))
    report.figure_bytes(figure, dpi=50)
    return [text.get_text() for axes in figure.axes for text in axes.texts]


# Labels


def test_labels_have_a_bar_each_and_no_sum():
    run = run_of(labels())
    html = entry(run)
    widths = re.findall(r'class="reached" style="width:([\d.]+)%"', html)
    assert [float(width) for width in widths] == [90, 0, 50]
    assert cells(html) == [
        ["smiling", "0.100", "0.900", "0.900"],
        ["glasses", "0.700", "0.000", "0.000"],
        ["hat", "0.400", "0.400", "0.500"],
    ]
    text = text_of(make_page(run))
    assert "A network looks at an image and answers with a probability for each label" in text
    assert "0.1000 largest error of a probability, median image, from 0.8000" in text
    assert "Largest error of a probability 0.8000 → 0.1000" in text
    assert "smiling: 0.10 → 0.90, glasses: 0.70 → 0.00 and 1 more" in text
    for wrong in ("lassifier", "Total variation", "every class", "KL"):
        assert wrong not in text


def test_the_figure_of_labels_draws_a_bar_each():
    run = run_of(labels())
    chart = report.synthesis_figure(run, rows=[0]).axes[3]
    drawn = [patch for patch in chart.patches if patch.get_facecolor() == to_rgba(SKY)]
    assert [patch.get_width() for patch in drawn] == pytest.approx([0.9, 0, 0.5])
    assert "probability 0.1000" in figure_texts(run)


def test_of_many_labels_the_named_ones_are_shown_and_the_others_counted():
    wanted, before = np.full((1, 40), FREE), np.full((1, 40), 0.5)
    wanted[0, [3, 8, 20, 21, 22, 23, 24]] = [0.6, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    reached = np.where(np.isnan(wanted), 0.1, wanted)
    reached[0, 24] = 0.50021
    run = run_of(labels(wanted, before, reached, entries=None))
    html = entry(run)
    assert [row[0] for row in cells(html)] == [f"entry {k}" for k in (8, 3, 20, 21, 22)]
    assert "35 others: 33 free, at most 0.0003 off" in text_of(html)
    assert "35 others: 33 free, at most 0.0003 off" in figure_texts(run)
    all_free = labels(np.full((1, 40), FREE), before, before, entries=None)
    assert "35 others: free" in text_of(entry(run_of(all_free)))


# Numbers


def test_numbers_are_texts_with_their_unit_and_no_bars():
    run = run_of(numbers())
    html = entry(run)
    assert "track" not in html
    assert cells(html) == [
        ["age", "35.000", "20.000", "20.000"],
        ["tilt", "0.000", "-4.000", "-3.000"],
    ]
    error, before = 1 / 5 / np.sqrt(2), np.sqrt((15**2 + 4**2) / 2) / 5
    text = text_of(make_page(run))
    assert f"RMS error in units of 5 {before:.4f} → {error:.4f}" in text
    assert "age: 35.000 → 20.000, tilt: 0.000 → -4.000" in text
    assert "answers with numbers" in text
    for wrong in ("robabilit", "lassifier", "Total variation"):
        assert wrong not in text.replace("class or name", "")
    texts = figure_texts(run)
    assert {"source", "20.000", "35.000", "-3.000", "in units of 5"} <= set(texts)
    assert f"reached, RMS error {error:.4f}" in texts
    assert "probability" not in texts
    assert not report.synthesis_figure(run, rows=[0]).axes[3].patches


@pytest.mark.parametrize(
    ("scale", "value", "text"),
    [
        (1.0, 1.23456, "1.235"),
        (0.02, 0.0123456, "0.01235"),
        (2000.0, 12345.6, "12346"),
        (1.0, -0.00001, "0.000"),
        (1.0, 1.5e9, "1.5e+09"),
    ],
)
def test_numbers_are_written_to_a_thousandth_of_their_scale(scale, value, text):
    html = entry(run_of(numbers([[value]], [[value]], [[value]], scale, entries=("x",))))
    assert cells(html) == [["x", text, text, text]]


def test_distances_beyond_1_are_on_the_histogram():
    run = run_of(numbers(before=[[3e3, 0.0]], scale=1.0))
    page = make_page(run)
    rows = re.findall(r'<dd class="source">(.*?)</dd>', page)
    heights = [float(height) for height in re.findall(r"height:([\d.]+)%", rows[0])]
    assert len(heights) == 5 * 10
    assert np.flatnonzero(heights).tolist() == [5 * 8 + 1]  # 2107 lies between 10^3.2 and 10^3.4
    assert "100,000" in text_of(page)


# Several


def test_two_networks_have_a_group_each():
    classes = part([[0.7, 0.3]], [[0.2, 0.8]], [[0.6, 0.4]], entries=("cat", "dog"), network="kind")
    run = run_of(classes, numbers(network="body"))
    html = entry(run)
    assert html.count("<section") == 2
    text = text_of(html)
    assert "kind total variation 0.1000" in text
    assert "body RMS error 0.1414, in units of 5" in text
    assert "Distance to the target, worst output 2.1954 → 0.1414" in text
    assert text_of(html[html.index("<h3>") : html.index("</h3>") + 5]) == "0.png"
    page = text_of(make_page(run))
    assert (
        "A network looks at an image and answers with two outputs: a probability for every class"
        in page
    )
    assert "prescribed in both outputs at once" in page
    texts = figure_texts(run)
    assert "kind: total variation 0.1000" in texts
    assert "source 35.000" in texts
    assert "probability" in texts
    assert "reached, distance 0.1414" in texts


def views(gaps):
    """A view for each gap, in which the answer is that much off."""
    return [
        part(
            [[0.7, 0.3]],
            [[0.2, 0.8]],
            [[0.7 - gap, 0.3 + gap]],
            entries=("cat", "dog"),
            view=f"shift {v}",
        )
        for v, gap in enumerate(gaps)
    ]


def test_of_six_views_the_worst_is_shown():
    run = run_of(*views([0.0, 0.0002, 0.01, 0.03, 0.02, 0.0]))
    html = entry(run)
    text = text_of(html)
    assert html.count("<section") == 1
    assert "shift 3, worst of 6 views total variation 0.0300" in text
    assert "5 other views: at most 0.0200 off" in text
    assert "dog 0.80 → cat 0.70, dog 0.30" in text
    assert "Total variation to the target, worst view 0.5000 → 0.0300" in text
    assert "A classifier looks at an image in six views" in text_of(make_page(run))
    texts = figure_texts(run)
    assert "shift 3, worst of 6 views: total variation 0.0300" in texts
    assert "5 other views: at most 0.0200 off" in texts


def test_four_views_are_all_shown():
    html = entry(run_of(*views([0.0, 0.1, 0.2, 0.0])))
    assert html.count("<section") == 4
    gaps = re.findall(r"total variation ([^ ]*)</small>", html.replace("&lt; ", "<"))
    assert gaps == ["<0.0001", "0.1000", "0.2000", "<0.0001"]
    assert "other views" not in html


def test_a_view_that_is_not_finite_is_the_worst():
    run = run_of(*views([0.0, 0.1, 0.2, 0.0, FREE, 0.3]))
    html = entry(run)
    assert "shift 4, worst of 6 views" in html
    assert "output not finite" in html
    assert 'data-distance="Infinity"' in html
    assert "5 other views: at most 0.3000 off" in html
    assert "the network&#x27;s output is not finite" not in html
    assert "the network's output is not finite" in figure_texts(run)
    assert "not finite on 1" in text_of(make_page(run))


# Free entries


def test_free_entries_say_so():
    html = entry(run_of(labels(wanted=[[0.9, FREE, FREE]])))
    assert [row[2] for row in cells(html)] == ["0.900", "free", "free"]
    assert html.count('class="wanted"') == 1
    run = run_of(numbers(wanted=[[FREE, -4.0]]))
    assert [row[2] for row in cells(entry(run))] == ["free", "-4.000"]
    assert "free" in figure_texts(run)
    assert "Free A number without a target." in text_of(make_page(run))
    assert "Free" not in text_of(make_page(run_of(numbers())))


def test_free_classes_share_what_the_named_ones_leave():
    reached = [[0.6, 0.1, 0.3]]
    run = run_of(
        part([[0.6, FREE, FREE]], [[0.1, 0.1, 0.8]], reached, entries=("cat", "dog", "ox"))
    )
    assert run.distance == pytest.approx([0], abs=1e-6)
    assert runs.distance_before(run) == pytest.approx([0.5])
    text = text_of(entry(run))
    assert "ox 0.80 → cat 0.60, the rest free" in text
    assert re.search(r"KL\(wanted ‖ reached\) (< )?0.000\d nats", text)
    assert "What it says of the named classes was prescribed" in text_of(make_page(run))


def test_what_free_classes_leave_to_the_others_is_free():
    wanted = np.full((1, 100), FREE)
    wanted[0, 7] = 0.9
    reached = np.full((1, 100), 0.1 / 99)
    reached[0, 7] = 0.9
    before = np.eye(100)[[3]]
    html = entry(run_of(part(wanted, before, reached)))
    assert [row[2] for row in cells(html)] == ["0.900", "free", "free", "free", "free", "free"]
    wanted[0] = np.where(np.arange(100) < 12, 0.05, FREE)
    named = np.where(np.isnan(wanted), 0.4 / 88, wanted)
    html = entry(run_of(part(wanted, np.eye(100)[[3]], named)))
    assert cells(html)[-1] == ["95 others", "0.000", "0.750", "0.750"]


# Whatever networks and entries are called


def test_every_name_is_escaped_and_drawn_literally():
    evil = "<b>$\\frac{\x00&"
    run = run_of(
        labels(network=evil, view=evil, entries=(evil, "<i>", "犬")),
        numbers(network="<i>", entries=("$_", evil)),
        ids=(evil,),
    )
    page = make_page(run)
    parsed = Page(page)
    assert parsed.open == []
    assert page.count("<b>") == 4  # of the key numbers
    shown = evil.replace("\x00", "\ufffd")
    assert f"{shown}, {shown}" in parsed.text
    texts = figure_texts(run)
    assert any(text.startswith(f"{shown}, {shown}: largest error") for text in texts)
    assert not re.search(r"\b(nan|inf)\b", page[page.index("<article") : page.index("</article>")])


@dataclasses.dataclass(frozen=True)
class Angles(og.outputs.Values):
    """Angles in radians, of which only the value modulo 2π counts."""

    measure = "<angle>"

    def errors(self, r, goal, floor):
        turned = (r - goal + np.pi) % (2 * np.pi) - np.pi
        return turned


def test_an_output_of_ones_own_has_its_own_distance():
    run = run_of(part([[-3.0]], [[1.0]], [[3.0]], kind=Angles(), entries=("heading",)))
    assert run.distance == pytest.approx([2 * np.pi - 6])
    page = make_page(run)
    assert "&lt;angle&gt;" in page
    assert "<angle>" not in page


# From a result


def apply_fn(variables, images):
    flat = images.reshape(len(images), -1)
    return {"kind": flat @ variables["kind"], "age": flat @ variables["age"]}


RNG = np.random.default_rng(0)
IMAGES = RNG.random((2, 4, 4, 3), np.float32)
VARIABLES = {
    "kind": RNG.normal(0, 0.3, (48, 3)).astype(np.float32),
    "age": RNG.normal(0, 0.3, (48, 1)).astype(np.float32),
}
OUTPUT = {"kind": og.outputs.softmax(), "age": og.outputs.values(scale=2.0)}
TARGETS = {"kind": np.ma.masked_invalid([0.6, FREE, FREE]), "age": [1.5]}


def solved(network, targets, output):
    """What `synthesis_run` takes: a result, its images as saved, and what the network says."""
    solver = og.gauss_newton()
    result = og.synthesize(network, VARIABLES, IMAGES, targets, output=output, solver=solver)
    saved = og.quantize(network, VARIABLES, result.images, targets, output=output)
    before, reached = (og.predict(network, VARIABLES, x, output=output) for x in (IMAGES, saved))
    return result, saved, {"before": before, "reached": reached}


@pytest.fixture(scope="module")
def two_outputs():
    return solved(apply_fn, TARGETS, OUTPUT)


def test_a_run_from_a_result_with_two_outputs(two_outputs):
    result, saved, said = two_outputs
    names = {"kind": ("cat", "dog", "ox"), "age": ("years",)}
    run = report.synthesis_run(result, IMAGES, saved, TARGETS, names=names, **said)
    age, kind = run.parts  # JAX sorts the keys of a dict
    assert (kind.network, kind.entries, kind.kind) == ("kind", ("cat", "dog", "ox"), OUTPUT["kind"])
    assert (age.network, age.entries, age.kind) == ("age", ("years",), OUTPUT["age"])
    np.testing.assert_array_equal(kind.wanted, np.float32([[0.6, FREE, FREE]] * 2))
    np.testing.assert_array_equal(age.reached, said["reached"]["age"])
    np.testing.assert_array_equal(run.source, og.data.to_uint8(IMAGES))
    gaps = [
        np.abs(said["reached"]["kind"][:, 0] - 0.6),
        np.abs(said["reached"]["age"][:, 0] - 1.5) / 2,
    ]
    np.testing.assert_allclose(run.distance, np.max(gaps, 0), atol=1e-6)
    assert run.ids == ("0", "1")
    assert run.converged.tolist() == (run.distance <= 1e-3).tolist() == [True, True]
    strict = report.synthesis_run(result, IMAGES, saved, TARGETS, within=1e-9, **said)
    assert not strict.converged.any()
    assert strict.parts[1].entries == ("0", "1", "2")
    assert "years" in make_page(run)


def test_a_run_from_a_result_with_views():
    views = og.views(
        lambda variables, images: apply_fn(variables, images)["kind"],
        [lambda image: image, lambda image: image[:, ::-1]],
    )
    result, saved, said = solved(views, [0.5, 0.3, 0.2], None)
    run = report.synthesis_run(
        result, IMAGES, saved, [0.5, 0.3, 0.2], views=("plain", "mirrored"), ids=("a", "b"), **said
    )
    assert [part.view for part in run.parts] == ["plain", "mirrored"]
    np.testing.assert_array_equal(run.parts[1].reached, said["reached"][:, 1])
    assert (run.ids, run.parts[0].network) == (("a", "b"), "")
    numbered = report.synthesis_run(result, IMAGES, saved, [0.5, 0.3, 0.2], **said)
    assert [part.view for part in numbered.parts] == ["view 0", "view 1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("cat", "dog")}, "names must name all 1 entries of an output; there are 2"),
        ({"names": {"kind": ("cat",)}}, "names must be a sequence of texts, or a tree"),
        ({"before": np.zeros((2, 3))}, "before must be like the network's outputs"),
        (
            {"reached": {"kind": np.zeros((2, 4)), "age": np.zeros((2, 1))}},
            r"reached must have shape \[2, 3\]",
        ),
        ({"ids": ("a",)}, "2 images need as many ids; there are 1"),
        ({"source": IMAGES[:1]}, r"generated must be \[1, 4, 4, 3\]"),
        ({"saved": IMAGES}, "generated must be uint8"),
        ({"targets": [0.5, 0.3, 0.2]}, "synthesis_run: targets must be a tree"),
    ],
)
def test_what_does_not_fit_the_result_is_refused(changes, message, two_outputs):
    result, saved, said = two_outputs
    given = {"source": IMAGES, "saved": saved, "targets": TARGETS, **said}
    with pytest.raises(ValueError, match=message):
        report.synthesis_run(result, **(given | changes))
