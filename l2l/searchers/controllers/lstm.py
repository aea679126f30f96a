"""The autoregressive policy: an LSTM reads the decisions made so far and emits the next one's softmax.

Source: Zoph and Le 2017, Neural Architecture Search with Reinforcement Learning, ICLR, sections 3.1 and 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.errors import check_integer, check_number
from l2l.searchers.controllers.policy import Experience, check_temperature, compute_entropy, log_softmax, sample_codes
from l2l.types import Array, Key


class LstmParams(NamedTuple):
    """The token K of an embedding is that of an inactive decision."""

    embedding: Array
    """[D, K + 1, U]: row d embeds the decision before d; its last token, at row 0, is the start."""
    kernel: Array
    """[layers, 2U, 4U]: input, forget, cell and output gate of each layer."""
    bias: Array
    """[layers, 4U]"""
    head: Array
    """[D, U, K]: each decision's own softmax weights."""
    head_bias: Array
    """[D, K]"""


@dataclass(frozen=True)
class Lstm:
    """Softmaxes that see every earlier decision, so that the policy can prefer combinations.

    Raises: InputError if a size is below 1 or the initial range is not above 0.
    """

    units: int = 35
    layers: int = 2
    scale: float = 0.08
    """All weights start uniformly in [-scale, scale]."""
    temperature: float = 1.0
    """Divides the logits: above 1 it samples more evenly."""
    context = 0

    def __post_init__(self) -> None:
        for name in ("units", "layers"):
            check_integer(f"an Lstm's {name}", getattr(self, name), 1)
        check_number("an Lstm's scale", self.scale, above=0)
        check_temperature("an Lstm", self.temperature)

    def init(self, domain: Domain, key: Key) -> LstmParams:
        """Weights sampled uniformly in [-scale, scale]."""
        (d, k), h, g = domain.valid.shape, self.units, self.layers
        shapes = [(d, k + 1, h), (g, 2 * h, 4 * h), (g, 4 * h), (d, h, k), (d, k)]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        # One call of the generator for all of them, since a call with another shape compiles another program.
        weights = jax.random.uniform(key, (int(ends[-1]),), minval=-self.scale, maxval=self.scale)
        parts = jnp.split(weights, ends[:-1])
        return LstmParams(*(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)))

    def sample(self, params: LstmParams, domain: Domain, uniforms: Array, past: Experience) -> tuple[Array, Array]:
        """Codes [N, D] by uniforms [N, D], decision after decision, and their log-probability [N]."""
        return self._unroll(params, domain, jnp.zeros(uniforms.shape, jnp.int32), uniforms)[:2]

    def score(self, params: LstmParams, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N] of the decisions that are active in codes [N, D]."""
        return self._unroll(params, domain, codes, None)[1:]

    def _unroll(
        self, params: LstmParams, domain: Domain, codes: Array, uniforms: Array | None
    ) -> tuple[Array, Array, Array]:
        """Walks the decisions: with uniforms [N, D] it samples the codes, without it scores codes [N, D]."""
        count, width = len(codes), domain.valid.shape[1]
        decisions = jnp.arange(codes.shape[1])

        def step(carry: tuple[Array, ...], inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
            hidden, cell, token, codes = carry
            d, embedding, head, head_bias, valid, allowed = inputs
            hidden, cell = self._layers(params, embedding[token], hidden, cell)
            log_probs = log_softmax((hidden[-1] @ head + head_bias) / self.temperature, valid)
            if uniforms is not None:
                codes = codes.at[:, d].set(sample_codes(log_probs, valid, uniforms[:, d]))
            # Conditions name earlier decisions only, so codes that are not sampled yet do not matter.
            mask = allowed[decisions, codes].all(-1)
            chosen = jnp.take_along_axis(log_probs, codes[:, d, None], axis=1)[:, 0]
            token = jnp.where(mask, codes[:, d], width)
            return (hidden, cell, token, codes), (chosen * mask, compute_entropy(log_probs) * mask)

        zeros = jnp.zeros((self.layers, count, self.units))
        start = (zeros, zeros, jnp.full(count, width), codes)
        rows = (decisions, params.embedding, params.head, params.head_bias, jnp.asarray(domain.valid))
        (*_, codes), (log_prob, entropies) = jax.lax.scan(step, start, (*rows, jnp.asarray(domain.allowed)))
        return codes, log_prob.sum(0), entropies.sum(0)

    def _layers(self, params: LstmParams, inputs: Array, hidden: Array, cell: Array) -> tuple[Array, Array]:
        """One step of every layer: inputs [N, U], hidden and cell [layers, N, U]."""
        hiddens: list[Array] = []
        cells: list[Array] = []
        for layer in range(self.layers):
            gates = jnp.concatenate([inputs, hidden[layer]], -1) @ params.kernel[layer] + params.bias[layer]
            into, forget, new, out = jnp.split(gates, 4, axis=-1)
            cells.append(jax.nn.sigmoid(forget) * cell[layer] + jax.nn.sigmoid(into) * jnp.tanh(new))
            inputs = jax.nn.sigmoid(out) * jnp.tanh(cells[-1])
            hiddens.append(inputs)
        return jnp.stack(hiddens), jnp.stack(cells)
