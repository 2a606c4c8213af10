"""Dots and intervals: what is drawn where, and that it can be read at the width of a README."""

import pytest
from matplotlib.text import Text

from outgen_jax.report import dot_plots, plotting
from outgen_jax.report.dot_plots import Interval, Panel

README = 830  # pixels
PANEL = Panel("FID", [[1.0, 3.0], [5.0]], [Interval(2.0, 0.5, 3.5), Interval(5.0)], 4.0, [0.1, 0.2])


def test_a_row_has_its_mean_its_interval_its_seeds_and_its_mark():
    (axes,) = dot_plots.dots_figure(["a", "b"], [PANEL], line="real", marks="own").axes
    drawn = {
        (line.get_marker(), tuple(line.get_xdata()), tuple(line.get_ydata())) for line in axes.lines
    }
    assert ("o", (2.0,), (0,)) in drawn
    assert ("o", (5.0,), (1,)) in drawn
    assert ("None", (0.5, 3.5), (0, 0)) in drawn
    assert ("D", (0.2,), (1,)) in drawn
    assert (".", (1.0, 3.0), (0.3, 0.3)) in drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_the_key_names_the_line_and_the_marks_only_where_they_are():
    def key(panel):
        (legend,) = dot_plots.dots_figure(["a", "b"], [panel], line="real", marks="own").legends
        return [text.get_text() for text in legend.get_texts()]

    assert key(PANEL) == ["mean, 95% interval", "one seed", "real", "own"]
    assert key(PANEL._replace(line=None, marks=())) == ["mean, 95% interval", "one seed"]


def test_a_long_name_is_wrapped_and_stays_inside_of_the_figure():
    name = "differentiable: color + translation"
    figure = dot_plots.dots_figure([name, "b"], [PANEL])
    figure.canvas.draw()
    (label, _) = figure.axes[0].get_yticklabels()
    assert label.get_text().split() == name.split()
    assert label.get_window_extent().x0 >= 0


def test_text_is_at_least_nine_pixels_tall_where_a_readme_shows_it():
    figure = dot_plots.dots_figure(["a", "b"], [PANEL] * 4, line="real", marks="own")
    pixels_a_point = README / figure.get_size_inches()[0] / 72
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text()]
    assert min(sizes) * pixels_a_point >= 9
    assert figure.get_size_inches()[0] == plotting.WIDTH


@pytest.mark.parametrize("rows", [[], ["a"]])
def test_another_number_of_rows_is_refused(rows):
    with pytest.raises(ValueError, match="dots_figure: needs panels"):
        dot_plots.dots_figure(rows, [PANEL])
