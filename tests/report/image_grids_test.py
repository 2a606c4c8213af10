"""Grids of images: pixels where they belong, boxes as thick as σ, animations of every frame."""

import io

import numpy as np
import pytest
from matplotlib.patches import Rectangle
from PIL import Image

from outgen_jax.report import image_grids


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape)


def boxes(rows: int, columns: int, **values: float) -> image_grids.Boxes:
    wanted = {"center_x": 3.0, "center_y": 4.0, "extent": 2.0, "sigma": 1.0, **values}
    return image_grids.Boxes(
        *(np.full((rows, columns), wanted[name]) for name in image_grids.Boxes._fields)
    )


def picture(figure) -> np.ndarray:
    """What the figure's only axes show."""
    (axes,) = figure.axes
    return np.asarray(axes.get_images()[0].get_array())


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_where_it_belongs(channels):
    batch = images(2, 3, 5, 4, channels)
    shown = picture(image_grids.grids_figure({"": batch}))
    assert shown.shape == (2 + 2 * 7, 2 + 3 * 6, 3)
    for row, column in np.ndindex(2, 3):
        y, x = 2 + row * 7, 2 + column * 6
        expected = np.broadcast_to(batch[row, column], (5, 4, 3))
        np.testing.assert_array_equal(shown[y : y + 5, x : x + 4], expected)
    levels = (batch * 255).astype(np.uint8)
    np.testing.assert_array_equal(
        picture(image_grids.grids_figure({"": levels})),
        picture(image_grids.grids_figure({"": levels / 255})),
    )


def test_panels_stand_below_each_other_with_names_and_notes():
    figure = image_grids.grids_figure(
        {"two\nlines": images(1, 2, 4, 4, 1), "b $x": images(2, 2, 4, 4, 1)}, notes=["n 1", ""]
    )
    first, second = figure.axes
    assert first.get_position().y0 > second.get_position().y1
    assert [text.get_text() for text in first.texts] == ["two", "lines", "n 1"]
    assert "b $x" in [text.get_text() for text in second.texts]


def test_a_heading_stands_above_and_leaves_the_images_as_large():
    grid = images(1, 2, 8, 8, 1)
    plain = image_grids.attention_figure(grid, None)
    headed = image_grids.attention_figure(grid, None, heading="step 1 of 6")
    assert [text.get_text() for text in headed.axes[0].texts] == ["step 1 of 6"]
    (width, height), (headed_width, headed_height) = (
        figure.get_size_inches() for figure in (plain, headed)
    )
    assert headed_width == width
    assert headed_height > height
    assert headed.axes[0].get_position().height * headed_height == pytest.approx(height)


def box_lines(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_boxes_frame_the_attended_pixels():
    figure = image_grids.attention_figure(images(2, 2, 14, 14, 1), boxes(2, 2), titles=["a", "b"])
    gap = 2 * 2 + 2
    corners = {(box.get_x(), box.get_y()) for box in box_lines(figure)}
    starts = (gap, gap + 14 + gap)
    assert corners == {(x + 3 - 1, y + 4 - 1) for x in starts for y in starts}
    assert {(box.get_width(), box.get_height()) for box in box_lines(figure)} == {(2, 2)}
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]


def test_a_box_is_as_thick_as_sigma_up_to_a_limit_and_cut_at_the_margin():
    grid = images(1, 1, 14, 14, 1)
    lines = [
        box_lines(image_grids.attention_figure(grid, boxes(1, 1, sigma=sigma)))[0].get_linewidth()
        for sigma in (0.5, 1, 2, 100)
    ]
    np.testing.assert_allclose(np.array(lines[:3]) / lines[1], [0.5, 1, 2])
    assert lines[3] == pytest.approx(2.5 * lines[1])
    (box,) = box_lines(image_grids.attention_figure(grid, boxes(1, 1, extent=1e4)))
    # One margin of two pixels around the 14, from the outer edge of its pixels.
    assert (box.get_x(), box.get_width()) == (6 - 2.5, 14 + 4)
    (outside,) = box_lines(image_grids.attention_figure(grid, boxes(1, 1, center_x=-500.0)))
    assert outside.get_width() == 0
    assert not box_lines(image_grids.attention_figure(grid, None))


def test_an_animation_has_its_frames_and_durations():
    figures = [
        image_grids.attention_figure(np.full((1, 1, 8, 8, 1), level), None) for level in (0, 0.5, 1)
    ]
    data = image_grids.animation_bytes(figures, milliseconds=[100, 200, 1000])
    with Image.open(io.BytesIO(data)) as gif:
        assert (gif.n_frames, gif.info["loop"]) == (3, 0)
        durations, levels = [], []
        for frame in range(3):
            gif.seek(frame)
            durations.append(gif.info["duration"])
            levels.append(gif.convert("RGB").getpixel((gif.width // 2, gif.height // 2))[0])
    assert durations == [100, 200, 1000]
    boxed = image_grids.attention_figure(np.zeros((1, 1, 8, 8, 1)), boxes(1, 1, extent=4.0))
    data = image_grids.animation_bytes([boxed, figures[-1]], milliseconds=[100, 100])
    with Image.open(io.BytesIO(data)) as gif:
        colours = np.asarray(gif.convert("RGB")).reshape(-1, 3)
    assert (np.abs(colours - np.array([213, 94, 0])).max(1) < 30).any()  # the box keeps its colour
    np.testing.assert_allclose(levels, [0, 127, 255], atol=4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: image_grids.grids_figure({}), "got 0 panels and 0 notes"),
        (
            lambda: image_grids.grids_figure({"a": images(1, 1, 3, 3, 1)}, notes=["", ""]),
            "1 panels and",
        ),
        (
            lambda: image_grids.grids_figure({"a": images(4, 3, 3, 1)}),
            r"got \[4, 3, 3, 1\]; images.resh",
        ),
        (lambda: image_grids.grids_figure({"a": images(1, 1, 3, 3, 2)}), r"1 or 3\], got"),
        (
            lambda: image_grids.attention_figure(images(2, 3, 5, 5, 1), boxes(3, 2)),
            r"boxes must be \[2, 3\] .* got \[\(3, 2\)\] and 0 titles",
        ),
        (
            lambda: image_grids.attention_figure(images(1, 2, 5, 5, 1), None, titles=["a"]),
            "one for each of 2 columns, got .* and 1 titles",
        ),
        (
            lambda: image_grids.attention_figure(images(3, 5, 5, 1), None),
            "attention_figure: images must",
        ),
        (
            lambda: image_grids.attention_figure(
                images(1, 1, 5, 5, 1), None, titles=["a"], heading="b"
            ),
            "got a heading, 'b', and titles",
        ),
        (lambda: image_grids.animation_bytes([], milliseconds=[]), "got 0 and 0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
