"""What a classifier learns from a batch: paper A's two losses, and the controls they are held against.

An objective is two pure functions: `prepare` changes the augmented images where it wants to and
says what the network shall answer, `loss` compares its logits with that. Images are float32
[B, H, W, C] in [0, 1], after crop and flip; no gradient flows through `prepare`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from outgen_jax import losses


class Supervision(NamedTuple):
    """What goes with the images of a data set or, after `take`, of a batch."""

    labels: jax.Array  # [N] int32
    teacher_logits: jax.Array | None = (
        None  # [N, K] of the generated images; other rows are not read
    )
    generated: jax.Array | None = None  # [N] bool: which images were replaced by generated ones
    frozen: Any = None  # variables of the frozen network, where the objective asks it
    key: jax.Array | None = None  # of all that is random in a training run

    def take(self, rows: jax.Array) -> "Supervision":
        """The supervision of some rows [B]; what belongs to no row stays."""
        labels, teacher_logits, generated = jax.tree.map(lambda array: array[rows], self[:3])
        return self._replace(labels=labels, teacher_logits=teacher_logits, generated=generated)


Labels = jax.Array | Supervision
# (key, training state, augmented images, supervision of the batch) -> (images, what `loss` compares with)
Prepare = Callable[[jax.Array, Any, jax.Array, Supervision], tuple[jax.Array, Any]]
# (key, training state, frozen variables, images [n, H, W, C], labels [n]) -> (images, teacher's logits [n, K] of them)
Generate = Callable[
    [jax.Array, Any, Any, jax.Array, jax.Array],
    tuple[jax.Array, jax.Array],
]
Apply = Callable[[Any, jax.Array], jax.Array]  # (variables, images) -> logits [B, K]


class Objective(NamedTuple):
    """What a network learns from a batch; see the module."""

    prepare: Prepare
    loss: Callable[
        [jax.Array, Any], jax.Array
    ]  # (logits [B, K], wanted) -> [], mean over the batch
    # Share of the batch, its first images, that goes through the network by itself: batch normalisation then does not
    # mix it with the rest, whose running statistics are kept.
    apart: float = 0.0


def plain(label_smoothing: float = 0.0) -> Objective:
    """Eq. A12: L_c(p, t); with label smoothing t gives that share to all classes alike (Szegedy et al. 2016)."""

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    return Objective(lambda key, state, images, given: (images, given.labels), loss)


def replaced() -> Objective:
    """Eq. A9 on a set of which a part was replaced: rows marked `generated`, with their `teacher_logits`.

    q is what the frozen network says of the stored image; crop and flip do not change it, as in
    paper A, where images were generated before training.
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        if given.teacher_logits is None or given.generated is None:
            raise ValueError(
                "objectives.replaced: the supervision must have teacher_logits and generated; "
                "training.replaced.replace makes both"
            )
        return images, (given.labels, given.teacher_logits, given.generated)

    return Objective(prepare, _replaced_loss)


def during(generate: Generate, fraction: float, *, apart: bool = False) -> Objective:
    """Eq. A9 with images generated in the step, after crop and flip: the cure that paper A proposes.

    The first `fraction` of the batch, whose rows come in random order, is handed to `generate`.

    Args:
      generate: makes the images, and says what their teacher answers.
      fraction: of the batch, in [0, 1].
      apart: whether generated images are batch-normalised apart from the others (AdvProp: Xie et al. 2020, here with
        the same scales).

    Raises:
      ValueError: a fraction outside [0, 1]; in the step, one that leaves no image to generate.
    """
    checked_fraction(fraction, caller="objectives.during")

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        count = round(fraction * len(images))
        if count == 0:
            raise ValueError(
                f"objectives.during: a fraction of {fraction} leaves nothing to generate in a batch of "
                f"{len(images)}; use objectives.plain, or a larger batch"
            )
        new, teacher = generate(key, state, given.frozen, images[:count], given.labels[:count])
        images = jnp.concatenate([jax.lax.stop_gradient(new), images[count:]])
        teacher = jnp.pad(teacher, ((0, len(images) - count), (0, 0)))
        return images, (given.labels, teacher, jnp.arange(len(images)) < count)

    return Objective(prepare, _replaced_loss, fraction if apart else 0.0)


def distillation(apply: Apply) -> Objective:
    """Eq. A9 with every image taken for a generated one: the frozen network's outputs on clean images.

    The loss of generated images without the images: what remains of a gain is theirs. (Knowledge
    distillation: Hinton et al. 2015, at temperature 1 and weight 1/2.)
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        everywhere = jnp.ones(len(images), bool)
        return images, (given.labels, apply(given.frozen, images), everywhere)

    return Objective(prepare, _replaced_loss)


def mixup() -> Objective:
    """Blends each image, and its label, with another of the batch (Zhang et al. 2018, α = 1).

    The share is drawn for every pair.
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        partner_key, share_key = jax.random.split(key)
        partners = jax.random.permutation(partner_key, len(images))
        shares = jax.random.uniform(share_key, (len(images),))
        mixed = jax.vmap(blend)(shares, images, images[partners])
        return mixed, (given.labels, given.labels[partners], shares)

    return Objective(prepare, _mixed_loss)


def cutmix() -> Objective:
    """Pastes a box of another image of the batch into each; labels count by area (Yun et al. 2019, α = 1).

    Share and box are drawn for every pair.
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        partner_key, box_key = jax.random.split(key)
        partners = jax.random.permutation(partner_key, len(images))
        keys = jax.random.split(box_key, len(images))
        inside = jax.vmap(lambda key: random_box(key, *images.shape[1:3]))(keys)  # [B, H, W]
        mixed = jnp.where(inside[..., None], images[partners], images)
        shares = 1 - inside.mean((1, 2))
        return mixed, (given.labels, given.labels[partners], shares)

    return Objective(prepare, _mixed_loss)


def blend(share: jax.Array, image: jax.Array, other: jax.Array) -> jax.Array:
    """λ·x + (1 − λ)·x'."""
    return share * image + (1 - share) * other


def random_box(key: jax.Array, height: int, width: int) -> jax.Array:
    """True in a box whose centre is uniform, and whose area is before the image's edges cut it: [H, W]."""
    share_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(jax.random.uniform(share_key))
    centre = jax.random.uniform(centre_key, (2,))

    def covered(size: int, centre: jax.Array) -> jax.Array:
        return jnp.abs(jnp.arange(size) + 0.5 - size * centre) < size * side / 2

    return covered(height, centre[0])[:, None] & covered(width, centre[1])[None, :]


def checked_fraction(fraction: float, *, caller: str) -> float:
    """The fraction, if it is one.

    Raises:
      ValueError: outside [0, 1], or NaN.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"{caller}: fraction must lie in [0, 1], got {fraction}; 0.3 is 30 %")
    return fraction


def _replaced_loss(logits: jax.Array, wanted: Any) -> jax.Array:
    labels, teacher_logits, generated = wanted
    return losses.replaced_data(logits, labels, teacher_logits, generated)


def _mixed_loss(logits: jax.Array, wanted: Any) -> jax.Array:
    labels, others, shares = wanted

    def loss(logits: jax.Array, label: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
        t, t_other = jax.nn.one_hot(jnp.stack([label, other]), len(logits))
        return losses.cross_entropy(logits, blend(share, t, t_other))

    return jax.vmap(loss)(logits, labels, others, shares).mean()
