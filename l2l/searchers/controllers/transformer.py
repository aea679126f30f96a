"""The policy that reads the search so far: a decoder over the decisions that also attends over the trials told.

Source: Vaswani et al. 2017, Attention Is All You Need, NeurIPS, section 3 (the decoder); Chen et al. 2022, Towards
Learning Universal Hyperparameter Optimizers with Transformers, NeurIPS, section 4 (past trials as what it reads).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import InputError
from l2l.searchers.controllers.policy import Experience, check_temperature, compute_entropy, log_softmax, sample_codes
from l2l.searchers.core.points import is_active
from l2l.types import Array, Key

FAR = 3.0
"""An advantage beyond it is read as this much."""


class TransformerParams(NamedTuple):
    """The letters: H units, G layers; K stands for the token of an inactive decision."""

    embedding: Array
    """[D, K + 1, H]: what was chosen at decision d."""
    position: Array
    """[D, H]: which decision is to be made."""
    trial: Array
    """[2, H]: how good a trial was, and how long ago."""
    attention: Array
    """[G, H, 4H]: query, key, value and output of each layer."""
    wide: Array
    """[G, H, 4H]"""
    narrow: Array
    """[G, 4H, H]"""
    head: Array
    """[D, H, K]: each decision's own softmax weights."""
    head_bias: Array
    """[D, K]"""


class Memory(NamedTuple):
    """R trials as each layer sees them at each decision."""

    keys: Array
    """[G, R, D, H]"""
    values: Array
    """[G, R, D, H]"""
    filled: Array
    """[R]"""


@dataclass(frozen=True)
class Transformer:
    """Softmaxes that see every earlier decision, and of the last trials what they chose, before it and in its place.

    Raises: InputError if a size is below 1, the units cannot be parted among the heads, or the context is below 0.
    """

    units: int = 32
    layers: int = 2
    heads: int = 2
    context: int = 64
    """Trials that it reads."""
    temperature: float = 1.0
    """What logits are divided by: above 1 it draws more evenly."""

    def __post_init__(self) -> None:
        for name, low in (("units", 1), ("layers", 1), ("heads", 1), ("context", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise InputError(f"a Transformer's {name} must be a whole number of at least {low}, got {value!r}.")
        if self.units % self.heads:
            raise InputError(f"a Transformer's units must be a multiple of its heads ({self.heads}), got {self.units}.")
        check_temperature("a Transformer", self.temperature)

    def init(self, domain: Domain, key: Key) -> TransformerParams:
        """Weights drawn uniformly, each layer's output as wide as its input; nearly uniform softmaxes."""
        (d, k), h, g = domain.valid.shape, self.units, self.layers
        shapes = [(d, k + 1, h), (d, h), (2, h), (g, h, 4 * h), (g, h, 4 * h), (g, 4 * h, h), (d, h, k), (d, k)]
        scales = [1, 1, 1, (3 / h) ** 0.5, (3 / h) ** 0.5, (0.75 / h) ** 0.5, 0.01, 0]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        # One draw for all of them: each call of the generator with a new shape would compile.
        drawn = jax.random.uniform(key, (int(ends[-1]),), minval=-1, maxval=1)
        parts = jnp.split(drawn, ends[:-1])
        made = (part.reshape(shape) * scale for part, shape, scale in zip(parts, shapes, scales, strict=True))
        return TransformerParams(*made)

    def sample(
        self, params: TransformerParams, domain: Domain, uniforms: Array, past: Experience
    ) -> tuple[Array, Array]:
        """Codes [N, D] by uniforms [N, D], decision after decision, and their log-probability [N]."""
        (count, size), width = uniforms.shape, domain.valid.shape[1]
        memory, decisions = self._memory(params, domain, past), jnp.arange(size)

        def step(carry: tuple[Array, ...], each: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
            keys, values, before, codes = carry
            d, position, embedding, head, head_bias, valid, allowed, old_keys, old_values, uniform = each
            here = Memory(old_keys[:, :, None], old_values[:, :, None], memory.filled)
            states = (position + before)[:, None]
            states, keys, values = self._layers(params, states, d, keys, values, here)
            log_probs = log_softmax((states[:, 0] @ head + head_bias) / self.temperature, valid)
            picked = sample_codes(log_probs, valid, uniform)
            codes = codes.at[:, d].set(picked)
            # Conditions name earlier decisions only, so what is not drawn yet cannot matter.
            mask = allowed[decisions, codes].all(-1)
            chosen = jnp.take_along_axis(log_probs, picked[:, None], axis=1)[:, 0]
            return (keys, values, embedding[jnp.where(mask, picked, width)], codes), chosen * mask

        empty = jnp.zeros((self.layers, count, size, self.units))
        start = (empty, empty, jnp.zeros((count, self.units)), jnp.zeros((count, size), jnp.int32))
        rows = (decisions, params.position, params.embedding, params.head, params.head_bias)
        masks = (jnp.asarray(domain.valid), jnp.asarray(domain.allowed))
        olds = (jnp.moveaxis(memory.keys, 2, 0), jnp.moveaxis(memory.values, 2, 0))
        (*_, codes), log_prob = jax.lax.scan(step, start, (*rows, *masks, *olds, uniforms.T))
        return codes, log_prob.sum(0)

    def score(self, params: TransformerParams, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N] of the active decisions in codes [N, D], all of them at once."""
        memory = self._memory(params, domain, past)
        masks = is_active(domain, codes)
        made = self._made(params, domain, codes)
        before = jnp.concatenate([jnp.zeros_like(made[:, :1]), made[:, :-1]], 1)
        empty = jnp.zeros((self.layers, *before.shape))
        states, _, _ = self._layers(params, params.position + before, jnp.int32(0), empty, empty, memory)
        logits = jnp.einsum("ndh,dhk->ndk", states, params.head) + params.head_bias
        log_probs = log_softmax(logits / self.temperature, jnp.asarray(domain.valid))
        chosen = jnp.take_along_axis(log_probs, codes[..., None], axis=-1)[..., 0]
        return (chosen * masks).sum(-1), (compute_entropy(log_probs) * masks).sum(-1)

    def _made(self, params: TransformerParams, domain: Domain, codes: Array) -> Array:
        """Codes [N, D] as vectors [N, D, H]."""
        tokens = jnp.where(is_active(domain, codes), codes, domain.valid.shape[1])
        return params.embedding[jnp.arange(codes.shape[1]), tokens]

    def _memory(self, params: TransformerParams, domain: Domain, past: Experience) -> Memory:
        """The last trials: at each decision what a trial chose there, on average before it, and what came of it."""
        past = jax.tree.map(lambda leaf: leaf[max(len(leaf) - self.context, 0) :], past)
        room, size = past.codes.shape
        made = self._made(params, domain, past.codes)
        earlier = (jnp.cumsum(made, 1) - made) / jnp.maximum(jnp.arange(size), 1)[:, None]
        good = jnp.clip(jnp.where(past.filled, past.advantages, 0), -FAR, FAR)
        age = (room - jnp.arange(room)) / max(room, 1)
        states = made + earlier + (jnp.stack([good, age], 1) @ params.trial)[:, None] + params.position
        _, keys, values, _ = jnp.split(normed(states) @ params.attention[:, None], 4, axis=-1)
        return Memory(keys, values, past.filled)

    def _layers(
        self, params: TransformerParams, states: Array, first: Array, keys: Array, values: Array, memory: Memory
    ) -> tuple[Array, Array, Array]:
        """Decisions from `first` on, [N, T, H], through all layers; keys and values [G, N, D, H] are those so far."""
        here = first + jnp.arange(states.shape[1])
        causal = jnp.arange(keys.shape[2]) <= here[:, None]
        shape = (len(here), len(memory.filled))
        seen = jnp.concatenate([causal, jnp.broadcast_to(memory.filled, shape)], 1)  # [T, D + R]
        for layer in range(self.layers):
            query, key, value, _ = jnp.split(normed(states) @ params.attention[layer], 4, axis=-1)
            keys = jax.lax.dynamic_update_slice(keys, key[None], (layer, 0, first, 0))
            values = jax.lax.dynamic_update_slice(values, value[None], (layer, 0, first, 0))
            olds = memory.keys[layer], memory.values[layer]
            read = self._attended(query, (keys[layer], values[layer]), olds, seen)
            states = states + read @ params.attention[layer, :, 3 * self.units :]
            states = states + jax.nn.gelu(normed(states) @ params.wide[layer]) @ params.narrow[layer]
        return normed(states), keys, values

    def _attended(self, query: Array, own: tuple[Array, Array], olds: tuple[Array, Array], seen: Array) -> Array:
        """What queries [N, T, H] read of earlier decisions [N, D, H] and of trials [R, T, H], where seen [T, D + R]."""

        def split_heads(each: Array) -> Array:
            return each.reshape(*each.shape[:-1], self.heads, self.units // self.heads)

        query, keys, values, old_keys, old_values = map(split_heads, (query, *own, *olds))
        near = jnp.einsum("ntae,ndae->natd", query, keys)
        far = jnp.einsum("ntae,rtae->natr", query, old_keys)
        logits = jnp.concatenate([near, far], -1) / query.shape[-1] ** 0.5
        # A decision always sees itself, so that nothing is divided by 0.
        weights = jax.nn.softmax(jnp.where(seen, logits, -1e9))
        near, far = jnp.split(weights, [keys.shape[1]], -1)
        read = jnp.einsum("natd,ndae->ntae", near, values) + jnp.einsum("natr,rtae->ntae", far, old_values)
        return read.reshape(*read.shape[:2], self.units)


def normed(states: Array) -> Array:
    """Vectors [..., H] with a mean square of 1."""
    return states * jax.lax.rsqrt((states * states).mean(-1, keepdims=True) + 1e-6)
