"""What a classifier learns from a batch: the two losses of paper A, and the methods they are compared with.

An objective is two pure functions. `prepare` may change the augmented images, and returns what the loss needs besides
the logits; `loss` compares the logits with it. Images are float32 [B, H, W, C] in [0, 1], after crop and flip. No
gradient flows through `prepare`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from outgen_jax import losses
from outgen_jax.networks import ApplyFn


class Supervision(NamedTuple):
    """The arrays that belong to the images of a data set or, after `take`, of a batch."""

    labels: Any  # [N] int32, or what else the objective takes
    # [N, K], of the generated images; the other rows are not read.
    teacher_logits: jax.Array | None = None
    generated: jax.Array | None = None  # [N] bool: which images were replaced by generated ones
    frozen: Any = None  # variables of the frozen network, for objectives that call it
    key: jax.Array | None = None  # of everything random in a training

    def take(self, rows: jax.Array) -> "Supervision":
        """The supervision of the rows [B]; `frozen` and `key` stay."""
        labels, teacher_logits, generated = jax.tree.map(lambda array: array[rows], self[:3])
        return self._replace(labels=labels, teacher_logits=teacher_logits, generated=generated)


Labels = np.ndarray | jax.Array | Supervision
# (key, training state, augmented images, supervision of the batch) -> (images, second argument of `loss`)
Prepare = Callable[[jax.Array, Any, jax.Array, Supervision], tuple[jax.Array, Any]]
# (key, training state, frozen variables, images [n, H, W, C], labels [n]) -> (images, the teacher's logits [n, K])
Generate = Callable[
    [jax.Array, Any, Any, jax.Array, jax.Array],
    tuple[jax.Array, jax.Array],
]
Loss = Callable[[jax.Array, Any], jax.Array]  # (logits [B, K], wanted) -> [], mean over the batch
Correct = Callable[[jax.Array, jax.Array], jax.Array]  # (logits [B, K], labels of the batch) -> []


def top_1(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images whose largest logit is their label: [B, K], int [B] -> [].

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import objectives
    >>> float(objectives.top_1(jnp.array([[0.0, 1.0], [2.0, 1.0]]), jnp.array([1, 1])))
    0.5
    """
    # With 64-bit types on, argmax returns int64.
    return (logits.argmax(-1).astype(jnp.int32) == jnp.asarray(labels, jnp.int32)).mean()


class Objective(NamedTuple):
    """What a network learns from a batch: `prepare` and `loss`, see the module, and how the batch is treated."""

    prepare: Prepare
    loss: Loss
    # Share of the batch, its first images, that goes through the network in a call of its own, so that batch
    # normalisation does not mix it with the rest. The running statistics are those of the rest.
    apart: float = 0.0
    # `Metrics.accuracy` of a batch. Labels may be other arrays than int [N] where this and `loss` take them.
    correct: Correct = top_1


def plain(label_smoothing: float = 0.0) -> Objective:
    """Eq. A12: L_c(p, t), the cross-entropy with labels.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import objectives
    >>> loss = objectives.plain().loss(jnp.zeros((1, 4)), jnp.array([2]))
    >>> print(round(float(loss), 4))
    1.3863

    Args:
      label_smoothing: share of t that is spread evenly over all classes (Szegedy et al. 2016), in [0, 1].

    Raises:
      ValueError: a share outside [0, 1], or NaN.
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"objectives.plain: label_smoothing must lie in [0, 1], got {label_smoothing}; 0.1 is 10 %"
        )

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        t = losses.one_hot(labels, logits.shape[-1])
        targets = optax.smooth_labels(t, label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()

    return Objective(lambda key, state, images, given: (images, given.labels), loss)


def replaced() -> Objective:
    """Eq. A9 on a set of which some rows, those marked `generated`, were replaced before the training.

    q is the softmax of the row's `teacher_logits`, the output of the frozen network for the stored image. Crop and
    flip do not change q, as in paper A.

    Raises:
      ValueError: from `prepare`, a supervision without `teacher_logits` or `generated`.
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
    """Eq. A9 with images generated in the step, after crop and flip, as paper A proposes for future work.

    The first `fraction` of the batch, whose rows come in random order, goes to `generate`.

    Args:
      generate: makes the images and the teacher's logits for them.
      fraction: of the batch, in [0, 1].
      apart: whether generated images are batch-normalised separately from the others (AdvProp: Xie et al. 2020, but
        with shared scales).

    Raises:
      ValueError: a fraction outside [0, 1]; from `prepare`, one that leaves no image to generate.
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


def distillation(apply: ApplyFn) -> Objective:
    """Eq. A9 with every image treated as a generated one: q is the frozen network's output for the clean image.

    This separates the effect of the loss from that of the generated images. It is knowledge distillation (Hinton et
    al. 2015) at temperature 1 and weight 1/2.

    Args:
      apply: the frozen network, on the variables `frozen` of the supervision.
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        everywhere = jnp.ones(len(images), bool)
        return images, (given.labels, apply(given.frozen, images), everywhere)

    return Objective(prepare, _replaced_loss)


def mixup() -> Objective:
    """Blends each image, and its label, with another of the batch (Zhang et al. 2018, α = 1).

    A share is drawn for every pair.
    """

    def prepare(
        key: jax.Array, state: Any, images: jax.Array, given: Supervision
    ) -> tuple[jax.Array, Any]:
        partner_key, share_key = jax.random.split(key)
        partners = jax.random.permutation(partner_key, len(images))
        shares = jax.random.uniform(share_key, (len(images),), images.dtype)
        mixed = jax.vmap(blend)(shares, images, images[partners])
        return mixed, (given.labels, given.labels[partners], shares)

    return Objective(prepare, _mixed_loss)


def cutmix() -> Objective:
    """Pastes a box of another image of the batch into each; labels are mixed by area (Yun et al. 2019, α = 1).

    A share and a box are drawn for every pair.
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
    """λ·x + (1 − λ)·x'.

    >>> import jax.numpy as jnp
    >>> from outgen_jax.training import objectives
    >>> print(objectives.blend(jnp.array(0.25), jnp.array([4.0]), jnp.array([0.0])))
    [1.]
    """
    return share * image + (1 - share) * other


def random_box(key: jax.Array, height: int, width: int) -> jax.Array:
    """A mask [H, W], True in a box with uniform centre and uniform area, cut at the edges of the image.

    >>> import jax
    >>> from outgen_jax.training import objectives
    >>> objectives.random_box(jax.random.key(0), 8, 6).shape
    (8, 6)
    """
    share_key, centre_key = jax.random.split(key)
    side = jnp.sqrt(jax.random.uniform(share_key, dtype=jnp.float32))
    centre = jax.random.uniform(centre_key, (2,), jnp.float32)

    def covered(size: int, centre: jax.Array) -> jax.Array:
        pixels = jnp.arange(size, dtype=jnp.float32) + 0.5
        return jnp.abs(pixels - size * centre) < size * side / 2

    return covered(height, centre[0])[:, None] & covered(width, centre[1])[None, :]


def checked_fraction(fraction: float, *, caller: str) -> float:
    """Returns the fraction after checking it.

    >>> from outgen_jax.training import objectives
    >>> objectives.checked_fraction(0.3, caller="example")
    0.3

    Raises:
      ValueError: a fraction outside [0, 1], or NaN.
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
        t, t_other = losses.one_hot(jnp.stack([label, other]), len(logits))
        return losses.cross_entropy(logits, blend(share, t, t_other))

    return jax.vmap(loss)(logits, labels, others, shares).mean()
