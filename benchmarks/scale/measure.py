"""What the model takes from this machine, in processor seconds: they do not count what other programs take."""

import functools
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from skimage import data, transform

import outgen_jax as og
from outgen_jax.data import records

CLASSES = 10


def photographs(number: int, size: int) -> np.ndarray:
    """[number, size, size, 3] uint8: crops of scikit-image's photographs, with noise as synthesis leaves it.

    The noise has a root mean square of 5 grey levels.
    """
    rng, scaled = np.random.default_rng(0), _scaled(size)
    rows, columns = rng.integers(0, [[size], [2 * size]], (2, number))
    crops = [
        scaled[i % len(scaled)][row : row + size, column : column + size]
        for i, (row, column) in enumerate(zip(rows, columns, strict=True))
    ]
    noisy = 255 * np.stack(crops) + rng.normal(0, 5, (number, size, size, 3))
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


@functools.cache
def _scaled(size: int) -> list[np.ndarray]:
    """The photographs, twice as high and three times as wide as a crop."""
    sources = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    return [transform.resize(x, (2 * size, 3 * size), anti_aliasing=True) for x in sources]


def writing(number: int, size: int) -> dict[str, float]:
    """Encoding and writing a shard as `og.generate_dataset` does -> of one image."""
    fields = {
        "id": records.text(),
        "image": records.image((size, size, 3)),
        "label": records.tensor((), "int32"),
        "target": records.tensor((CLASSES,), "float32"),
        "probs": records.tensor((CLASSES,), "float32"),
        "total_variation": records.tensor((), "float32"),
        "steps": records.tensor((), "int32"),
        "converged": records.tensor((), "bool"),
    }
    row = np.full(CLASSES, 1 / CLASSES, np.float32)
    examples = [
        {"id": str(i), "image": image, "label": -1, "target": row, "probs": row}
        | {"total_variation": np.float32(0), "steps": np.int32(1), "converged": True}
        for i, image in enumerate(photographs(number, size))
    ]
    with tempfile.TemporaryDirectory() as directory:
        warm, path = Path(directory) / "warm", Path(directory) / "shard"
        records.write_shard(warm, fields=fields, examples=examples[:2])  # imports the writers
        start = time.process_time()
        records.write_shard(path, fields=fields, examples=examples)
        seconds = time.process_time() - start
        return {"seconds": seconds / number, "bytes": path.stat().st_size / number}


def handing(number: int, size: int, *, steps: int = 0) -> float:
    """Processor seconds of an image in `og.synthesize`, all images at once, with a network that costs next to nothing.

    Without steps, an image only enters a slot, is looked at, and leaves. What the host then does is the same whatever
    the network.
    """

    def means(variables: Any, images: jax.Array) -> jax.Array:
        return 4 * (images.mean((1, 2)) - 0.5) @ variables

    variables = np.eye(3, CLASSES, dtype=np.float32)
    images = photographs(number, size)
    targets = np.random.default_rng(0).dirichlet(np.ones(CLASSES), number).astype(np.float32)
    options = {"solver": og.preset("sgd", steps=steps), "batch_size": number}
    og.synthesize(means, variables, images, targets, **options)  # compiles
    start = time.process_time()
    og.synthesize(means, variables, images, targets, **options)
    return (time.process_time() - start) / number


def calling(number: int) -> float:
    """Processor seconds of an image in a further call of the solver, which has several updates.

    The images are of 4×4, so that the solver's own arithmetic is small.
    """
    updates = 10  # of a call on CPU, see `outgen_jax.chunking`
    calls = 20
    more = handing(number, 4, steps=calls * updates) - handing(number, 4, steps=updates)
    return max(more, 0.0) / (calls - 1)
