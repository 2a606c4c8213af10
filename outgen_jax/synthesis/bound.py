"""What every request begins with: a network that is checked, and its variables on the devices of the call."""

from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from outgen_jax.networks import ApplyFn
from outgen_jax.outputs import Output
from outgen_jax.synthesis import request, slots
from outgen_jax.synthesis.programs import Network
from outgen_jax.synthesis.request import Meaning


class Bound(NamedTuple):
    """A network bound to its variables, to what its outputs mean, and to devices."""

    network: Network
    variables: Any  # on all devices of the mesh
    meaning: Meaning
    mesh: Mesh
    batch_size: int | None = None  # of each device; None: by `default_batch_size`

    @property
    def kinds(self) -> tuple[Output, ...]:
        """One for each part of the outputs."""
        return self.meaning.kinds

    def on_each_device(self) -> "list[Bound]":
        """The same on each of the devices alone."""
        if self.mesh.size == 1:
            return [self]
        meshes = [slots.mesh_of([device]) for device in self.mesh.devices.flat]
        return [
            self._replace(mesh=mesh, variables=slots.on_all_devices(mesh, self.variables))
            for mesh in meshes
        ]


def bind(
    apply_fn: ApplyFn,
    variables: Any,
    images: np.ndarray,
    *,
    output: Any,
    batch_size: int | None,
    precision: str | None,
    caller: str,
) -> Bound:
    """Checks a user's network and the options that go with it, and puts the variables on the devices of this process.

    Args:
      apply_fn: the network; see `synthesize`.
      variables: any pytree of arrays.
      images: [B, H, W, C], checked ones, of the size that the network is for.
      output: what the outputs mean; see `synthesize`.
      batch_size: images at a time on each device, or None.
      precision: of the network's products; see `synthesize`.
      caller: whom messages name.

    Raises:
      ValueError: a batch size that is not positive; an unknown precision; a network that `request.meaning` refuses.
    """
    request.check_batch_size(batch_size, caller=caller)
    network = Network(apply_fn, request.checked_precision(precision, caller=caller))
    meaning = request.meaning(network, variables, images, output, caller=caller)
    mesh = slots.local_mesh()
    placed = slots.on_all_devices(mesh, variables)
    number = None if batch_size is None else int(batch_size)
    return Bound(network, placed, meaning, mesh, number)
