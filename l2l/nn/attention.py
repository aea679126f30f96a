"""Attention over a sequence: many heads, fewer keys than queries, everywhere, within a window, or in linear time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.description import TIMES, Description, describe
from l2l.nn.dropout import make_dropout
from l2l.nn.initial import lecun_normal
from l2l.nn.length import Length
from l2l.nn.norm import make_norm
from l2l.nn.number import Number
from l2l.nn.option import Option
from l2l.nn.position import POSITIONS, make_alibi, rotate_pairs

KINDS = ("global", "window", "linear")
CHUNK = 64
"""Tokens that linear attention compares with each other; earlier chunks reach them as a sum."""


POSITION_TITLES = {
    "none": "no positions",
    "learned": "learned positions",
    "rotary": "rotary positions",
    "alibi": "ALiBi",
}
"""Position encodings in words."""


class Attention(nnx.Module):
    """Attention of a sequence to itself.

    Of `heads` query heads, `heads / kv_heads` share a key and a value head: all different (multi-head), some
    (grouped-query), one (multi-query). `kind` is global, window (a token sees itself and the `window - 1` before it,
    and as many after it unless `causal`) or linear. `position` is none, learned (a vector for each of `length`
    positions, added to the input of queries and keys), rotary or alibi, which linear attention cannot have.
    `query_key_norm` is none or rms; with `gate` each head's output is scaled by a sigmoid of the input.

    Dropout is applied to the output and not to the weights of attention, which a fused kernel never lays out.
    `implementation` asks for such a kernel: it goes to `jax.nn.dot_product_attention` ("cudnn" on NVIDIA's devices in
    half precision). Data may choose every option but `causal`, and the window may be data.

    Raises: ValueError if a size does not fit another or an option is unknown.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; Ainslie et al. 2023, GQA, arXiv:2305.13245; Shazeer
        2019, arXiv:1911.02150; Beltagy et al. 2020, Longformer, arXiv:2004.05150, section 3.1; Katharopoulos et al.
        2020, arXiv:2006.16236, equation 7; Henry et al. 2020, arXiv:2010.04245 (normalisation); Qiu et al. 2025,
        arXiv:2505.06708 (gate).
    """

    def __init__(
        self,
        features: int | Length,
        *,
        heads: int | Length,
        head_size: int | Length,
        kv_heads: int | Length | None = None,
        kind: str | Option = "global",
        window: Any = None,
        position: str | Option = "rotary",
        length: int | None = None,
        query_key_norm: str | Option = "none",
        gate: bool | Option = False,
        causal: bool = True,
        dropout_rate: Any = 0.0,
        implementation: Literal["xla", "cudnn"] | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        self.implementation: Literal["xla", "cudnn"] | None = implementation
        self.heads, self.head_size = Length.of(heads), Length.of(head_size)
        self.kv_heads = self.heads if kv_heads is None else Length.of(kv_heads)
        self.kind, self.position = Option.of(kind), Option.of(position)
        self.window = Number(window)
        self.causal = causal
        self._check(length)
        size = Length.of(features).size
        self.query = _make_projection(size, self.heads, self.head_size, rngs)
        self.key = _make_projection(size, self.kv_heads, self.head_size, rngs)
        self.value = _make_projection(size, self.kv_heads, self.head_size, rngs)
        self.output = nnx.LinearGeneral(
            (self.heads.size, self.head_size.size), size, axis=(-2, -1), use_bias=False, kernel_init=lecun_normal,
            rngs=rngs,
        )  # fmt: skip
        self.query_norm = make_norm(query_key_norm, self.head_size, rngs=rngs)
        self.key_norm = make_norm(query_key_norm, self.head_size, rngs=rngs)
        self.gated = Option.of(gate)
        gates = self.gated.can_be(True)
        self.gate = _make_projection(size, self.heads, self.head_size, rngs) if gates else None
        learns = self.position.can_be("learned")
        # The vectors of learned positions; weights files hold them under this name.
        self.places = nnx.Param(lecun_normal(rngs.params(), (length or 0, size))) if learns else None
        self.drop = make_dropout(dropout_rate, rngs=rngs)

    def _check(self, length: int | None) -> None:
        """Raises: ValueError if an option is unknown or a size does not fit another."""
        self.kind.check("attention", KINDS)
        self.position.check("position", POSITIONS)
        heads, kv_heads, window = self.heads, self.kv_heads, self.window.value
        if heads.is_plain and kv_heads.is_plain and (kv_heads.size < 1 or heads.size % kv_heads.size):
            raise ValueError(
                f"{heads.size} heads cannot share {kv_heads.size} kv_heads evenly; take a divisor of {heads.size}"
            )
        if self.position.can_be("rotary") and self.head_size.size % 2:
            raise ValueError(
                f"rotary positions rotate pairs of features: head_size must be even, got {self.head_size.size}"
            )
        if self.position.can_be("learned") and length is None:
            raise ValueError("learned positions need the length of the context: length=...")
        if self.kind.is_always("linear") and self.position.is_always("alibi"):
            raise ValueError("linear attention has no scores that alibi could be added to; take another position")
        if not self.kind.can_be("window") or not self.window.is_plain:
            return
        if window is None or window < 1:
            raise ValueError(f"attention within a window needs a window of at least 1 token, got {window!r}")
        if length is not None and window > length:
            raise ValueError(
                f"the window of {window} tokens is longer than the context of {length}; take at most {length}"
            )

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Tokens `[B, L, F]`, and `[B, L]`, true where there is one, to `[B, L, F]`, 0 where there is none."""
        positioned = x
        if self.places is not None:
            positions = self.places[...][: x.shape[1]].astype(x.dtype)
            positioned = x + positions * _as_number(self.position.is_("learned"), x.dtype)
        query, key, value = self.query(positioned), self.key(positioned), self.value(x)
        if self.query_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        y = self._attend(query, key, value, mask)
        if self.gate is not None:
            gate: Any = self.gate
            y = self.gated.branch(True, lambda: y * jax.nn.sigmoid(gate(x)), lambda: y)
        y = self.drop(self.output(y))
        return y if mask is None else y * mask[..., None].astype(y.dtype)

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The attention in words."""
        heads, kv_heads, kind = int(self.heads.active), int(self.kv_heads.active), self.kind.read()
        facts = [f"{heads} head{'s' if heads > 1 else ''} {TIMES} {int(self.head_size.active)}"]
        if kv_heads < heads:
            facts.append("1 key-value head" if kv_heads == 1 else f"{kv_heads} key-value heads")
        facts.append(POSITION_TITLES[self.position.read()])
        if norm := describe(self.query_norm, ()):
            facts.append(f"query-key {norm.title}")
        if self.gated.read():
            facts.append("gated")
        if self.causal:
            facts.append("causal")
        title = f"window attention of {int(self.window.value)} tokens" if kind == "window" else f"{kind} attention"
        return Description(title, tuple(facts), kind="attention", shape=shape, module=self)

    def _attend(self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Each head's mixture of values, `[B, L, H, F]`."""
        is_rotary = self.position.is_("rotary")
        share = _as_number(is_rotary, jnp.promote_types(query.dtype, jnp.float32))
        features = self.head_size.active

        def rotate(x: jax.Array) -> jax.Array:
            return x if is_rotary is False else rotate_pairs(x, features, share)

        def attend_in_linear_time() -> jax.Array:
            pair = [_repeat_heads(x, self.heads, self.kv_heads) for x in (key, value)]
            return attend_linearly(query, *pair, features=features, rotate=rotate, mask=mask, causal=self.causal)

        def attend_by_scores() -> jax.Array:
            return self._attend_by_scores(rotate(query), rotate(key), value, mask)

        return self.kind.branch("linear", attend_in_linear_time, attend_by_scores)

    def _attend_by_scores(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None
    ) -> jax.Array:
        length, heads = query.shape[1:3]
        visible = None if mask is None else mask[:, None, None, :]
        options: dict[str, Any] = {}
        is_windowed, window = self.kind.is_("window"), self.window.value
        if self.kind.is_plain and self.window.is_plain:
            options["is_causal"] = self.causal
            if is_windowed:
                options["local_window_size"] = (window - 1, 0 if self.causal else window - 1)
        else:
            window = length if window is None else window
            near = make_window_mask(length, jnp.where(is_windowed, window, length), self.causal)[None, None]
            visible = near if visible is None else near & visible
        if not self.kv_heads.is_plain:
            key, value = (_repeat_heads(x, self.heads, self.kv_heads) for x in (key, value))
        bias, is_alibi = None, self.position.is_("alibi")
        if is_alibi is not False:
            share = _as_number(is_alibi, jnp.float32)
            bias = make_alibi(length, heads, self.heads.active, share)[None].astype(query.dtype)
        scale = self.head_size.active**-0.5
        if not self.head_size.is_plain:
            query, scale = query * scale.astype(query.dtype), 1.0
        return jax.nn.dot_product_attention(
            query, key, value, bias, visible, scale=scale, implementation=self.implementation, **options
        )


def _as_number(flag: Any, dtype: Any) -> Any:
    """1 or 0: a float for a bool, an array of this dtype for an array."""
    return float(flag) if isinstance(flag, bool) else flag.astype(dtype)


def attend_linearly(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    features: Any = None,
    rotate: Callable[[jax.Array], jax.Array] = lambda x: x,
    mask: jax.Array | None = None,
    causal: bool = True,
) -> jax.Array:
    """Attention whose weights are products of elu(x) + 1, at a cost proportional to L; all arrays are `[B, L, H, F]`.

    `features` is how many of the F are in use. `rotate` encodes positions in the numerator; the denominator stays
    positive.

    Source: Katharopoulos et al. 2020, arXiv:2006.16236, equations 7 and 9; rotary: RoFormer, equation 19.
    """
    used = jnp.arange(query.shape[-1]) < (query.shape[-1] if features is None else features)
    query, key = (jnp.where(used, jax.nn.elu(x) + 1.0, 0.0) for x in (query, key))
    if mask is not None:
        key = key * mask[:, :, None, None].astype(key.dtype)
    mix = _sum_before if causal else _sum_all
    total = mix(query, key, jnp.ones_like(value[..., :1]))
    return mix(rotate(query), rotate(key), value) / jnp.maximum(total, 1e-6)


def _sum_all(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """`[B, L, H, F]`, the same and `[B, L, H, out]` to `[B, L, H, out]`: values by the products with every key."""
    return jnp.einsum("blhd,bhde->blhe", query, jnp.einsum("blhd,blhe->bhde", key, value))


def _sum_before(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """The same with the keys up to each query: one by one within a chunk, the sum of the chunks before it."""
    length = query.shape[1]
    chunks = -(-length // CHUNK)
    size = -(-length // chunks)
    padding = ((0, 0), (0, chunks * size - length), (0, 0), (0, 0))
    query, key, value = (jnp.pad(x, padding).reshape(len(x), chunks, size, *x.shape[2:]) for x in (query, key, value))
    scores = jnp.einsum("bnqhd,bnkhd->bnhqk", query, key)
    within = jnp.einsum("bnhqk,bnkhe->bnqhe", scores * jnp.tri(size, dtype=scores.dtype), value)
    if chunks > 1:
        sums = jnp.cumsum(jnp.einsum("bnkhd,bnkhe->bnhde", key, value), 1)
        within = within + jnp.einsum(
            "bnqhd,bnhde->bnqhe", query, jnp.pad(sums, ((0, 0), (1, 0), *[(0, 0)] * 3))[:, :-1]
        )
    return within.reshape(len(query), chunks * size, *within.shape[3:])[:, :length]


def make_window_mask(length: int, window: Any, causal: bool) -> jax.Array:
    """Which key each query sees, `[L, L]`, queries first: those less than `window` away, none ahead if `causal`."""
    positions = jnp.arange(length)
    distance = positions[:, None] - positions
    near = jnp.abs(distance) < window
    return near & (distance >= 0) if causal else near


def _repeat_heads(x: jax.Array, heads: Length, kv_heads: Length) -> jax.Array:
    """Key or value heads `[B, L, K, F]` as every query head sees them, `[B, L, H, F]`."""
    if heads.is_plain and kv_heads.is_plain:
        return x if heads.size == kv_heads.size else jnp.repeat(x, heads.size // kv_heads.size, 2)
    # A product, because the gradient of a gather by data would be a scatter.
    owner = jnp.arange(heads.size) * kv_heads.active // heads.active
    return jnp.einsum("blkd,kh->blhd", x, (jnp.arange(x.shape[2])[:, None] == owner).astype(x.dtype))


def _make_projection(features: int, heads: Length, head_size: Length, rngs: nnx.Rngs) -> Any:
    shape = (heads.size, head_size.size)
    return nnx.LinearGeneral(features, shape, use_bias=False, kernel_init=lecun_normal, rngs=rngs)
