"""Which expert each token goes to, and with what weight."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import chosen
from l2l.nn.dropout import DropoutState, uniform
from l2l.nn.initial import lecun_normal
from l2l.nn.padded import Padded, Picked, Selector, bound, named, number, size

ROUTERS = ("softmax", "noisy", "sigmoid", "expert_choice")
UNUSED = -1e30
"""The logit of an expert that is padding: finite, so that no slope is undefined."""


class Routes(NamedTuple):
    """Entries, tokens on their way to an expert: `[G, n]` each; a group is a sequence."""

    expert: jax.Array
    """E where there is none."""
    token: jax.Array
    """Its place in the group."""
    weight: jax.Array


class Router(nnx.Module):
    """Sends each token to `k` of the `experts`, by a linear map of it.

    softmax: weights are probabilities among all experts. noisy: among the chosen ones, with learnt noise on the
    logits in training. sigmoid: each expert's on its own. expert_choice: each expert takes the `k * L / experts`
    tokens of a group that it has the largest probability for, which looks ahead.

    Sizes may be `Padded`; `k` and the kind `Picked`.

    Raises: ValueError if there are fewer experts than `k`, or the kind is unknown.
    Source: Fedus et al. 2021, Switch Transformer, arXiv:2101.03961, equation 2; Shazeer et al. 2017,
        arXiv:1701.06538, equations 3 to 5; Csordás et al. 2023, arXiv:2310.10837, section 5; Zhou et al. 2022,
        arXiv:2202.09368, section 3.2.
    """

    def __init__(
        self, features: int | Padded, experts: int | Padded, *, k: int | Picked, kind: str | Picked, rngs: nnx.Rngs
    ) -> None:
        self.most = max(k.options) if isinstance(k, Picked) else k
        if self.most < 1 or (isinstance(experts, int) and self.most > experts):
            raise ValueError(
                f"k={self.most} experts a token: expected from 1 to the number of experts, {size(experts)}"
            )
        self.kind = chosen("router", kind, ROUTERS)
        self.kinds = kind.options if isinstance(kind, Picked) else (kind,)
        self.k, self.experts = Selector(k) if isinstance(k, Picked) else k, bound(experts)
        shape = (size(features), size(experts))
        self.kernel = nnx.Param(lecun_normal(rngs.params(), shape))
        self.noise = nnx.Param(jnp.zeros(shape)) if "noisy" in self.kinds else None
        self.seed = DropoutState(jax.random.key_data(rngs.dropout()).reshape(-1)[-1])
        self.calls = DropoutState(jnp.zeros((), jnp.uint32))
        self.deterministic = False

    @property
    def looks_ahead(self) -> bool:
        """Whether a token's experts may hang on later tokens."""
        return "expert_choice" in self.kinds

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> tuple[jax.Array, Routes]:
        """Tokens `[G, L, C]` to logits `[G, L, E]`, in float32 at least, and routes.

        Entries are in the order of tokens, and of the largest logit within one; under expert_choice in that of experts.
        """
        kind = jnp.promote_types(x.dtype, jnp.float32)
        wide = x.astype(kind)
        logits = selection = wide @ self.kernel[...].astype(kind)
        if self.noise is not None and not self.deterministic:
            draw = uniform(self.seed[...], self.calls[...], logits.shape)
            self.calls[...] = self.calls[...] + jnp.uint32(1)
            normal = jnp.sqrt(2.0) * jax.lax.erf_inv(jnp.clip(2.0 * draw - 1.0, -0.999999, 0.999999))
            noise = normal.astype(kind) * jax.nn.softplus(wide @ self.noise[...].astype(kind))
            selection = jnp.where(named(self.kind, "noisy"), logits + noise, logits)
        unused = jnp.arange(logits.shape[-1]) >= number(self.experts)
        logits, selection = (jnp.where(unused, UNUSED, each) for each in (logits, selection))
        if self.kinds == ("expert_choice",):
            return logits, self._taken(logits, mask)
        if not self.looks_ahead:
            return logits, self._sent(logits, selection, mask)
        chooses = named(self.kind, "expert_choice")
        sent = self._sent(logits, selection, mask)
        return logits, jax.lax.cond(chooses, lambda: self._taken(logits, mask), lambda: sent)

    def _sent(self, logits: jax.Array, selection: jax.Array, mask: jax.Array | None) -> Routes:
        """Each token to the experts of its largest logits."""
        groups, length, experts = logits.shape
        loudest, expert = jax.lax.top_k(selection, self.most)
        used = jnp.arange(self.most) < number(self.k)
        clear = jnp.take_along_axis(logits, expert, -1)
        found = {
            "softmax": jnp.exp(clear - jax.nn.logsumexp(logits, -1, keepdims=True)),
            "noisy": jax.nn.softmax(jnp.where(used, loudest, UNUSED), -1),
            "sigmoid": jax.nn.sigmoid(clear),
        }
        weights = [found.get(name, clear) for name in self.kinds]
        weight = jax.lax.select_n(self.kind.index[...], *weights) if isinstance(self.kind, Selector) else weights[0]
        goes = jnp.broadcast_to(used, expert.shape) & (True if mask is None else mask[..., None])
        token = jnp.broadcast_to(jnp.arange(length)[:, None], expert.shape)
        made = [jnp.where(goes, expert, experts), token, jnp.where(goes, weight, 0.0)]
        more = experts if self.looks_ahead else 0
        rest = ((0, 0), (0, more))
        return Routes(*[
            jnp.pad(each.reshape(groups, -1), rest, constant_values=fill)
            for each, fill in zip(made, (experts, 0, 0), strict=True)
        ])  # fmt: skip

    def _taken(self, logits: jax.Array, mask: jax.Array | None) -> Routes:
        """To each expert the tokens of its largest probabilities."""
        groups, length, experts = logits.shape
        places = capacity(number(self.k), length, 1.0, number(self.experts))
        entries = experts * places if isinstance(places, int) else self.most * length + experts
        probabilities = jax.nn.softmax(logits, -1)
        liked = probabilities if mask is None else jnp.where(mask[..., None], probabilities, -1.0)
        order = jnp.argsort(-liked, 1, stable=True)
        entry = jnp.arange(entries)
        expert = entry // places
        mine = jnp.minimum(expert, experts - 1)
        token = order[:, jnp.minimum(entry % places, length - 1), mine]
        weight = probabilities[jnp.arange(groups)[:, None], token, mine]
        goes = (expert < number(self.experts)) & (entry % places < length)
        goes = jnp.broadcast_to(goes, token.shape) & (True if mask is None else jnp.take_along_axis(mask, token, 1))
        return Routes(jnp.where(goes, expert, experts).astype(jnp.int32), token, jnp.where(goes, weight, 0.0))

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """How much each expert is liked, `[..., E]`, of sum 1."""
        alone = jax.nn.sigmoid(logits)
        alone = alone / jnp.maximum(jnp.sum(alone, -1, keepdims=True), 1e-9)
        return jnp.where(named(self.kind, "sigmoid"), alone, jax.nn.softmax(logits, -1))


def capacity(k: Any, length: int, factor: Any, experts: Any) -> Any:
    """Tokens of a group of `length` that an expert has room for, at least 1: a number, or data if one is given."""
    if all(isinstance(each, int | float) for each in (k, factor, experts)):
        return max(math.ceil(k * length * factor / experts - 1e-4), 1)
    # The same in float32: what is whole must not be rounded up because of the last digit.
    return jnp.maximum(jnp.ceil(k * length * jnp.float32(factor) / experts - 1e-4), 1.0).astype(jnp.int32)


def balance(probabilities: jax.Array, share: jax.Array, experts: Any) -> jax.Array:
    """How unevenly the experts are used, `[]`; 1 if evenly: from mean probabilities and shares of entries, `[E]` each.

    Source: Switch Transformer, equations 4 to 6, without the factor alpha.
    """
    return experts * jnp.sum(probabilities * jax.lax.stop_gradient(share))


def z_loss(logits: jax.Array, weight: jax.Array) -> jax.Array:
    """The mean square of the logits' normaliser, `[]`, of logits `[..., E]` with weights `[...]`.

    Source: Zoph et al. 2022, ST-MoE, arXiv:2202.08906, equation 5.
    """
    return jnp.sum(weight * jax.nn.logsumexp(logits, -1) ** 2) / jnp.maximum(jnp.sum(weight), 1.0)
