"""The Markdown card of a network that `models.pretrained.save` wrote, from its JSON card."""

from collections.abc import Mapping
from typing import Any

from outgen_jax.markdown import markdown_table

_USE = """## What it is for

Trying this package, and its studies. It was trained on small images of its own classes only: do not rely on its answers
for other images. An image that the package changes for this network may get another answer from another network.
"""


def model_card(name: str, card: Mapping[str, Any]) -> str:
    """What is known of a network, for a page beside its weights.

    Args:
      name: by which `models.pretrained.load` knows it.
      card: what `models.pretrained.load(name).card` returns.

    >>> card = {"network": "LeNet", "class_names": ["0", "1"], "dataset": "mnist", "test_images": 10,
    ...         "test_accuracy": 0.9, "recipe": {"epochs": 7}, "seed": 0, "seconds": 60.0, "device": "cpu",
    ...         "sha256": "ab", "bytes": 2000}
    >>> print(model_card("small", card)[:7])
    # small
    """
    facts = [
        ("network", f"`outgen_jax.models.{card['network']}`{_shape(card)}"),
        ("input", "images in [0, 1], float32, [B, H, W, C]; it normalises them itself"),
        ("output", f"logits of {len(card['class_names'])} classes"),
        ("classes", ", ".join(card["class_names"])),
        ("weights", f"{card['bytes'] / 1e6:.1f} MB; kernels are bfloat16"),
        ("SHA-256 of the weights", f"`{card['sha256']}`"),
    ]
    tested = [
        ("trained on", f"the training images of {card['dataset']}"),
        ("tested on", _test_set(card)),
        ("accuracy there", f"{card['test_accuracy']:.2%}, of one training run"),
        *_robustness(card),
        ("seed", str(card["seed"])),
        ("training time", f"{card['seconds'] / 60:.0f} minutes on {card['device']}"),
    ]
    given = {key: value for key, value in card["recipe"].items() if value is not None}
    recipe = [(key.replace("_", " "), str(value)) for key, value in given.items()]
    sections = [
        f"# {name}\n",
        f"`outgen_jax.models.pretrained.load({name!r})`\n",
        markdown_table(("", ""), facts),
        _USE,
        "## Training and test\n",
        markdown_table(("", ""), tested),
        "The recipe:\n",
        markdown_table(("option", "value"), recipe),
    ]
    return "\n".join(sections)


def _test_set(card: Mapping[str, Any]) -> str:
    """Of a set without test images a share of its images was held out from training."""
    whose = "of its test images" if card.get("held_out") is None else "held out of its images"
    return f"{card['test_images']} {whose}"


def _robustness(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The accuracy under attack, of a network that was trained for it."""
    if (found := card.get("robustness")) is None:
        return []
    attack = (
        f"{found['steps']} steps of projected gradient in an L2 ball of radius {found['radius']:g}"
    )
    return [("accuracy under attack", f"{found['accuracy']:.2%}, {attack}")]


def _shape(card: Mapping[str, Any]) -> str:
    """The options of the network that its card names."""
    names = ("width_multiplier", "hidden", "channels")
    given = [f"{name}={card[name]}" for name in names if card.get(name) is not None]
    return f" with {', '.join(given)}" if given else ""
