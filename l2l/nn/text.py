"""Models of text: symbols in, and text out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import Statistic


class Spelled(nnx.Module):
    """A model that takes raw symbols: each becomes its place in the alphabet that is carried along.

    One that the alphabet has not is taken for the next in it.
    """

    def __init__(self, model: nnx.Module, symbols: Any) -> None:
        self.symbols = Statistic(jnp.asarray(symbols, jnp.int32))
        self.model = model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Symbols `[B, L]` (code points, or bytes) to the model's logits."""
        symbols = self.symbols[...]
        places = jnp.searchsorted(symbols, jnp.asarray(x).astype(jnp.int32), method="compare_all")
        return self.model(jnp.minimum(places, len(symbols) - 1))  # pyright: ignore
