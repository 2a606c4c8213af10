"""How far images are from their targets after they were stored in a file format.

Purpose   Beyond paper A: images whose output is within 1e-5 of a target, stored as float16, with 8 bits (PNG) and with
          JPEG's losses, and evaluated again by the same network.
Command   python -m experiments.exactness.file_formats --data_dir=... --out=experiments/exactness/results/file_formats
Duration  a minute on 2 CPU cores
Output    --out gets results.json (per image) and table.md.
"""

import io
from typing import Any

import numpy as np
from PIL import Image

import outgen_jax as og
from experiments.common import flags as common_flags
from experiments.common import loading
from experiments.common import tables as common_tables
from experiments.common.cells import percentile_headings, percentiles
from outgen_jax import report, runs, scripts

_DATA_DIR = common_flags.data_dir()
_DATASET = common_flags.labelled_dataset("mnist")
_SPLIT = common_flags.unchosen_split()
_CLASSIFIER = common_flags.classifier("mnist_lenet")
_NUMBER = common_flags.number(64, of="split", at_least=2)
_OUT = common_flags.out("file_formats")
_OVERWRITE = common_flags.overwrite()

QUALITIES = (100, 95, 90, 75)
MARKS = (1e-5, 1e-3, 1e-2)


def after_jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """Images [N, H, W, C] uint8 as JPEG of this quality gives them back."""

    def decoded(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        pixels = image[..., 0] if image.shape[-1] == 1 else image
        Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
        return np.asarray(Image.open(file)).reshape(image.shape)

    return np.stack([decoded(image) for image in levels])


def stored(network: Any, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Images [N, H, W, C] in [0, 1] as each format gives them back, by its name in the table."""
    nearest = og.data.to_uint8(images)
    return {
        "float32": images,
        "float16": images.astype(np.float16).astype(np.float32),
        "PNG, og.quantize": og.quantize(*network, images, targets),
        "PNG, nearest level": nearest,
        **{f"JPEG, quality {quality}": after_jpeg(nearest, quality) for quality in QUALITIES},
    }


def table(results: dict[str, Any]) -> str:
    """Markdown table of `results`, as results.json has them: a row per kind of target and format."""
    headings = ("target", "stored as", *(f"within {m:g}" for m in MARKS))
    rows = []
    for kind, found in results["per_image"].items():
        for name, values in found.items():
            shares = (f"{np.mean(np.array(values) <= 1.001 * mark):.0%}" for mark in MARKS)
            rows.append([kind, name, *shares, *percentiles(values, 50, 95)])
    return report.markdown_table((*headings, *percentile_headings("TV", 50, 95)), rows)


def main(argv: list[str]) -> None:
    del argv
    scripts.enable_compilation_cache()
    start = loading.load_labelled(
        _CLASSIFIER.value,
        _DATASET.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        number=_NUMBER.value,
    )
    count, names = len(start.source.ids), start.class_names
    kinds = {
        "0.9 / 0.1": og.targets.parse(
            "true=0.9,random=0.1", class_names=names, source=start.source
        ),
        "Dirichlet(1)": og.targets.dirichlet(0, count, len(names), image_ids=start.source.ids),
    }
    out = runs.open_run(_OUT.value, overwrite=_OVERWRITE.value)
    found: dict[str, Any] = {}
    for kind, targets in kinds.items():
        images = og.synthesize(*start.network, start.source.images, targets, progress=True).images
        found[kind] = {
            name: og.metrics.total_variation(og.predict(*start.network, again), targets).tolist()
            for name, again in stored(start.network, images, targets).items()
        }
    results = {"flags": out.flags, "per_image": found}
    common_tables.write(out, results, table)
    print(table(results))


if __name__ == "__main__":
    scripts.start(main)
