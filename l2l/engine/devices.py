"""On which devices of this process a program runs: several lanes on each device, or a part of each batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

LANE_AXIS, BATCH_AXIS = "lane", "batch"
"""Names of the mesh axis: what the devices share out, lanes or the examples of a batch."""


@dataclass(frozen=True)
class DeviceLayout:
    """The first `devices` devices, each with some of the lanes, or each with a part of every batch.

    Batches are split if one lane is too large for one device.
    """

    devices: int = 1
    axis: str = LANE_AXIS
    mesh: Mesh = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mesh", Mesh(np.array(jax.local_devices()[: self.devices]), (self.axis,)))

    @property
    def replicated_sharding(self) -> NamedSharding:
        """Of an array that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def lane_sharding(self) -> NamedSharding:
        """Of an array with a leading axis P of lanes."""
        return NamedSharding(self.mesh, PartitionSpec(LANE_AXIS) if self.axis == LANE_AXIS else PartitionSpec())

    def shard_batch(self, examples: Any) -> Any:
        """The examples `[B, ...]` of a batch, split among the devices if batches are and can be split evenly."""
        if self.axis == LANE_AXIS or len(examples) % self.devices:
            return examples
        return jax.lax.with_sharding_constraint(examples, NamedSharding(self.mesh, PartitionSpec(BATCH_AXIS)))

    def pad_lanes(self, lanes: int) -> int:
        """The number of lanes with the fillers that give every device equally many."""
        return -(-lanes // self.devices) * self.devices if self.axis == LANE_AXIS else lanes

    def lower(
        self, name: str, program: Callable[..., Any], lanes: int, shapes: Sequence[Any], shared: Sequence[Any]
    ) -> Any:
        """Lowers a program of so many lanes under this name, ready to be compiled.

        `shapes` are those of the lanes and of their states, `shared` what all lanes get. The states are donated: those
        that come out take their memory. Devices with lanes of their own do not communicate: each runs its lanes.
        """
        if self.devices == 1:
            return jax.jit(_vectorise(name, program, lanes), donate_argnums=1).trace(*shapes, *shared).lower()
        function = _vectorise(name, program, self.pad_lanes(lanes) // self.devices if self.axis == LANE_AXIS else lanes)
        inputs = (*[self.lane_sharding] * len(shapes), *[self.replicated_sharding] * len(shared))
        if self.axis == LANE_AXIS:
            in_specs = tuple(sharding.spec for sharding in inputs)
            out_specs = PartitionSpec(LANE_AXIS)
            function = jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=self.lane_sharding, donate_argnums=1)
        return jitted.trace(*shapes, *shared).lower()


def _vectorise(name: str, program: Callable[..., Any], lanes: int) -> Callable[..., Any]:
    """The program of one lane with a leading axis P on lanes and states, as a function of this name."""

    def run(lane: Any, state: Any, *shared: Any) -> Any:
        if lanes > 1:
            return jax.vmap(program, in_axes=(0, 0, None, None, None))(lane, state, *shared)
        return jax.tree.map(
            lambda leaf: leaf[None], program(*jax.tree.map(lambda leaf: leaf[0], (lane, state)), *shared)
        )

    run.__name__ = name
    return run


def count_lane_devices(lanes: int, devices: int) -> int:
    """The fewest devices that run the lanes as fast as all `devices` do: no device gets more lanes than then."""
    return -(-lanes // -(-lanes // devices))


def count_batch_devices(examples: int, devices: int) -> int:
    """The most devices, up to `devices`, that can get equally many of the examples."""
    return max(count for count in range(1, devices + 1) if examples % count == 0)
