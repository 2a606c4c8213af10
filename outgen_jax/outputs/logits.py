"""What the kinds of output that are logits share."""

import numpy as np

# A logit of minus infinity is taken for one so far below the largest: its probability is 0 in float32.
SWITCHED_OFF = -300.0


def looks_like_probabilities(rows: np.ndarray) -> bool:
    """Whether so many numbers [n, K] all lie in [0, 1] that it is hardly chance."""
    return rows.size >= 16 and rows.min() >= 0 and rows.max() <= 1 and rows.max() > 0
