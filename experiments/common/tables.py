"""Remakes every table of the committed results, puts them into the pages that show them, and writes model cards.

Command   python -m experiments.common.tables           writes every table.md, model card, and block of a page
          python -m experiments.common.tables --check   only compares; exit code 2 where something differs

A directory of results holds results.json, from which the study's function `table(results)` makes table.md. In a page,
`<!-- table: DIRECTORY -->` and `<!-- end -->` enclose that table; `<!-- table: DIRECTORY part 2 -->` encloses one of
the parts that empty lines separate, and `<!-- table: DIRECTORY part 2 columns: a | b -->` the columns of that part with
these headings, in this order.
"""

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from outgen_jax import files, report, runs, scripts

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "outgen_jax/models/weights"
# Results -> the module whose `table` makes their table.
MODULES = {
    "experiments/any_output/results/networks_at_once": "experiments.any_output.networks_at_once",
    "experiments/any_output/results/networks_photograph": "experiments.any_output.networks_at_once",
    "experiments/any_output/results/several_views": "experiments.any_output.several_views",
    "experiments/any_output/results/labels": "experiments.any_output.labels",
    "experiments/any_output/results/network_ten": "experiments.any_output.train",
    "experiments/any_output/results/network_twenty": "experiments.any_output.train",
    "experiments/any_output/results/network_numbers": "experiments.any_output.train",
    "experiments/any_output/results/values": "experiments.any_output.values",
    "experiments/exactness/results/ablation": "experiments.exactness.ablation_table",
    "experiments/exactness/results/ablation_mnist": "experiments.exactness.ablation_table",
    "experiments/exactness/results/ablation_limit": "experiments.exactness.ablation_table",
    "experiments/exactness/results/ablation_limit_mnist": "experiments.exactness.ablation_table",
    "experiments/exactness/results/arithmetic": "experiments.exactness.arithmetic",
    "experiments/exactness/results/change_by_tolerance": "experiments.exactness.change_by_tolerance",
    "experiments/exactness/results/exact_targets": "experiments.exactness.exact_targets",
    "experiments/exactness/results/exact_targets_mnist": "experiments.exactness.exact_targets",
    "experiments/exactness/results/file_formats": "experiments.exactness.file_formats",
    "experiments/exactness/results/exact_targets_no_limit": "experiments.exactness.exact_targets",
    "experiments/exactness/results/exact_targets_mnist_no_limit": (
        "experiments.exactness.exact_targets"
    ),
    "experiments/exactness/results/exact_targets_quarter": "experiments.exactness.exact_targets",
    "experiments/exactness/results/out_of_reach": "experiments.exactness.out_of_reach",
    "experiments/exactness/results/full_targets": "experiments.exactness.full_targets",
    "experiments/exactness/results/norm_choices": "experiments.exactness.norm_choices",
    "experiments/exactness/results/ordered_top_k": "experiments.exactness.ordered_top_k",
    "experiments/exactness/results/ordered_top_k_earlier": "experiments.exactness.ordered_top_k",
    "experiments/exactness/results/solver_comparison": "experiments.exactness.solver_comparison",
    "experiments/exactness/results/time_to_target": "experiments.exactness.time_to_target",
    "experiments/mixtures/results/cifar10": "experiments.mixtures.table",
    "experiments/mixtures/results/digits": "experiments.mixtures.table",
    "experiments/replaced_training/results/augmented_outputs": "experiments.replaced_training.augmented_outputs",
    "experiments/replaced_training/results/small": "experiments.replaced_training.report",
    "experiments/replaced_training/results/small_controls": "experiments.replaced_training.report",
    "experiments/replaced_training/results/main": "experiments.replaced_training.report",
    "experiments/replaced_training/results/boundary": "experiments.replaced_training.report",
    "experiments/replaced_training/results/boundary_trial": "experiments.replaced_training.report",
    "experiments/replaced_training/results/table_a1_half": "experiments.replaced_training.report",
    "experiments/replaced_training/results/attempts": "experiments.replaced_training.attempts",
    "experiments/augmented_gan/results/main": "experiments.augmented_gan.table",
    "experiments/augmented_gan/results/discriminator": "experiments.augmented_gan.table",
    "experiments/draw_gan/results/main": "experiments.draw_gan.table",
    "experiments/draw_gan/results/faces": "experiments.draw_gan.table",
    "experiments/draw_gan/results/paper": "experiments.draw_gan.table",
    "experiments/intermediate_constraint/results/main": "experiments.intermediate_constraint.tables",
    "experiments/intermediate_constraint/results/cifar10": (
        "experiments.intermediate_constraint.tables"
    ),
    "experiments/intermediate_constraint/results/blur_scale": (
        "experiments.intermediate_constraint.blur_levels"
    ),
    "experiments/intermediate_constraint/results/earlier": (
        "experiments.intermediate_constraint.tables"
    ),
    "benchmarks/compilation/results": "benchmarks.compilation.table",
    "benchmarks/convolution/results": "benchmarks.convolution.table",
    "benchmarks/draw_gan/results": "benchmarks.draw_gan.table",
    "benchmarks/finetuning/results": "benchmarks.finetuning.table",
    "benchmarks/networks/results": "benchmarks.networks.table",
    "benchmarks/networks/results_few_channels": "benchmarks.networks.table",
    "benchmarks/scale/results": "benchmarks.scale.table",
    "benchmarks/studio/results": "benchmarks.studio.table",
    "benchmarks/synthesis/results": "benchmarks.synthesis.table",
    "benchmarks/synthesis/results_avx2": "benchmarks.synthesis.table",
    "benchmarks/synthesis/results_first_machine": "benchmarks.synthesis.table",
    "benchmarks/synthesis/results_earlier": "benchmarks.synthesis.table",
    "benchmarks/training/results": "benchmarks.training.table",
    "benchmarks/upsampling/results": "benchmarks.upsampling.table",
}
# Results of which no table is made, and why.
WITHOUT_TABLE = {
    "experiments/results/demo": "a gallery; its page shows every image",
    "experiments/results/train_classifier": "one accuracy; the card of the weights has it",
}
_BLOCK = re.compile(
    r"(<!-- table: (\S+)(?: part (\d+)(?: columns: ([^\n]+?))?)? -->\n).*?(<!-- end -->)", re.DOTALL
)


def write(run: runs.Run, results: Mapping[str, Any], table: Callable[[Any], str]) -> str:
    """Writes results.json of a run, and table.md that `table` makes of it -> the table."""
    run.write_results(results)
    text = table({"flags": run.flags, **results})
    files.write_atomic(run.directory / "table.md", text)
    return text


def made(directory: str, root: Path = ROOT) -> str:
    """The table of a directory of `MODULES`, from its results.json."""
    results = json.loads((root / directory / "results.json").read_text())
    table: str = _module(MODULES[directory]).table(results)
    return table


def model_card_of(path: Path) -> str:
    """The page beside the weights of a network that the package ships, from the .json beside them."""
    return report.model_card(path.stem, json.loads(path.read_text()))


def filled(page: str, root: Path = ROOT) -> str:
    """The text of a page with every marked block replaced by its table.md, or by a part or columns of it.

    Raises:
      FileNotFoundError: a block names a directory without table.md.
      ValueError: a block names a part or a column that the table lacks.
    """

    def block(found: re.Match[str]) -> str:
        start, directory, part, columns, end = found.groups()
        path = root / directory / "table.md"
        if not path.exists():
            raise FileNotFoundError(
                f"filled: no file {directory}/table.md; mend the marker {start.strip()!r}"
            )
        text = path.read_text()
        if part is not None:
            parts = text.strip().split("\n\n")
            if not 1 <= int(part) <= len(parts):
                raise ValueError(
                    f"filled: {directory}/table.md has {len(parts)} parts; got part {part}"
                )
            text = parts[int(part) - 1] + "\n"
        if columns is not None:
            text = _with_columns(text, columns.split(" | "), f"{directory}/table.md, part {part}")
        return start + text + end

    return _BLOCK.sub(block, page)


def _with_columns(table: str, headings: Sequence[str], name: str) -> str:
    """The columns of a Markdown table with these headings, in this order."""
    rows = [line.strip("|").split("|") for line in table.splitlines()]
    found = [heading.strip() for heading in rows[0]]
    missing = [heading for heading in headings if heading not in found]
    if missing:
        raise ValueError(f"filled: {name} has the columns {' | '.join(found)}; got {missing[0]!r}")
    places = [found.index(heading) for heading in headings]
    return "".join(f"|{'|'.join(row[place] for place in places)}|\n" for row in rows)


def pages(root: Path = ROOT) -> Iterator[Path]:
    """All Markdown pages of the project that show tables."""
    folders = (root, *(root / name for name in ("docs", "experiments", "benchmarks")))
    for folder in folders:
        found = folder.glob("*.md") if folder == root else folder.rglob("*.md")
        yield from sorted(
            p for p in found if p.name != "table.md" and "<!-- table:" in p.read_text()
        )


def remake(*, check: bool = False, only: Sequence[str] = ("",)) -> list[str]:
    """Makes all tables and pages anew.

    Args:
      check: whether to compare only.
      only: directories of results, by how their paths begin. Pages are always made.

    Returns:
      The files that differed.

    Raises:
      ValueError: `check`, and a file differs.
    """
    texts = {
        ROOT / directory / "table.md": made(directory, ROOT)
        for directory in MODULES
        if directory.startswith(tuple(only))
    }
    if WEIGHTS.startswith(tuple(only)):
        cards = (ROOT / WEIGHTS).glob("*.json")
        texts |= {path.with_suffix(".md"): model_card_of(path) for path in cards}
    differing = [path for path, text in texts.items() if _put(path, text, check)]
    differing += [p for p in pages(ROOT) if _put(p, filled(p.read_text(), ROOT), check)]
    names = [path.relative_to(ROOT).as_posix() for path in differing]
    if check and names:
        raise ValueError(f"not as the results make them: {', '.join(names)}; run without --check")
    return names


def _put(path: Path, text: str, check: bool) -> bool:
    """Whether the file has another text; writes it unless `check` is set."""
    if path.exists() and path.read_text() == text:
        return False
    if not check:
        files.write_atomic(path, text)
    return True


def _module(name: str) -> object:
    """Imports a module and forgets the flags that it defines: each script has an --out of its own."""
    module = importlib.import_module(name)
    for flag in list(flags.FLAGS.flags_by_module_dict().get(name, ())):
        delattr(flags.FLAGS, flag.name)
    return module


if __name__ == "__main__":
    # Here, so that whoever imports this module gets no flags.
    _check = flags.DEFINE_bool("check", False, "Compare only.")
    _results = flags.DEFINE_list(
        "results", [""], "Directories of results, by how their paths begin."
    )
    scripts.start(lambda argv: print(*remake(check=_check.value, only=_results.value), sep="\n"))
