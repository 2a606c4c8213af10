"""The report: numbers against closed forms, figures by what they draw, the page by parsing it."""

import base64
import io
import itertools
import re
import shutil
import subprocess

import numpy as np
import pytest
from html_report import Page, make_page
from matplotlib.colors import to_rgba
from PIL import Image

import outgen_jax as og
from outgen_jax import report
from outgen_jax.report import run as runs
from outgen_jax.report import shown
from outgen_jax.report.plotting import CURVES, SKY, VERMILION, blank_figure

CLASSES = ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_run(number=3, classes=10, size=32, channels=3, **fields):
    """A run with another Dirichlet target per image and every pixel changed by up to 3."""
    rng = np.random.default_rng(classes)
    source = rng.integers(20, 230, (number, size, size, channels), dtype=np.uint8)
    generated = source + rng.integers(-3, 4, source.shape).astype(np.int16)
    wanted = rng.dirichlet(np.full(classes, 0.3), number)
    reached = 0.99 * wanted + 0.01 / classes
    part = report.Part(
        entries=CLASSES if classes == 10 else tuple(f"class {k}" for k in range(classes)),
        wanted=wanted,
        before=np.eye(classes)[rng.integers(classes, size=number)],
        reached=reached,
    )
    run = report.SynthesisRun(
        source=source,
        generated=generated.astype(np.uint8),
        parts=(part,),
        ids=tuple(f"test_{row:05d}" for row in range(number)),
        steps=np.arange(number) + 7,
        distance=np.array(og.metrics.total_variation(wanted, reached)),
        converged=np.arange(number) % 2 == 0,
    )
    return changed(run, **fields)


def changed(run, **fields):
    """The run with some fields of its own, or of its only part, replaced."""
    own = {name: value for name, value in fields.items() if name in run._fields}
    of_part = {name: value for name, value in fields.items() if name not in run._fields}
    if of_part:
        own["parts"] = (run.parts[0]._replace(**of_part),)
    return run._replace(**own)


def decode(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)))


# Numbers


def test_divergences_of_known_distributions():
    p, q = np.array([[0.9, 0.1, 0.0]]), np.array([[0.5, 0.25, 0.25]])
    assert runs.kl_divergence(p, q) == pytest.approx([0.9 * np.log(1.8) + 0.1 * np.log(0.4)])
    assert runs.kl_divergence(p, p) == pytest.approx(0, abs=1e-12)
    assert np.isinf(runs.kl_divergence(q, p))


def test_pixel_change_in_both_units():
    run = make_run(size=4)
    run = run._replace(generated=run.source + np.uint8(20))
    distance, rms = runs.pixel_change(run)
    assert rms == pytest.approx([20, 20, 20])
    assert distance == pytest.approx(np.full(3, 20 / 255 * np.sqrt(4 * 4 * 3)))
    # Darker must not wrap around in uint8.
    assert runs.pixel_change(run._replace(generated=run.source - np.uint8(20)))[1] == pytest.approx(
        rms
    )


def test_leading_classes_are_the_wanted_ones_then_the_source():
    wanted, before = np.zeros((1, 100)), np.zeros((1, 100))
    wanted[0, [40, 7, 63]] = [0.5, 0.3, 0.2]
    before[0, [12, 5]] = [0.8, 0.2]
    run = make_run(1, 100, wanted=wanted, reached=wanted, before=before)
    assert list(shown.leading_entries(run.parts[0], 0, limit=3)) == [40, 7, 63, 12]
    assert list(shown.leading_entries(run.parts[0], 0, limit=5)) == [40, 7, 63, 12, 5]
    names, table, _ = shown.shown_entries(run.parts[0], 0, limit=3)
    assert names == ["class 40", "class 7", "class 63", "class 12", "96 others"]
    assert table.sum(axis=0) == pytest.approx([1, 1, 1])
    assert table[-1] == pytest.approx([0, 0.2, 0])
    assert list(shown.leading_entries(make_run().parts[0], 0, limit=3)) == list(range(10))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": np.zeros((3, 32, 32, 3))}, "source must be uint8"),
        ({"generated": np.zeros((3, 32, 32, 3))}, "generated must be uint8"),
        ({"generated": np.zeros((3, 16, 32, 3), np.uint8)}, r"generated must be \[3, 32, 32, 3\]"),
        ({"before": np.zeros((3, 9))}, r"before of part 0 must be \[3, 10\].*it is \[3, 9\]"),
        ({"steps": np.zeros(2)}, r"steps must be \[3\]"),
        ({"ids": ("a",)}, "3 images need as many ids; there are 1"),
        ({"distance": np.array([0.0, 0.9, 0.0])}, "distance of row 1 is 0.9000"),
        ({"parts": ()}, "parts must have what the network says"),
        ({"reached": np.full((3, 10), np.nan)}, "distance of row 0"),
        ({"distance": np.full(3, np.nan)}, "distance of row 0 is nan"),
    ],
)
def test_a_run_that_contradicts_itself_is_refused(fields, message):
    run = changed(make_run(), **fields)
    with pytest.raises(ValueError, match="html_page: " + message):
        make_page(run)
    with pytest.raises(ValueError, match="synthesis_figure: " + message):
        report.synthesis_figure(run, rows=[0])


# Figures


@pytest.mark.parametrize(("classes", "bars"), [(10, 10), (1000, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_synthesis_figure_draws_each_image_and_its_probabilities(classes, bars, channels):
    run = make_run(3, classes, channels=channels)
    figure = report.synthesis_figure(run, rows=np.array([2, 0]), amplify=20)
    source, generated, difference, chart = figure.axes[:4]  # of image 2, the first row
    assert len(figure.axes) == 8
    for axes, images in ((source, run.source), (generated, run.generated)):
        image = axes.images[0]
        assert np.array_equal(image.get_array(), np.broadcast_to(images[2], (32, 32, 3)))
        assert image.get_interpolation() == "nearest"
    change = (run.generated[2].astype(float) - run.source[2]) / 255
    expected = np.broadcast_to(np.clip(0.5 + 20 * change, 0, 1), (32, 32, 3))
    np.testing.assert_allclose(difference.images[0].get_array(), expected, atol=1e-6)
    assert any(
        text.get_text() == "difference \N{MULTIPLICATION SIGN} 20" for text in difference.texts
    )

    _, table, _ = shown.shown_entries(run.parts[0], 2, limit=5)
    drawn = [patch for patch in chart.patches if patch.get_facecolor() == to_rgba(SKY)]
    assert [patch.get_width() for patch in drawn] == pytest.approx(list(table[:, 2]))
    assert len(drawn) == bars
    outlines = [patch for patch in chart.patches if patch.get_facecolor()[3] == 0]
    assert [patch.get_width() for patch in outlines] == pytest.approx(
        [value for value in table[:, 0] if value >= 0.0005]
    )
    (ticks,) = chart.collections
    assert [segment[0, 0] for segment in ticks.get_segments()] == [1.0]
    assert np.allclose(ticks.get_color(), to_rgba(VERMILION))
    assert report.figure_bytes(figure, dpi=50).startswith(b"\x89PNG")


def test_photographs_are_not_drawn_with_crisp_pixels():
    figure = report.synthesis_figure(make_run(1, size=160), rows=[0])
    assert figure.axes[0].images[0].get_interpolation() != "nearest"


@pytest.mark.parametrize("rows", [[], [3], [-1]])
def test_synthesis_figure_refuses_rows_that_are_not_there(rows):
    with pytest.raises(ValueError, match="rows must be indices from 0 to 2"):
        report.synthesis_figure(make_run(), rows=rows)


def test_names_are_drawn_literally(tmp_path):
    names = ("$\\frac{", "a$b$", "<i>", "\x00\n", "\udcff", "x" * 300, *CLASSES[6:])
    run = make_run(1, entries=names, ids=("$^$/\x1b.png",))
    report.save_figure(report.synthesis_figure(run, rows=[0]), tmp_path / "names.png", dpi=50)
    grid = report.image_grid_figure(
        {"$\\x$": run.source}, row_labels=["$_"], captions={"$\\x$": ["$^"]}
    )
    report.save_figure(grid, tmp_path / "grid.png", dpi=50)
    history = report.history_figure({"_$\\hidden$": np.ones(3)}, ylabel="$\\y")
    report.save_figure(history, tmp_path / "history.png", dpi=50)
    assert [text.get_text() for text in history.axes[0].get_legend().get_texts()] == ["$\\hidden$"]


def test_image_grid_places_columns_rows_and_captions():
    images = make_run(3).source
    figure = report.image_grid_figure(
        {"source": images, "momentum + low-pass": images[::-1] / 255},
        row_labels=CLASSES[:3],
        captions={"momentum + low-pass": ["TV 0.1", "TV 0.2", "TV 0.3"]},
    )
    assert len(figure.axes) == 6
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[1] == ["car"]
    assert texts[3] == ["low-pass", "momentum +", "TV 0.1"]  # lines from the bottom up
    assert texts[5] == ["TV 0.3"]
    last = figure.axes[5]
    assert np.allclose(last.images[0].get_array(), images[0] / 255)
    boxes = [axes.get_position() for axes in figure.axes]
    assert all(0 <= box.x0 < box.x1 <= 1.0001 and 0 <= box.y0 < box.y1 <= 1 for box in boxes)
    assert boxes[5].x0 > boxes[2].x0
    assert boxes[5].y1 < boxes[4].y0


def test_a_long_row_label_is_broken_and_stays_inside():
    images = make_run(1).source
    figure = report.image_grid_figure(
        {"x": images}, row_labels=["1,000 originals of a photographer"]
    )
    lines = figure.axes[0].texts[1:]
    assert [line.get_text() for line in lines] == ["1,000", "originals of", "a", "photographer"]
    figure.canvas.draw()
    boxes = [line.get_window_extent() for line in lines]
    assert all(box.x0 >= 0 for box in boxes)
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))


def test_lines_of_a_row_label_are_kept_and_have_room():
    figure = report.image_grid_figure(
        {"x": make_run(1).source}, row_labels=["automobile 0.9\nship 0.1"]
    )
    lines = figure.axes[0].texts[1:]
    assert [line.get_text() for line in lines] == ["automobile 0.9", "ship 0.1"]
    figure.canvas.draw()
    assert all(line.get_window_extent().x0 >= 0 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, (), None), "no columns"),
        (({"a": 3, "b": 2}, (), None), "column 'b'.: 2"),
        (({"a": 3}, ("x",), None), "'row_labels': 1"),
        (({"a": 3}, (), {"a": ["x"]}), "captions of 'a'\": 1"),
        (({"a": 1}, (), {"z": ["x"]}), r"captions for \['z'\], not among the columns; columns: a"),
        (({"a": 0}, (), None), "at least one row"),
    ],
)
def test_image_grid_refuses_what_does_not_line_up(arguments, message):
    columns, labels, captions = arguments
    columns = {title: np.zeros((rows, 4, 4, 3)) for title, rows in columns.items()}
    with pytest.raises(ValueError, match=message):
        report.image_grid_figure(columns, row_labels=labels, captions=captions)


def test_history_shows_median_and_band_on_a_log_scale():
    losses = np.exp(np.random.default_rng(0).normal(size=(201, 5))) * [10, 1, 0.1, 0, 1e-12]
    figure = report.history_figure({"many": losses, "one": [3.0, 2.0, 1.0]}, floor=1e-6)
    (axes,) = figure.axes
    many, one = axes.lines
    assert axes.get_yscale() == "log"
    np.testing.assert_allclose(
        many.get_ydata(), [*np.median(losses[:, :3], axis=0), 1e-6, 1e-6], rtol=1e-12
    )
    assert list(many.get_xdata()) == [0, 1, 2, 3, 4]
    assert list(one.get_ydata()) == [3, 2, 1]
    assert many.get_color() == CURVES[0] != one.get_color()
    (band,) = axes.collections  # a single curve has none
    corners = band.get_paths()[0].vertices
    first = corners[corners[:, 0] == 0, 1]
    assert [first.min(), first.max()] == pytest.approx(np.quantile(losses[:, 0], [0.05, 0.95]))


@pytest.mark.parametrize("losses", [np.ones((2, 2, 2)), np.ones((0, 4)), []])
def test_history_refuses_what_it_cannot_average(losses):
    with pytest.raises(ValueError, match=r"curve 'sgd' must be \[steps\] or \[N, steps\], and not"):
        report.history_figure({"sgd": losses})


def test_history_leaves_out_what_is_not_finite_and_says_so(tmp_path):
    losses = [[4, 2, 1], [4, np.nan, np.nan], [8, np.inf, 3]]
    figure = report.history_figure({"sgd": losses, "lost": [np.nan, np.nan]})
    sgd, lost = figure.axes[0].lines
    assert list(sgd.get_ydata()) == [4, 2, 2]
    assert np.isnan(lost.get_ydata()).all()
    assert sgd.get_label() == "sgd (2 of 3 not finite)"
    report.save_figure(figure, tmp_path / "history.png", dpi=50)


def test_history_refuses_no_curves():
    with pytest.raises(ValueError, match="no curves"):
        report.history_figure({})


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?x")]
)
def test_save_figure_takes_the_format_from_the_suffix(tmp_path, suffix, start):
    report.save_figure(blank_figure(1, 1), tmp_path / f"figure.{suffix}")
    assert (tmp_path / f"figure.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["figure", "figure.xyz"])
def test_save_figure_refuses_unknown_formats_and_leaves_nothing(tmp_path, name):
    with pytest.raises(ValueError, match=r"save_figure.*no suffix|not supported"):
        report.save_figure(blank_figure(1, 1), tmp_path / name)
    assert not list(tmp_path.iterdir())


# Page


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("channels", [1, 3])
def test_page_is_well_formed_and_carries_the_images_exactly(classes, channels):
    run = make_run(3, classes, channels=channels)
    page = Page(make_page(run, figures=[("A figure", blank_figure(2, 1))]))
    assert page.open == []
    squeeze = slice(None) if channels == 3 else 0
    for kind, images in (("source", run.source), ("generated", run.generated)):
        found = page.all("img", kind)
        assert len(found) == 3
        for attributes, image in zip(found, images, strict=True):
            assert np.array_equal(decode(attributes["src"]), image[..., squeeze])
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert page.all("figure")
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_bars_are_as_wide_as_the_probabilities():
    run = make_run(3)
    page = Page(make_page(run))
    bars = page.tags[
        next(i for i, tag in enumerate(page.tags) if "gallery" in tag[1].get("id", "")) :
    ]
    widths = {
        kind: [
            float(re.fullmatch(r"(?:width|left):([\d.]+)%", attributes["style"])[1]) / 100
            for tag, attributes in bars
            if tag == "i" and attributes["class"] == kind
        ]
        for kind in ("wanted", "before", "reached")
    }
    part = run.parts[0]
    assert widths["reached"] == pytest.approx(list(part.reached.ravel()), abs=5.1e-5)
    outlined = part.wanted[part.wanted >= 0.0005]
    assert widths["wanted"] == pytest.approx(list(outlined), abs=5.1e-5)
    assert widths["before"] == [1, 1, 1]


def test_page_names_every_image_and_escapes_whatever_it_is_given():
    evil = '<script>alert("x")</script>'
    names = (evil, "a & b", "'quoted'", *CLASSES[3:])
    ids = ('"><img src=x>', "dir/<b>&amp;.png", "\udcff\x00\x1b犬.png")
    page = make_page(
        make_run(entries=names, ids=ids),
        title=evil,
        summary={evil: evil},
        figures=[(evil, blank_figure(1, 1))],
        command=f"run {evil} \\\n  --more",
    )
    parsed = Page(page)
    assert parsed.open == []
    assert page.count("<script") == 1  # the page's own
    assert page.count("<b>") == 4  # of the key numbers
    assert not [tag for tag, attributes in parsed.tags if attributes.get("src") == "x"]
    for name in (*names, ids[0], ids[1], "\ufffd\ufffd\ufffd犬.png", f"run {evil} \\\n  --more"):
        assert name in parsed.text
    assert "&amp;amp;" in page  # an entity in a name stays those five characters
    page.encode()


def test_page_refers_to_nothing_outside_itself():
    page = make_page(make_run(), figures=[("A figure", blank_figure(1, 1))])
    assert not re.search(r"https?:|@import|url\(|//cdn", page)
    parsed = Page(page)
    targets = {attributes.get("id") for _, attributes in parsed.tags}
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#images")[1:] in targets
    (policy,) = [a["content"] for a in parsed.all("meta") if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_page_numbers_are_those_of_the_whole_run():
    run = make_run(5)
    page = Page(make_page(run, max_images=2, summary={"Classifier": "VGG16"}))
    text = " ".join(page.text.split())
    assert len(page.all("article")) == 2
    assert "The first 2 of 5 images" in text
    assert "3 of 5 images reached their target" in text
    assert f"{np.median(run.distance):.4f} total variation to the target, median image" in text
    assert "9 updates, median image" in text
    assert "Classifier VGG16" in text
    entries = page.all("article")
    assert [entry["data-outcome"] for entry in entries] == ["hit", "miss"]
    assert float(entries[1]["data-distance"]) == pytest.approx(run.distance[1])
    assert float(entries[1]["data-change"]) == pytest.approx(runs.pixel_change(run)[1][1], abs=1e-5)
    assert f"{runs.kl_divergence(run.parts[0].wanted, run.parts[0].reached)[1]:.4f} nats" in text


def test_unreached_classes_and_tiny_distances_read_well():
    wanted = np.eye(10)[[0, 0]] * 1.0
    reached = np.array([np.eye(10)[1], np.eye(10)[0] + np.eye(10)[1] * 1e-6])
    run = make_run(
        2,
        wanted=wanted,
        reached=reached,
        distance=np.array(og.metrics.total_variation(wanted, reached)),
    )
    text = Page(make_page(run)).text
    assert "infinite nats" in text
    assert "< 0.0001" in text


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("lost", [[1], [0, 1, 2]])
@pytest.mark.parametrize("distance", [np.nan, np.inf, 1.0])
def test_an_image_that_ended_in_nan_costs_no_other_its_place(classes, lost, distance, tmp_path):
    run = make_run(classes=classes)
    reached, variation = run.parts[0].reached.copy(), run.distance.copy()
    reached[lost], variation[lost] = np.nan, distance
    converged = np.isfinite(variation) & (variation < 1)
    run = changed(run, reached=reached, distance=variation, converged=converged)
    if distance == 1.0:  # a distance of what has none
        with pytest.raises(ValueError, match=r"distance of row \d is 1.0000, off by nan"):
            make_page(run)
        return
    text = make_page(run)
    page = Page(text)
    entries = page.all("article")
    assert [entry["data-outcome"] for entry in entries] == [
        "miss" if row in lost else "hit" for row in range(3)
    ]
    assert [float(entry["data-distance"]) > 1 for entry in entries] == [
        row in lost for row in range(3)
    ]
    assert not re.search(r"\b(nan|inf)\b", re.sub(r'src="[^"]*"|<script>.*', "", text, flags=re.S))
    assert page.text.count("output not finite") == len(lost)
    assert f"is not finite on {len(lost)}" in page.text
    figure = report.synthesis_figure(run, rows=range(3))
    report.save_figure(figure, tmp_path / "figure.png", dpi=50)
    notes = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert notes.count("the network's output is not finite") == len(lost)


def test_search_words_are_the_classes_that_matter():
    wanted = 0.9 * np.eye(10)[[3]] + 0.1 * np.eye(10)[[8]]
    before = np.eye(10)[[5]]
    run = make_run(1, wanted=wanted, reached=wanted, before=before, distance=np.zeros(1))
    (entry,) = Page(make_page(run)).all("article")
    assert entry["data-words"] == "test_00000 cat dog ship"
    assert "dog 1.00 → cat 0.90, ship 0.10" in Page(make_page(run)).text


def test_what_is_left_out_has_no_place_on_the_page():
    page = report.html_page(make_run(1), title="A run")
    parsed = Page(page)
    assert parsed.open == []
    links = [attributes["href"] for attributes in parsed.all("a")]
    assert links == ["#explanation", "#distance", "#images"]
    assert not parsed.all("pre")
    assert not parsed.all("dl", "facts")


@pytest.mark.parametrize("options", [{"max_images": 0}, {"run": make_run(0)}])
def test_page_refuses_to_show_nothing(options):
    run = options.pop("run", make_run())
    with pytest.raises(ValueError, match="html_page: at least one image"):
        make_page(run, **options)


def test_text_is_legible_in_light_and_dark():
    """WCAG 2.1 AA: a contrast of 4.5 for each pair of text and ground in the style sheet."""
    page = make_page(make_run(1))
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        for block in re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    )
    assert light.keys() == dark.keys()

    def luminance(color):
        c = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
            0.2126,
            0.7152,
            0.0722,
        ]

    for theme in (light, dark):
        for text, ground in (
            *(
                (text, ground)
                for text in ("ink", "soft", "accent")
                for ground in ("paper", "panel")
            ),
            ("good", "good-soft"),
            ("bad", "bad-soft"),
        ):
            low, high = sorted((luminance(theme[text]), luminance(theme[ground])))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_every_element_the_script_asks_for_is_there():
    page = make_page(make_run(1))
    script = page[page.index("<script>") : page.index("</script>")]
    asked = set(re.findall(r'find\("(\w+)"\)', script))
    assert {"gallery", "splits", "amplify", "filter", "sort", "search"} <= asked
    parsed = Page(page)
    assert asked <= {attributes.get("id") for _, attributes in parsed.tags}
    (entry,) = parsed.all("article")
    for option in parsed.all("option"):
        key = option["value"].split()[0]
        assert key in ("all", "hit", "miss") or f"data-{key}" in entry


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_script_parses(tmp_path):
    page = make_page(make_run(1))
    (tmp_path / "page.js").write_text(page[page.index("<script>") + 8 : page.index("</script>")])
    subprocess.run(["node", "--check", str(tmp_path / "page.js")], check=True)
