"""Does memory follow the batch, or the number of images? Peak of a process for 1,000 and for 10,000 images.

Subject   `og.synthesize`, one SGD update of 32×32 images with VGG16 of full width, random weights, batch 128.
Method    Each number of images in a process of its own: its peak resident memory, less the arrays that are given
          and returned, which must grow.
Command   python -m benchmarks.memory
Duration  about 2 minutes on 2 CPU cores
Output    a line for each number of images, and --out gets results.json.
"""

import multiprocessing

from absl import flags

from benchmarks.harness.machine import machine
from benchmarks.memory.measure import peak
from outgen_jax import runs, scripts
from outgen_jax.tools import common_flags

_IMAGES = flags.DEFINE_list("images", ["1000", "10000"], "Numbers of images.")
_BATCH = flags.DEFINE_integer("batch_size", 128, "Images at a time.", 1)
_WIDTH = flags.DEFINE_float("width", 1.0, "Width multiplier of VGG16.", 1 / 64)
_OUT = common_flags.out("benchmarks/memory")
_OVERWRITE = common_flags.overwrite()


def main(argv: list[str]) -> None:
    del argv
    run = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    found = {}
    for images in map(int, _IMAGES.value):
        with multiprocessing.get_context("spawn").Pool(1) as fresh:
            found[images] = fresh.apply(peak, (images, _BATCH.value, _WIDTH.value))
        of = found[images]
        print(
            f"{images} images: {of['peak']:.0f} MiB, {of['peak'] - of['arrays']:.0f} beside the arrays"
        )
    run.write_results({**machine(), "mib": {str(images): of for images, of in found.items()}})


if __name__ == "__main__":
    scripts.start(main)
