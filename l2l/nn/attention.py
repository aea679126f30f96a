"""Attention over a sequence: many heads, fewer keys than queries, everywhere, within a window, or in linear time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import chosen, norm
from l2l.nn.dropout import dropout
from l2l.nn.initial import lecun_normal
from l2l.nn.padded import Bound, Padded, Picked, Selector, bound, either, kept, named, number, size
from l2l.nn.position import POSITIONS, alibi, rotated

KINDS = ("global", "window", "linear")
CHUNK = 64
"""Tokens that linear attention compares with each other; what lies before them reaches them as a sum."""


class Attention(nnx.Module):
    """Attention of a sequence to itself.

    Of `heads` query heads, `heads / kv_heads` share a key and a value head: all different (multi-head), some
    (grouped-query), one (multi-query). `kind` is global, window (a token sees itself and the `window - 1` before it,
    and as many behind it unless `causal`) or linear. `position` is none, learned (a vector for each of `length`
    places, added to what queries and keys are made of), rotary or alibi, which linear attention cannot have.
    `query_key_norm` is none or rms; with `gate` each head's output is scaled by a sigmoid of the input.

    Dropout is applied to the output and not to the weights of attention, which a fused kernel never lays out; one is
    used if `implementation` asks for it: it is handed to `jax.nn.dot_product_attention` ("cudnn" on NVIDIA's devices in
    half precision). Sizes may be `Padded`, the window data, and every option but `causal` `Picked`.

    Raises: ValueError if a size does not fit another or an option is unknown.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; Ainslie et al. 2023, GQA, arXiv:2305.13245; Shazeer
        2019, arXiv:1911.02150; Beltagy et al. 2020, Longformer, arXiv:2004.05150, section 3.1; Katharopoulos et al.
        2020, arXiv:2006.16236, equation 7; Henry et al. 2020, arXiv:2010.04245 (normalisation); Qiu et al. 2025,
        arXiv:2505.06708 (gate).
    """

    def __init__(
        self,
        features: int | Padded,
        *,
        heads: int | Padded,
        head_size: int | Padded,
        kv_heads: int | Padded | None = None,
        kind: str | Picked = "global",
        window: Any = None,
        position: str | Picked = "rotary",
        length: int | None = None,
        query_key_norm: str | Picked = "none",
        gate: bool | Picked = False,
        causal: bool = True,
        dropout_rate: Any = 0.0,
        implementation: Literal["xla", "cudnn"] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.implementation: Literal["xla", "cudnn"] | None = implementation
        kv_heads = heads if kv_heads is None else kv_heads
        _check(heads, kv_heads, head_size, kind, window, position, length)
        self.kind, self.position = chosen("attention", kind, KINDS), chosen("position", position, POSITIONS)
        self.heads, self.kv_heads, self.head_size = bound(heads), bound(kv_heads), bound(head_size)
        self.window = kept(window)
        self.causal = causal
        self.query = _to_heads(features, heads, head_size, rngs)
        self.key = _to_heads(features, kv_heads, head_size, rngs)
        self.value = _to_heads(features, kv_heads, head_size, rngs)
        self.output = nnx.LinearGeneral(
            (size(heads), size(head_size)), size(features), axis=(-2, -1), use_bias=False, kernel_init=lecun_normal,
            rngs=rngs,
        )  # fmt: skip
        self.query_norm = norm(query_key_norm, head_size, rngs=rngs)
        self.key_norm = norm(query_key_norm, head_size, rngs=rngs)
        self.gate = _to_heads(features, heads, head_size, rngs) if gate is not False else None
        self.gated = Selector(gate) if isinstance(gate, Picked) else gate
        learns = position == "learned" or (isinstance(position, Picked) and "learned" in position.options)
        self.places = nnx.Param(lecun_normal(rngs.params(), (length or 0, size(features)))) if learns else None
        self.drop = dropout(dropout_rate, rngs=rngs)

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Tokens `[B, L, C]`, and `[B, L]`, true where there is one, to `[B, L, C]`, 0 where there is none."""
        placed = x
        if self.places is not None:
            placed = x + self.places[...][: x.shape[1]].astype(x.dtype) * self._share("learned", x.dtype)
        query, key, value = self.query(placed), self.key(placed), self.value(x)
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        y = self._attended(query, key, value, mask)
        if self.gate is not None:
            gate: Any = self.gate
            y = either(named(self.gated, True), lambda: y * jax.nn.sigmoid(gate(x)), lambda: y)
        y = self.drop(self.output(y))
        return y if mask is None else y * mask[..., None].astype(y.dtype)

    def _attended(self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Each head's mixture of values, `[B, L, H, D]`."""
        share = self._share("rotary", jnp.promote_types(query.dtype, jnp.float32))
        features = number(self.head_size)

        def turn(x: jax.Array) -> jax.Array:
            return x if isinstance(share, float) and share == 0.0 else rotated(x, features, share)

        def linear() -> jax.Array:
            spread = [_shared(each, query.shape[2], self.heads, self.kv_heads) for each in (key, value)]
            return attend_linearly(query, *spread, features=features, turn=turn, mask=mask, causal=self.causal)

        return either(named(self.kind, "linear"), linear, lambda: self._softmax(turn(query), turn(key), value, mask))

    def _softmax(self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
        length, heads = query.shape[1:3]
        seen = None if mask is None else mask[:, None, None, :]
        options: dict[str, Any] = {}
        windowed = named(self.kind, "window")
        if isinstance(windowed, bool) and not isinstance(self.window, Bound):
            options["is_causal"] = self.causal
            if windowed:
                options["local_window_size"] = (self.window - 1, 0 if self.causal else self.window - 1)  # pyright: ignore
        else:
            window = length if self.window is None else number(self.window)
            near = visible(length, jnp.where(windowed, window, length), self.causal)[None, None]
            seen = near if seen is None else near & seen
        if not isinstance(self.kv_heads, int):
            key, value = (_shared(each, heads, self.heads, self.kv_heads) for each in (key, value))
        bias = None
        share = self._share("alibi", jnp.float32)
        if not (isinstance(share, float) and share == 0.0):
            bias = alibi(length, heads, number(self.heads), share)[None].astype(query.dtype)
        scale = number(self.head_size) ** -0.5
        if not isinstance(scale, float):
            query, scale = query * scale.astype(query.dtype), 1.0
        return jax.nn.dot_product_attention(
            query, key, value, bias, seen, scale=scale, implementation=self.implementation, **options
        )

    def _share(self, position: str, kind: Any) -> Any:
        """1 if this is how places are told, else 0: a number, or data."""
        found = named(self.position, position)
        return float(found) if isinstance(found, bool) else found.astype(kind)


def attend_linearly(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    features: Any = None,
    turn: Callable[[jax.Array], jax.Array] = lambda x: x,
    mask: jax.Array | None = None,
    causal: bool = True,
) -> jax.Array:
    """Attention whose weights are products of elu(x) + 1, at a cost in proportion to L: `[B, L, H, D]` each.

    `features` is how many of the D are in use. `turn` tells places in the numerator; the denominator stays positive.

    Source: Katharopoulos et al. 2020, arXiv:2006.16236, equations 7 and 9; rotary: RoFormer, equation 19.
    """
    used = jnp.arange(query.shape[-1]) < (query.shape[-1] if features is None else features)
    query, key = (jnp.where(used, jax.nn.elu(each) + 1.0, 0.0) for each in (query, key))
    if mask is not None:
        key = key * mask[:, :, None, None].astype(key.dtype)
    mix = _sum_before if causal else _sum_all
    total = mix(query, key, jnp.ones_like(value[..., :1]))
    return mix(turn(query), turn(key), value) / jnp.maximum(total, 1e-6)


def _sum_all(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """`[B, L, H, D]`, the same and `[B, L, H, E]` to `[B, L, H, E]`: values by the products with every key."""
    return jnp.einsum("blhd,bhde->blhe", query, jnp.einsum("blhd,blhe->bhde", key, value))


def _sum_before(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """The same with the keys up to each query: within a chunk one by one, of the chunks before their sum."""
    length = query.shape[1]
    parts = -(-length // CHUNK)
    long = -(-length // parts)
    rest = ((0, 0), (0, parts * long - length), (0, 0), (0, 0))
    query, key, value = (
        jnp.pad(each, rest).reshape(len(each), parts, long, *each.shape[2:]) for each in (query, key, value)
    )
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", query, key)
    within = jnp.einsum("bnhqk,bnkhe->bnqhe", scores * jnp.tri(long, dtype=scores.dtype), value)
    if parts > 1:
        sums = jnp.cumsum(jnp.einsum("bnkhd,bnkhe->bnhde", key, value), 1)
        within = within + jnp.einsum(
            "bnqhd,bnhde->bnqhe", query, jnp.pad(sums, ((0, 0), (1, 0), *[(0, 0)] * 3))[:, :-1]
        )
    return within.reshape(len(query), parts * long, *within.shape[3:])[:, :length]


def visible(length: int, window: Any, causal: bool) -> jax.Array:
    """Which key each query sees, `[L, L]`, queries first: those less than `window` away, and none ahead if `causal`."""
    places = jnp.arange(length)
    back = places[:, None] - places
    near = jnp.abs(back) < window
    return near & (back >= 0) if causal else near


def _shared(x: jax.Array, size: int, heads: int | Bound, kv_heads: int | Bound) -> jax.Array:
    """Key or value heads `[B, L, K, D]` as every query head sees them, `[B, L, H, D]`."""
    if isinstance(heads, int) and isinstance(kv_heads, int):
        return x if heads == kv_heads else jnp.repeat(x, heads // kv_heads, 2)
    # A product, for the slope of a gather by data would be a scatter.
    whose = jnp.arange(size) * number(kv_heads) // number(heads)
    return jnp.einsum("blkd,kh->blhd", x, (jnp.arange(x.shape[2])[:, None] == whose).astype(x.dtype))


def _to_heads(features: int | Padded, heads: int | Padded, head_size: int | Padded, rngs: nnx.Rngs) -> Any:
    shape = (size(heads), size(head_size))
    return nnx.LinearGeneral(size(features), shape, use_bias=False, kernel_init=lecun_normal, rngs=rngs)


def _check(
    heads: int | Padded, kv_heads: int | Padded, head_size: int | Padded, kind: Any, window: Any, position: Any,
    length: int | None,
) -> None:  # fmt: skip
    """Raises: ValueError if a size does not fit another."""
    if isinstance(heads, int) and isinstance(kv_heads, int) and (kv_heads < 1 or heads % kv_heads):
        raise ValueError(f"{heads} heads cannot share {kv_heads} kv_heads evenly; take a divisor of {heads}")
    names = position.options if isinstance(position, Picked) else (position,)
    if "rotary" in names and size(head_size) % 2:
        raise ValueError(f"rotary positions turn pairs of features: head_size must be even, got {size(head_size)}")
    if "learned" in names and length is None:
        raise ValueError("learned positions need the length of the context: length=...")
    if kind == "linear" and position == "alibi":
        raise ValueError("linear attention has no scores that alibi could be added to; take another position")
    windowed = kind == "window" or (isinstance(kind, Picked) and "window" in kind.options)
    if windowed and (window is None or (isinstance(window, int) and window < 1)):
        raise ValueError(f"attention within a window needs a window of at least 1 token, got {window!r}")
    if windowed and isinstance(window, int) and length is not None and window > length:
        raise ValueError(f"the window of {window} tokens is longer than the context of {length}; take at most {length}")
