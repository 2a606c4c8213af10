"""What a network says of the images of a run, in parts: one for each output of the network and each view.

Answers are in the units of targets, as `og.predict` returns them: probabilities of classes or labels, or numbers.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from outgen_jax.outputs import Output, softmax
from outgen_jax.targets import partial


class Part(NamedTuple):
    """One answer to each of N images, with K entries: of one network, in one view. Host arrays only.

    Names may hold any characters.

    Attributes:
      entries: K names, of classes, labels or numbers.
      wanted: [N, K], NaN where an entry is free.
      before: [N, K], what the network says of the source.
      reached: [N, K], what it says of the saved image; NaN where it is not finite.
      kind: of the output.
      network: of several networks, or of several outputs of one.
      view: of several views.
    """

    entries: tuple[str, ...]
    wanted: np.ndarray
    before: np.ndarray
    reached: np.ndarray
    kind: Output = softmax()
    network: str = ""
    view: str = ""


def distances(part: Part, said: np.ndarray) -> np.ndarray:
    """How far answers [N, K] are from what is wanted, in the measure of their kind: [N], NaN where not finite."""
    outputs = _outputs(part.kind, np.asarray(said, np.float32))
    with jax.debug_nans(False):  # NaN marks what is free, and networks that are not finite
        found = _distances(outputs, np.asarray(part.wanted, np.float32), kind=part.kind)
    return np.where(np.isfinite(said).all(-1), np.asarray(found), np.nan)


@functools.partial(jax.jit, static_argnames="kind")
def _distances(outputs: jax.Array, wanted: jax.Array, *, kind: Output) -> jax.Array:
    """Distances [N] of outputs [N, K]. Compiled, since a page asks for them image by image."""
    return jax.vmap(lambda output, target: kind.distance(kind.cleaned(output), target))(
        outputs, wanted
    )


def completed(part: Part) -> np.ndarray:
    """Targets [N, K] of a distribution; free classes share what the others leave as the saved image does."""
    with jax.debug_nans(False):
        return np.asarray(partial.complete(part.wanted, _outputs(part.kind, part.reached)))


def _outputs(kind: Output, said: np.ndarray) -> np.ndarray:
    """Outputs that read out as what is said."""
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind.form == "distribution":
            return np.log(said)
        if kind.form == "labels":
            return np.log(said) - np.log1p(-said)
    return said
