"""The policy that reads the search so far: a decoder over the decisions that also attends to past trials.

Source: Vaswani et al. 2017, Attention Is All You Need, NeurIPS, section 3 (the decoder); Chen et al. 2022, Towards
Learning Universal Hyperparameter Optimizers with Transformers, NeurIPS, section 4 (past trials as input).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import InputError, check_integer
from l2l.searchers.controllers.policy import Experience, check_temperature, compute_entropy, log_softmax, sample_codes
from l2l.searchers.core.points import is_active
from l2l.types import Array, Key

MAX_ADVANTAGE = 3.0
"""Advantages are clipped to this size before they are read."""


class TransformerParams(NamedTuple):
    """The token K of an embedding is that of an inactive decision."""

    embedding: Array
    """[D, K + 1, U]: the code chosen at decision d."""
    position: Array
    """[D, U]: the decision that is being made."""
    trial: Array
    """[2, U]: weights of a past trial's advantage and age."""
    attention: Array
    """[layers, U, 4U]: query, key, value and output of each layer."""
    wide: Array
    """[layers, U, 4U]"""
    narrow: Array
    """[layers, 4U, U]"""
    head: Array
    """[D, U, K]: each decision's own softmax weights."""
    head_bias: Array
    """[D, K]"""


class Memory(NamedTuple):
    """Keys and values of R past trials at each decision, for each layer."""

    keys: Array
    """[layers, R, D, U]"""
    values: Array
    """[layers, R, D, U]"""
    mask: Array
    """[R]: False where there is no trial yet."""


@dataclass(frozen=True)
class Transformer:
    """Softmaxes that see every earlier decision of the candidate, and the decisions of the last trials.

    Of each past trial a decision sees its own code there and the mean of the codes before it.

    Raises: InputError if a size is below 1, the units are no multiple of the heads, or the context is below 0.
    """

    units: int = 32
    layers: int = 2
    heads: int = 2
    context: int = 64
    """Past trials that it reads."""
    temperature: float = 1.0
    """Divides the logits: above 1 it samples more evenly."""

    def __post_init__(self) -> None:
        for name, low in (("units", 1), ("layers", 1), ("heads", 1), ("context", 0)):
            check_integer(f"a Transformer's {name}", getattr(self, name), low)
        if self.units % self.heads:
            raise InputError(f"a Transformer's units must be a multiple of its heads ({self.heads}), got {self.units}.")
        check_temperature("a Transformer", self.temperature)

    def init(self, domain: Domain, key: Key) -> TransformerParams:
        """Weights sampled uniformly, scaled to the width of each layer's input; the softmaxes start nearly uniform."""
        (d, k), h, g = domain.valid.shape, self.units, self.layers
        shapes = [(d, k + 1, h), (d, h), (2, h), (g, h, 4 * h), (g, h, 4 * h), (g, 4 * h, h), (d, h, k), (d, k)]
        scales = [1, 1, 1, (3 / h) ** 0.5, (3 / h) ** 0.5, (0.75 / h) ** 0.5, 0.01, 0]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        # One call of the generator for all of them, since a call with another shape compiles another program.
        uniforms = jax.random.uniform(key, (int(ends[-1]),), minval=-1, maxval=1)
        parts = jnp.split(uniforms, ends[:-1])
        weights = (part.reshape(shape) * scale for part, shape, scale in zip(parts, shapes, scales, strict=True))
        return TransformerParams(*weights)

    def sample(
        self, params: TransformerParams, domain: Domain, uniforms: Array, past: Experience
    ) -> tuple[Array, Array]:
        """Codes [N, D] by uniforms [N, D], decision after decision, and their log-probability [N]."""
        (count, size), width = uniforms.shape, domain.valid.shape[1]
        memory, decisions = self._read_past(params, domain, past), jnp.arange(size)

        def step(carry: tuple[Array, ...], inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
            keys, values, before, codes = carry
            d, position, embedding, head, head_bias, valid, allowed, past_keys, past_values, uniform = inputs
            past_here = Memory(past_keys[:, :, None], past_values[:, :, None], memory.mask)
            states = (position + before)[:, None]
            states, keys, values = self._layers(params, states, d, keys, values, past_here)
            log_probs = log_softmax((states[:, 0] @ head + head_bias) / self.temperature, valid)
            code = sample_codes(log_probs, valid, uniform)
            codes = codes.at[:, d].set(code)
            # Conditions name earlier decisions only, so codes that are not sampled yet do not matter.
            mask = allowed[decisions, codes].all(-1)
            chosen = jnp.take_along_axis(log_probs, code[:, None], axis=1)[:, 0]
            return (keys, values, embedding[jnp.where(mask, code, width)], codes), chosen * mask

        empty = jnp.zeros((self.layers, count, size, self.units))
        start = (empty, empty, jnp.zeros((count, self.units)), jnp.zeros((count, size), jnp.int32))
        rows = (decisions, params.position, params.embedding, params.head, params.head_bias)
        masks = (jnp.asarray(domain.valid), jnp.asarray(domain.allowed))
        past_arrays = (jnp.moveaxis(memory.keys, 2, 0), jnp.moveaxis(memory.values, 2, 0))
        (*_, codes), log_prob = jax.lax.scan(step, start, (*rows, *masks, *past_arrays, uniforms.T))
        return codes, log_prob.sum(0)

    def score(self, params: TransformerParams, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N] of the active decisions in codes [N, D], all of them at once."""
        memory = self._read_past(params, domain, past)
        masks = is_active(domain, codes)
        embedded = self._embed_codes(params, domain, codes)
        before = jnp.concatenate([jnp.zeros_like(embedded[:, :1]), embedded[:, :-1]], 1)
        empty = jnp.zeros((self.layers, *before.shape))
        states, _, _ = self._layers(params, params.position + before, jnp.int32(0), empty, empty, memory)
        logits = jnp.einsum("ndh,dhk->ndk", states, params.head) + params.head_bias
        log_probs = log_softmax(logits / self.temperature, jnp.asarray(domain.valid))
        chosen = jnp.take_along_axis(log_probs, codes[..., None], axis=-1)[..., 0]
        return (chosen * masks).sum(-1), (compute_entropy(log_probs) * masks).sum(-1)

    def _embed_codes(self, params: TransformerParams, domain: Domain, codes: Array) -> Array:
        """Codes [N, D] as vectors [N, D, U]."""
        tokens = jnp.where(is_active(domain, codes), codes, domain.valid.shape[1])
        return params.embedding[jnp.arange(codes.shape[1]), tokens]

    def _read_past(self, params: TransformerParams, domain: Domain, past: Experience) -> Memory:
        """The last trials: at each decision the code chosen there, the mean of those before it, advantage and age."""
        past = jax.tree.map(lambda leaf: leaf[max(len(leaf) - self.context, 0) :], past)
        count, size = past.codes.shape
        embedded = self._embed_codes(params, domain, past.codes)
        before = (jnp.cumsum(embedded, 1) - embedded) / jnp.maximum(jnp.arange(size), 1)[:, None]
        advantage = jnp.clip(jnp.where(past.mask, past.advantages, 0), -MAX_ADVANTAGE, MAX_ADVANTAGE)
        age = (count - jnp.arange(count)) / max(count, 1)
        states = embedded + before + (jnp.stack([advantage, age], 1) @ params.trial)[:, None] + params.position
        _, keys, values, _ = jnp.split(normalise(states) @ params.attention[:, None], 4, axis=-1)
        return Memory(keys, values, past.mask)

    def _layers(
        self, params: TransformerParams, states: Array, first: Array, keys: Array, values: Array, memory: Memory
    ) -> tuple[Array, Array, Array]:
        """Runs states [N, decisions, U] from decision `first` on; `keys` and `values` [layers, N, D, U] are a cache."""
        decisions = first + jnp.arange(states.shape[1])
        causal = jnp.arange(keys.shape[2]) <= decisions[:, None]
        shape = (len(decisions), len(memory.mask))
        mask = jnp.concatenate([causal, jnp.broadcast_to(memory.mask, shape)], 1)  # [decisions, D + R]
        for layer in range(self.layers):
            query, key, value, _ = jnp.split(normalise(states) @ params.attention[layer], 4, axis=-1)
            keys = jax.lax.dynamic_update_slice(keys, key[None], (layer, 0, first, 0))
            values = jax.lax.dynamic_update_slice(values, value[None], (layer, 0, first, 0))
            past = memory.keys[layer], memory.values[layer]
            attended = self._attend(query, (keys[layer], values[layer]), past, mask)
            states = states + attended @ params.attention[layer, :, 3 * self.units :]
            states = states + jax.nn.gelu(normalise(states) @ params.wide[layer]) @ params.narrow[layer]
        return normalise(states), keys, values

    def _attend(self, query: Array, decisions: tuple[Array, Array], past: tuple[Array, Array], mask: Array) -> Array:
        """Attention of queries [N, decisions, U] over earlier decisions and past trials.

        The mask [decisions, D + R] is True where there is something to see.

        `decisions` are keys and values [N, D, U], `past` those [R, decisions, U].
        """

        def split_heads(leaf: Array) -> Array:
            return leaf.reshape(*leaf.shape[:-1], self.heads, self.units // self.heads)

        query, keys, values, past_keys, past_values = map(split_heads, (query, *decisions, *past))
        near = jnp.einsum("ntae,ndae->natd", query, keys)
        far = jnp.einsum("ntae,rtae->natr", query, past_keys)
        logits = jnp.concatenate([near, far], -1) / query.shape[-1] ** 0.5
        # A decision always sees itself, so that nothing is divided by 0.
        weights = jax.nn.softmax(jnp.where(mask, logits, -1e9))
        near, far = jnp.split(weights, [keys.shape[1]], -1)
        attended = jnp.einsum("natd,ndae->ntae", near, values) + jnp.einsum("natr,rtae->ntae", far, past_values)
        return attended.reshape(*attended.shape[:2], self.units)


def normalise(states: Array) -> Array:
    """Scales vectors [..., U] to a mean square of 1."""
    return states * jax.lax.rsqrt((states * states).mean(-1, keepdims=True) + 1e-6)
