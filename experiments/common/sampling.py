"""More samples of a generator that a study has trained: which job, and where the images go."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from outgen_jax import files
from outgen_jax.report import image_grids
from outgen_jax.report.plotting import save_figure

_COLUMNS = 8  # of the sheet


def check_out(path: Path) -> None:
    """Refuses a file that is no .npz, or that is there.

    Raises:
      ValueError, FileExistsError: in the name of the flag.
    """
    if path.suffix != ".npz":
        raise ValueError(f"--out={path} must end in .npz; the sheet takes the name with .png")
    for there in (path, path.with_suffix(".png")):
        if there.exists():
            raise FileExistsError(f"--out: {there} is there already; name another file")


def finished_job(job: str, directories: Mapping[str, Path]) -> tuple[Path, dict[str, Any]]:
    """The directory and the content of `scores.json` of a job, of the `directories` by name.

    Raises:
      ValueError: no finished job of that name.
    """
    finished = [name for name, path in directories.items() if (path / "scores.json").exists()]
    if job not in finished:
        raise ValueError(
            f"--job: no finished job {job!r} in --run; finished are {', '.join(finished) or 'none'}"
        )
    directory = directories[job]
    return directory, json.loads((directory / "scores.json").read_text())


def write(path: Path, images: np.ndarray) -> None:
    """Writes images [N, H, W, C] uint8 as `images` of an .npz, and a sheet of them as .png beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.save_arrays(path, {"images": images})
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    sheet = np.full((rows * columns, *images.shape[1:]), 255, np.uint8)
    sheet[: len(images)] = images
    panels = {"": sheet.reshape(rows, columns, *images.shape[1:])}
    save_figure(image_grids.grids_figure(panels, inches=0.6), path.with_suffix(".png"))
    print(f"{path}, {path.with_suffix('.png')}: {len(images)} images")
