"""Targets that a person writes: texts, and tables of them.

The grammar of a target, read by `parse` and in the `target` column of `from_csv`: comma-separated
`name=weight` pairs with weights >= 0 that sum to 1 within 1e-3. A lone name may leave its weight
out: `uniform`. A name is one of these words, otherwise a class:

    true      the image's own label
    top       the most probable class of the source image
    runnerup  the most probable class of the source image that is not `true`. If there are no
              labels, or the text also names `top`: that is not `top`
    random    a class drawn for each image from those that are neither true nor named in the text.
              `random=0.5,random=0.5` draws two different classes
    uniform   all classes equally
    rest      all classes that are not named, in any proportion: they are free, and masked in the
              result (`numpy.ma`)

A class is matched by its exact name, then as an index, then without regard to case. Use the index
for a class that shares its name with a word above or with another class, or whose name holds a
comma or '='. Weights of the same class are added: `true=0.5,cat=0.5` is probability 1 on a cat.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from outgen_jax.data.image_source import ImageSource
from outgen_jax.targets.context import Context, make_context
from outgen_jax.targets.distributions import normalised_rows
from outgen_jax.targets.draws import ImageIds
from outgen_jax.targets.entry_text import check_values, entry_rows
from outgen_jax.targets.table import Record, in_order_of, numbers_in, read_table
from outgen_jax.targets.text import class_index, listed, target_rows


def parse(
    text: str,
    *,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    labels: ArrayLike | None = None,
    num_images: int | None = None,
    seed: int = 0,
    image_ids: ImageIds | None = None,
    source_probs: ArrayLike | None = None,
    source: ImageSource | None = None,
    output: Any = None,
) -> np.ndarray:
    """Targets from text such as `true=0.9,random=0.1`; `help(og.targets.parsing)` has the grammar.

    What `random` draws for an image depends on the seed and the image's id. Ids are row numbers
    unless `image_ids` or `source` are given.

    Args:
      text: the target of every image.
      class_names: K names in the classifier's order; or give `num_classes` alone, and indices.
      num_classes: K.
      labels: int [B], the class of each image among the classifier's classes, for `true`;
          `random` and `runnerup` avoid it. If the data set has another list of classes, give
          `source` instead.
      num_images: B; needed if labels, image_ids, source_probs and source are all left out.
      seed: of `random`.
      image_ids: B ids of the images, for `random`; None: row numbers.
      source_probs: [B, K], the classifier's probabilities of the source images, as `og.predict`
          returns them, for `top` and `runnerup`.
      source: the images, as `data.sources.load` returns them, instead of labels, num_images and
          image_ids. Its labels are matched to `class_names` by the names of the source's
          classes. For an image whose class the classifier lacks, `true` is an error, `random` has
          no label to avoid, and `runnerup` is other than `top`. A source without class names
          must number the classifier's classes.
      output: the kind of output; None: `og.outputs.softmax()`. For `og.outputs.sigmoid()` and
          `og.outputs.values()` every name has a value of its own, and entries that are not named
          are free; see `outgen_jax.targets.entry_text`.

    >>> from outgen_jax.data.sources import ImageSource
    >>> pets = ImageSource(np.zeros((2, 8, 8, 3), np.uint8), np.array([1, 0]), ("dog", "cat"), ("a", "b"))
    >>> parse("true=0.9,ship=0.1", source=pets, class_names=("cat", "ship", "dog"))
    array([[0.9, 0.1, 0. ],
           [0. , 0.1, 0.9]], dtype=float32)
    >>> import outgen_jax as og
    >>> labels = {"class_names": ("cat", "dog", "person"), "output": og.outputs.sigmoid(), "num_images": 1}
    >>> parse("cat=0.9,person=0.2", **labels).tolist()
    [[0.8999999761581421, None, 0.20000000298023224]]

    Returns:
      float32 [B, K], rows summing to 1; a masked array if the text has `rest`. For other outputs
      than a softmax always a masked array.

    Raises:
      ValueError: text outside the grammar, an unknown class, arguments that are missing or
          contradict each other, `true` for a class of the source that the classifier lacks, or
          no class left to draw.
    """
    if not isinstance(text, str):
        raise ValueError(
            f"targets.parse: text must be one text for all images, got a {type(text).__name__}. Call it once for each "
            "text, or write a table for og.targets.from_csv"
        )
    context = make_context(
        "targets.parse",
        class_names=class_names,
        num_classes=num_classes,
        labels=labels,
        num_images=num_images,
        seed=seed,
        image_ids=image_ids,
        source_probs=source_probs,
        source=source,
        output=output,
    )
    return _rows(text, context)


def from_csv(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    labels: ArrayLike | None = None,
    num_images: int | None = None,
    seed: int = 0,
    image_ids: ImageIds | None = None,
    source_probs: ArrayLike | None = None,
    source: ImageSource | None = None,
    output: Any = None,
) -> np.ndarray:
    r"""Targets from a table (CSV, UTF-8, comma-separated) with a header and one row per image.

    The first column may be `id`: rows are then matched to `image_ids`, or to the ids of `source`,
    and may come in any order. Without it, rows are in the order of the images. The other columns
    are either one column `target`, with texts in the grammar of `parse`, or one column for each
    class, headed by its name or index. Classes without a column, and empty cells, are 0; for other
    outputs than a softmax they are free. Blank rows are skipped.

    Args:
      path: the table, such as "targets.csv".
      class_names: see `parse`, also for the other arguments.
      num_classes: K.
      labels: int [B].
      num_images: B.
      seed: of `random`.
      image_ids: B ids of the images.
      source_probs: [B, K].
      source: the images.
      output: the kind of output.

    Returns:
      float32 [B, K] in the order of the images, rows summing to 1; a masked array if a text has
      `rest`. For other outputs than a softmax always a masked array.

    Raises:
      FileNotFoundError: no such file.
      ValueError: texts or arguments that `parse` refuses; a malformed table; rows or ids that do
          not match the images. Messages number rows as a spreadsheet does: the header is row 1.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "targets.csv"
    >>> _ = path.write_text("id,cat,dog\nb,0.9,0.1\na,,1\n")
    >>> from_csv(path, class_names=("cat", "dog"), image_ids=["a", "b"])
    array([[0. , 1. ],
           [0.9, 0.1]], dtype=float32)
    """
    caller = "targets.from_csv"
    context = make_context(
        caller,
        class_names=class_names,
        num_classes=num_classes,
        labels=labels,
        num_images=num_images,
        seed=seed,
        image_ids=image_ids,
        source_probs=source_probs,
        source=source,
        output=output,
    )
    header, records = read_table(path, caller=caller)
    if header[0].casefold() == "id":
        header, records = header[1:], in_order_of(context.ids, records, caller=caller)
    elif len(records) != len(context.ids):
        raise ValueError(
            f"{caller}: the table must have one row per image below its header; it has "
            f"{len(records)} for {len(context.ids)} images. Add or remove rows"
        )
    if "target" in [name.casefold() for name in header]:
        if len(header) > 1:
            raise ValueError(
                f"{caller}: only 'id' may stand before a column 'target'; the header has "
                f"{listed(header)}. Remove the others, or head a class of that name by its index"
            )
        return _text_column(records, context)
    return _class_columns(header, records, context)


def _rows(text: str, context: Context) -> np.ndarray:
    """The targets of a text: distributions, or entries with values of their own."""
    if context.form == "distribution":
        return target_rows(text, context)
    return entry_rows(text, context)


def _text_column(records: Sequence[Record], context: Context) -> np.ndarray:
    """Targets of a table whose one cell per row is text; equal texts are read together."""
    images_of: defaultdict[str, list[int]] = defaultdict(list)
    for image, record in enumerate(records):
        images_of[record.cells[0]].append(image)
    targets = np.ma.empty((len(records), context.num_classes), np.float32)
    for text, images in images_of.items():
        row = min(records[image].number for image in images)
        targets[images] = _rows(text, context.take(images, f"{context.caller}: row {row}"))
    is_distribution = context.form == "distribution"
    return targets.data if is_distribution and not np.ma.is_masked(targets) else targets


def _class_columns(
    header: Sequence[str], records: Sequence[Record], context: Context
) -> np.ndarray:
    """Targets of a table with a column per class; classes without one are 0."""
    classes = [class_index(name, context) for name in header]
    for column, index in enumerate(classes):
        if index in classes[:column]:
            raise ValueError(
                f"{context.caller}: a class must have one column; {header[column]!r} and "
                f"{header[classes.index(index)]!r} are both class {index}. Remove one"
            )
    found = numbers_in(records, header, caller=context.caller)
    numbers = [record.number for record in records]
    if context.form != "distribution":
        cells = [[bool(cell) for cell in record.cells] for record in records]
        entries = np.ma.masked_all((len(records), context.num_classes))
        entries.data[:] = 0
        entries[:, classes] = np.ma.masked_array(
            found, ~np.reshape(np.asarray(cells, bool), found.shape)
        )
        check_values(entries, context, numbers)
        return entries.astype(np.float32)
    rows = np.zeros((len(records), context.num_classes))
    rows[:, classes] = found
    return normalised_rows(rows, context.caller, numbers)
