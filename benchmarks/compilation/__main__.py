"""What the first call of a process costs: with and without JAX's compilation cache.

Subject   `og.synthesize` with the default solver and the shipped LeNet: 16 digits of scikit-learn at 28×28, 0.9 for one
          class and 0.1 for another.
Method    A process with an empty cache, then one with the cache that the first has filled; in each the first call, and
          the same call again. Seconds of processor time, which do not count what other programs take.
Command   python -m benchmarks.compilation
Duration  about a minute of one core
Output    the table, and --out gets table.md and results.json.
"""

import multiprocessing
import tempfile

from absl import flags

from benchmarks.compilation.measure import measure
from benchmarks.compilation.table import table
from benchmarks.harness.machine import machine
from outgen_jax import files, runs, scripts
from outgen_jax.tools import common_flags

_IMAGES = flags.DEFINE_integer("images", 16, "Digits.", 1)
_OUT = common_flags.out("benchmarks/compilation")
_OVERWRITE = common_flags.overwrite()


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("empty", "filled"):
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                found[name] = fresh.apply(measure, (cache, _IMAGES.value))
    results = {**machine(), "processor_seconds": found}
    text = table(results)
    files.write_atomic(run.directory / "table.md", text)
    print(text)
    print(run.write_results(results))


if __name__ == "__main__":
    scripts.start(main)
