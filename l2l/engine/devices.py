"""Where a program runs: its lanes spread over the devices of this process, or one lane's batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

LANE, BATCH = "lane", "batch"


@dataclass(frozen=True)
class Place:
    """The first `devices` devices, with the lanes dealt out to them or, where one is too small, each batch."""

    devices: int = 1
    axis: str = LANE
    mesh: Mesh = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mesh", Mesh(np.array(jax.local_devices()[: self.devices]), (self.axis,)))

    def shared(self) -> NamedSharding:
        """What every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def lanes(self) -> NamedSharding:
        """What has a leading axis of lanes."""
        return NamedSharding(self.mesh, PartitionSpec(LANE) if self.axis == LANE else PartitionSpec())

    def batch(self, examples: Any) -> Any:
        """The examples `[B, ...]` of a batch, each device's share on it where batches are dealt out evenly."""
        if self.axis == LANE or len(examples) % self.devices:
            return examples
        return jax.lax.with_sharding_constraint(examples, NamedSharding(self.mesh, PartitionSpec(BATCH)))

    def filled(self, lanes: int) -> int:
        """So many lanes, and what dummies it takes for every device to have as many as the others."""
        return -(-lanes // self.devices) * self.devices if self.axis == LANE else lanes

    def lowered(self, program: Callable[..., Any], lanes: int, shapes: Sequence[Any], shared: Sequence[Any]) -> Any:
        """The program of so many lanes, ready to be compiled, for these shapes of lanes and what they share.

        The state that goes in, the second of the shapes, is where the one that comes out will lie.

        Devices that have lanes of their own know nothing of each other: each runs the program of its share.
        """
        if self.devices == 1:
            return jax.jit(_vectorised(program, lanes), donate_argnums=1).trace(*shapes, *shared).lower()
        function = _vectorised(program, self.filled(lanes) // self.devices if self.axis == LANE else lanes)
        inputs = (*[self.lanes()] * len(shapes), *[self.shared()] * len(shared))
        if self.axis == LANE:
            specs = tuple(each.spec for each in inputs)
            out = PartitionSpec(LANE)
            function = jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)
        jitted = jax.jit(function, in_shardings=inputs, out_shardings=self.lanes(), donate_argnums=1)
        return jitted.trace(*shapes, *shared).lower()


def _vectorised(program: Callable[..., Any], lanes: int) -> Callable[..., Any]:
    if lanes > 1:
        return jax.vmap(program, in_axes=(0, 0, None, None, None))

    def single(lane: Any, state: Any, *shared: Any) -> Any:
        return jax.tree.map(
            lambda leaf: leaf[None], program(*jax.tree.map(lambda leaf: leaf[0], (lane, state)), *shared)
        )

    return single


def spread(lanes: int, devices: int) -> int:
    """The fewest of these devices among which none has more lanes than if all had some."""
    return -(-lanes // -(-lanes // devices))


def dealt(parts: int, devices: int) -> int:
    """The most of these devices that get equally many of the parts."""
    return max(count for count in range(1, devices + 1) if parts % count == 0)
