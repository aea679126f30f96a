"""Which expert each token goes to, and with what weight."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.dropout import DropoutState, sample_uniform
from l2l.nn.initial import lecun_normal
from l2l.nn.length import Length
from l2l.nn.number import Number
from l2l.nn.option import Option

ROUTERS = ("softmax", "noisy", "sigmoid", "expert_choice")
UNUSED = -1e30
"""The logit of an expert that is padding: finite, so that every gradient is defined."""


class Routes(NamedTuple):
    """Entries, tokens on their way to an expert: `[B, entries]` each; a sequence of the batch is a group."""

    expert: jax.Array
    """E where there is none."""
    token: jax.Array
    """Its index in the group."""
    weight: jax.Array


class Router(nnx.Module):
    """Sends each token to `k` of the `experts`, by a linear map of it.

    softmax: weights are probabilities among all experts. noisy: among the k of the token, with learnt noise on the
    logits in training. sigmoid: each expert's on its own. expert_choice: each expert takes the `k * L / experts`
    tokens of a group that it has the largest probability for, which looks ahead.

    Raises: ValueError if there are fewer experts than `k`, or the kind is unknown.
    Source: Fedus et al. 2021, Switch Transformer, arXiv:2101.03961, equation 2; Shazeer et al. 2017,
        arXiv:1701.06538, equations 3 to 5; Csordás et al. 2023, arXiv:2310.10837, section 5; Zhou et al. 2022,
        arXiv:2202.09368, section 3.2.
    """

    def __init__(
        self, features: int | Length, experts: int | Length, *, k: int | Option, kind: str | Option, rngs: nnx.Rngs
    ) -> None:
        self.k, self.experts = Option.of(k), Length.of(experts)
        self.most = max(self.k.options)
        if self.most < 1 or (self.experts.is_plain and self.most > self.experts.size):
            raise ValueError(
                f"k={self.most} experts a token: expected from 1 to the number of experts, {self.experts.size}"
            )
        self.kind = Option.of(kind).check("router", ROUTERS)
        shape = (Length.of(features).size, self.experts.size)
        self.kernel = nnx.Param(lecun_normal(rngs.params(), shape))
        self.noise = nnx.Param(jnp.zeros(shape)) if self.kind.can_be("noisy") else None
        self.seed = DropoutState(jax.random.key_data(rngs.dropout()).reshape(-1)[-1])
        self.calls = DropoutState(jnp.zeros((), jnp.uint32))
        self.deterministic = False

    @property
    def looks_ahead(self) -> bool:
        """Whether a token's experts may depend on later tokens."""
        return self.kind.can_be("expert_choice")

    @property
    def only_experts_choose(self) -> bool:
        """Whether expert_choice is the only kind of the program."""
        return self.kind.options == ("expert_choice",)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array, Routes]:
        """Tokens `[B, L, F]` to logits `[B, L, E]`, in float32 at least, and routes.

        Entries are in the order of tokens, and of the largest logit within one; under expert_choice in that of experts.
        """
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        tokens = x.astype(dtype)
        logits = selection = tokens @ self.kernel[...].astype(dtype)
        if self.noise is not None and not self.deterministic:
            sample = sample_uniform(self.seed[...], self.calls[...], logits.shape)
            self.calls[...] = self.calls[...] + jnp.uint32(1)
            normal = jnp.sqrt(2.0) * jax.lax.erf_inv(jnp.clip(2.0 * sample - 1.0, -0.999999, 0.999999))
            noise = normal.astype(dtype) * jax.nn.softplus(tokens @ self.noise[...].astype(dtype))
            selection = jnp.where(self.kind.is_("noisy"), logits + noise, logits)
        unused = ~self.experts.mask()
        logits, selection = (jnp.where(unused, UNUSED, scores) for scores in (logits, selection))
        if self.only_experts_choose:
            return logits, self._let_experts_choose(logits, mask)
        if not self.looks_ahead:
            return logits, self._let_tokens_choose(logits, selection, mask)
        routes = self._let_tokens_choose(logits, selection, mask)
        return logits, self.kind.branch("expert_choice", lambda: self._let_experts_choose(logits, mask), lambda: routes)

    def _let_tokens_choose(self, logits: jax.Array, selection: jax.Array, mask: jax.Array | None) -> Routes:
        """Each token to the experts of its largest logits."""
        groups, length, experts = logits.shape
        largest, expert = jax.lax.top_k(selection, self.most)
        used = jnp.arange(self.most) < self.k.value
        without_noise = jnp.take_along_axis(logits, expert, -1)
        weights = {
            "softmax": jnp.exp(without_noise - jax.nn.logsumexp(logits, -1, keepdims=True)),
            "noisy": jax.nn.softmax(jnp.where(used, largest, UNUSED), -1),
            "sigmoid": jax.nn.sigmoid(without_noise),
        }
        weight = self.kind.select(lambda name: weights.get(name, without_noise))
        goes = jnp.broadcast_to(used, expert.shape) & (True if mask is None else mask[..., None])
        token = jnp.broadcast_to(jnp.arange(length)[:, None], expert.shape)
        entries = [jnp.where(goes, expert, experts), token, jnp.where(goes, weight, 0.0)]
        # Where experts may choose instead, there is room for their entries too.
        padding = ((0, 0), (0, experts if self.looks_ahead else 0))
        return Routes(*[
            jnp.pad(field.reshape(groups, -1), padding, constant_values=fill)
            for field, fill in zip(entries, (experts, 0, 0), strict=True)
        ])  # fmt: skip

    def _let_experts_choose(self, logits: jax.Array, mask: jax.Array | None) -> Routes:
        """To each expert the tokens of its largest probabilities."""
        groups, length, experts = logits.shape
        room = compute_capacity(self.k, length, Number(1.0), self.experts)
        is_plain = self.k.is_plain and self.experts.is_plain
        entries = experts * room if is_plain else self.most * length + experts
        probabilities = jax.nn.softmax(logits, -1)
        scores = probabilities if mask is None else jnp.where(mask[..., None], probabilities, -1.0)
        order = jnp.argsort(-scores, 1, stable=True)
        entry = jnp.arange(entries)
        expert = entry // room
        owner = jnp.minimum(expert, experts - 1)
        token = order[:, jnp.minimum(entry % room, length - 1), owner]
        weight = probabilities[jnp.arange(groups)[:, None], token, owner]
        goes = (expert < self.experts.active) & (entry % room < length)
        goes = jnp.broadcast_to(goes, token.shape) & (True if mask is None else jnp.take_along_axis(mask, token, 1))
        return Routes(jnp.where(goes, expert, experts).astype(jnp.int32), token, jnp.where(goes, weight, 0.0))

    def compute_probabilities(self, logits: jax.Array) -> jax.Array:
        """The probability of each expert for a token, `[..., E]`, of sum 1."""
        independent = jax.nn.sigmoid(logits)
        independent = independent / jnp.maximum(jnp.sum(independent, -1, keepdims=True), 1e-9)
        return jnp.where(self.kind.is_("sigmoid"), independent, jax.nn.softmax(logits, -1))


def compute_capacity(k: Option, length: int, factor: Number, experts: Length) -> Any:
    """Tokens of a group of `length` that an expert has room for, at least 1: an integer, or `[]` if one is data."""
    if k.is_plain and factor.is_plain and experts.is_plain:
        return max(math.ceil(k.value * length * factor.value / experts.size - 1e-4), 1)
    # The same in float32: an integer must not be rounded up because of the last digit.
    tokens = k.value * length * jnp.float32(factor.value) / experts.active
    return jnp.maximum(jnp.ceil(tokens - 1e-4), 1.0).astype(jnp.int32)


def compute_balance(probabilities: jax.Array, share: jax.Array, experts: Any) -> jax.Array:
    """How unevenly the experts are used, `[]`; 1 if evenly: from mean probabilities and shares of entries, `[E]` each.

    Source: Switch Transformer, equations 4 to 6, without the factor alpha.
    """
    return experts * jnp.sum(probabilities * jax.lax.stop_gradient(share))


def compute_z_loss(logits: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean square of the logits' normaliser, `[]`, of logits `[..., E]` with weights `[...]`.

    Source: Zoph et al. 2022, ST-MoE, arXiv:2202.08906, equation 5.
    """
    return jnp.sum(weight * jax.nn.logsumexp(logits, -1) ** 2) / jnp.maximum(jnp.sum(weight), 1.0)
