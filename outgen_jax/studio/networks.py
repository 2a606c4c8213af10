"""The networks that the page offers, each loaded and compiled once for all windows."""

import dataclasses
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from outgen_jax import outputs
from outgen_jax.data import sources
from outgen_jax.models import adapters, pretrained
from outgen_jax.networks import ApplyFn
from outgen_jax.outputs import Output
from outgen_jax.studio import digits, target, values
from outgen_jax.synthesis.predict import predict
from outgen_jax.synthesis.synthesize import synthesize

# What the outputs of a checkpoint may mean, by the names in `og.outputs`.
OUTPUTS: dict[str, Callable[[], Output]] = {
    "softmax": outputs.softmax,
    "sigmoid": outputs.sigmoid,
    "values": outputs.values,
}
# Networks of no more classes than these have a bar for each.
MOST_BARS = 20
_TITLES = {
    "cifar10_vgg16_half": "CIFAR-10 · VGG16 of half width",
    "cifar10_whitened_half": "CIFAR-10 · whitened network of half width",
    "cifar10_whitened_half_robust": "CIFAR-10 · whitened network of half width, robust to small changes",
    "cifar10_whitened_half_robust_r1": "CIFAR-10 · whitened network of half width, robust to larger changes",
    "mnist_lenet": "MNIST · LeNet",
    "mnist_lenet_robust": "MNIST · LeNet, robust to small changes",
    "efficientnet_lite0": "ImageNet · EfficientNet-Lite0",
    "efficientnet_lite1": "ImageNet · EfficientNet-Lite1",
    "efficientnet_lite2": "ImageNet · EfficientNet-Lite2",
}
_NOISE_SEED = 0


class Start(NamedTuple):
    """An image to start from that needs no download."""

    kind: str  # "photograph", "digit" or "noise"
    name: str
    label: str
    image: np.ndarray  # [H, W, C] uint8


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network, ready to be asked."""

    name: str
    apply_fn: ApplyFn
    variables: Any
    class_names: tuple[str, ...]
    size: int  # side of its images in pixels
    channels: int
    output: Output = dataclasses.field(default_factory=outputs.softmax)
    ranges: tuple[values.Range, ...] = ()  # the ends of the bars, where the outputs are numbers

    @property
    def unit(self) -> float | None:
        """The unit of the distance where the outputs are numbers; else None."""
        return self.output.scale if isinstance(self.output, outputs.Values) else None

    @property
    def kind(self) -> str:
        """The name of its output in `OUTPUTS`."""
        if self.unit is not None:
            return "values"
        return "softmax" if self.sums_to_one else "sigmoid"

    @property
    def sums_to_one(self) -> bool:
        """Whether its output is a distribution."""
        return isinstance(self.output, outputs.Softmax)

    @property
    def has_bar_for_each(self) -> bool:
        """Whether every entry of the output has a bar; otherwise the user chooses."""
        return len(self.class_names) <= MOST_BARS or not self.sums_to_one

    def says(self, image: np.ndarray) -> np.ndarray:
        """Its output [K] for an image [H, W, C], uint8 or float in [0, 1]."""
        found = predict(self.apply_fn, self.variables, image[None], output=self.output)
        return np.asarray(found)[0]

    def first_numbers(self, says: np.ndarray) -> values.Numbers:
        """The numbers for an image of which the network says `says` [K]; none where the outputs are no numbers."""
        return values.first(says.tolist(), self.ranges) if self.unit is not None else ()

    def first_bars(self, probs: np.ndarray) -> target.Bars:
        """The bars for an image of which the network says `probs` [K]; none where the outputs are numbers."""
        if self.unit is not None:
            return ()
        if not self.sums_to_one:
            return target.independent(probs.tolist())
        return (
            target.every_class(probs.tolist()) if self.has_bar_for_each else target.likeliest(probs)
        )

    def compile(self) -> None:
        """Compiles what a run needs first: one step towards another class."""
        source = starts(self)[-1].image
        synthesize(
            self.apply_fn,
            self.variables,
            source[None],
            self._another(self.says(source)),
            output=self.output,
            callback=lambda result: True,
        )

    def _another(self, says: np.ndarray) -> np.ma.MaskedArray:
        """A target [K] other than an output."""
        if self.unit is not None:
            low = values.prescribed(self.first_numbers(says), 0, self.ranges[0].low)
            return values.as_array(low)
        bars = target.moved(
            self.first_bars(says), 0, target.TOTAL // 2, sums_to_one=self.sums_to_one
        )
        return target.as_array(bars, len(self.class_names))


def load(name: str, *, output: str = "softmax") -> Network:
    """A network by its name in `pretrained.NAMES`, or a checkpoint's path, with an output of `OUTPUTS`.

    Raises:
      FileNotFoundError, ValueError: as `pretrained.load`; or the card's entries on numbers cannot be read.
    """
    found = pretrained.load(name)
    apply_fn, variables = adapters.from_nnx(found.model)
    network = Network(
        name=name,
        apply_fn=apply_fn,
        variables=variables,
        class_names=found.class_names,
        size=found.image_size,
        channels=found.channels,
        output=OUTPUTS[output](),
    )
    return network if network.unit is None else measured(network, found.card)


def measured(network: Network, card: Mapping[str, Any]) -> Network:
    """A network of numbers with the unit of its distance and the ranges of its bars.

    The card of a checkpoint may have them: `output_scale`, a number, and `output_range`, a pair for each output. What
    it lacks is taken from the outputs on the images to start from.

    Raises:
      ValueError: entries of the card that are something else.
    """
    images = [start.image for start in starts(network)]
    says = np.stack([network.says(image) for image in images[:-1] or images])  # the last is noise
    scale, ends = card.get("output_scale"), card.get("output_range")
    try:
        output = outputs.values(scale=values.unit(says) if scale is None else scale)
        found = values.ranges(says) if ends is None else values.given(ends, says.shape[1])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"studio: the card of {network.name!r} has output_scale={scale!r} and output_range={ends!r}; expected a "
            f"positive number, and a pair of numbers, least first, for each of the {says.shape[1]} outputs. Mend the "
            "card, or remove these entries"
        ) from error
    return dataclasses.replace(network, output=output, ranges=found)


def starts(network: Network) -> list[Start]:
    """Images to start from: those of the installed packages that fit, and noise."""
    return [*_found(network), Start("noise", "noise", "Noise", _noise(network))]


def _found(network: Network) -> Iterator[Start]:
    size = (network.size, network.size)
    if network.channels == 1 and importlib.util.find_spec("sklearn"):
        source = sources.digits(size=(digits.SIZE, digits.SIZE), limit=10)  # one of each
        for name, image in zip(source.ids, source.images, strict=True):
            yield Start("digit", name, f"A {name}", digits.like_mnist(image))
    elif network.channels == 3 and importlib.util.find_spec("skimage"):
        source = sources.photographs(size=size)
        for name, image in zip(source.ids, source.images, strict=True):
            yield Start("photograph", name, name.capitalize(), image)


def _noise(network: Network) -> np.ndarray:
    shape = (network.size, network.size, network.channels)
    return np.random.default_rng(_NOISE_SEED).integers(0, 256, shape, "uint8")


class Catalogue:
    """The networks on offer. Any thread may ask for one; the first that does loads it."""

    def __init__(self, networks: dict[str, Network | None]) -> None:
        """Networks by name; those that are None are loaded from their name when they are asked for."""
        self.names = tuple(networks)
        self._loaded = {name: network for name, network in networks.items() if network is not None}
        self._loading = threading.Lock()
        self._compiling = {name: threading.Lock() for name in networks}
        self._ready: set[str] = set()

    def __getitem__(self, name: str) -> Network:
        """A network by its name; raises KeyError for one that is not on offer, and as `load`."""
        if name not in self.names:
            raise KeyError(name)
        with self._loading:
            if name not in self._loaded:
                self._loaded[name] = load(name)
            return self._loaded[name]

    def is_ready(self, name: str) -> bool:
        """Whether its programs are compiled."""
        return name in self._ready

    def prepare(self, name: str) -> None:
        """Compiles a network's programs; returns at once where that is done."""
        network = self[name]
        with self._compiling[name]:
            if name not in self._ready:
                network.compile()
                self._ready.add(name)


def offered(*, checkpoint: str | None = None, output: str = "softmax") -> Catalogue:
    """The shipped networks whose weights are installed; a checkpoint with an output of `OUTPUTS` first.

    Raises:
      FileNotFoundError, ValueError: as `load`, of the checkpoint.
    """
    names: dict[str, Network | None] = {}
    if checkpoint is not None:
        names[checkpoint] = load(checkpoint, output=output)
    for name in pretrained.NAMES:
        if name in pretrained.SHIPPED or _is_installed(name):
            names.setdefault(name, None)
    return Catalogue(names)


def title(name: str) -> str:
    """What the page calls a network."""
    return _TITLES.get(name, f"Checkpoint · {Path(name).stem}")


def _is_installed(name: str) -> bool:
    package = pretrained.IMAGENET[name].variant.package
    return importlib.util.find_spec(package.replace("-", "_")) is not None
