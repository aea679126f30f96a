"""Run in a process with four host devices: experts on their own device give what they give together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec

from l2l.nn.moe import MixtureOfExperts


def main() -> None:
    """Prints the largest difference of outputs and of gradients by weights, as shares of the largest number."""
    options = {"experts": 8, "width": 16, "k": 2, "room": 1.0, "shared": True}
    whole = MixtureOfExperts(12, rngs=nnx.Rngs(0), **options)
    parted = MixtureOfExperts(12, rngs=nnx.Rngs(0), axis="experts", **options)
    whole.train()
    parted.train()
    x = jax.random.normal(jax.random.key(1), (3, 20, 12))
    params = nnx.state(whole, nnx.Param)
    specs = jax.tree.map_with_path(
        lambda path, _: PartitionSpec("experts") if str(path[0].key) in ("inner", "outer") else PartitionSpec(), params
    )
    mesh = Mesh(np.array(jax.devices()), ("experts",))

    def loss(layer: MixtureOfExperts, params: nnx.State, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        graph, _, rest = nnx.split(layer, nnx.Param, ...)
        module = nnx.merge(graph, params, rest, copy=True)
        y = module(x)
        return jnp.sum(y**2) + module.penalty[...], (y, module.drop_rate[...])

    def run(params: nnx.State, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        return loss(parted, params, x)

    sharded = jax.shard_map(run, mesh=mesh, in_specs=(specs, PartitionSpec()), out_specs=PartitionSpec())
    (_, (y, drops)), gradients = jax.jit(jax.value_and_grad(sharded, has_aux=True))(params, x)
    (_, (other_y, other_drops)), others = jax.value_and_grad(lambda *a: loss(whole, *a), has_aux=True)(params, x)
    assert len(gradients["inner"][...].sharding.device_set) == 4
    pairs = [(y, other_y), (drops, other_drops)]
    pairs += list(zip(jax.tree.leaves(gradients), jax.tree.leaves(others), strict=True))
    print(max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs))


if __name__ == "__main__":
    main()
