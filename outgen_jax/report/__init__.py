"""Reports of a run: figures, tables, and one self-contained page."""

from outgen_jax.markdown import markdown_table as markdown_table
from outgen_jax.report.figures import history_figure as history_figure
from outgen_jax.report.figures import image_grid_figure as image_grid_figure
from outgen_jax.report.from_result import synthesis_run as synthesis_run
from outgen_jax.report.model_card import model_card as model_card
from outgen_jax.report.page import html_page as html_page
from outgen_jax.report.parts import Part as Part
from outgen_jax.report.plotting import figure_bytes as figure_bytes
from outgen_jax.report.plotting import save_figure as save_figure
from outgen_jax.report.run import SynthesisRun as SynthesisRun
from outgen_jax.report.run_figure import synthesis_figure as synthesis_figure
