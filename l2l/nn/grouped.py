"""Products of rows by the matrix of the expert that each is sent to, at the cost of the rows and not of the experts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

BLOCK = 32
"""Rows that are multiplied at once; an expert's last block is padded with zeros."""


class Plan(NamedTuple):
    """Which entry (a token on its way to an expert) stands in which row: an expert's rows are blocks of their own."""

    entry: jax.Array
    """The entry of each row, `[rows]`; the number of entries where a row is empty."""
    row: jax.Array
    """The row of each entry, `[entries]`; the number of rows where it was left out."""
    owner: jax.Array
    """The expert of each block, `[rows / BLOCK]`."""
    used: jax.Array
    """Blocks in use, `[]`."""


def plan_rows(expert: jax.Array, experts: int, capacity: Any = None) -> Plan:
    """Rows for entries `[groups, entries of one]` by the expert that each goes to, groups first; E leaves an entry out.

    An expert takes the first `capacity` entries of a group (all by default; may be data). There is room for every
    entry: floor(entries / BLOCK) + E blocks.
    """
    groups, size = expert.shape
    count = groups * size
    blocks = count // BLOCK + experts
    # One sort by expert and group: entries of both stand side by side, in their order.
    key = expert * groups + jnp.arange(groups)[:, None]
    order = jnp.argsort(key.reshape(-1), stable=True)
    key = key.reshape(-1)[order]
    owner = key // groups
    accepted = owner < experts
    if capacity is not None:
        indices = jnp.arange(count)
        first = jax.lax.cummax(jnp.where(jnp.concatenate([jnp.ones(1, bool), key[1:] != key[:-1]]), indices, 0))
        accepted &= indices - first < capacity
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(accepted, dtype=jnp.int32)])
    ends = before[jnp.searchsorted(owner, jnp.arange(experts + 1))]
    filled = -(-jnp.diff(ends) // BLOCK)
    last = jnp.cumsum(filled)
    present = jnp.minimum(owner, experts - 1)
    row = (last - filled)[present] * BLOCK + before[:-1] - ends[present]
    row = jnp.where(accepted, row, blocks * BLOCK)
    return Plan(
        entry=jnp.full(blocks * BLOCK, count).at[row].set(order, mode="drop"),
        row=jnp.zeros(count, jnp.int32).at[order].set(row.astype(jnp.int32), unique_indices=True),
        owner=jnp.minimum(jnp.searchsorted(last, jnp.arange(blocks), side="right"), experts - 1),
        used=last[-1],
    )


@jax.custom_vjp
def sum_rows(x: jax.Array, index: jax.Array, back: jax.Array) -> jax.Array:
    """Sums of rows of `x` `[rows, F]`, each of the rows that `index` `[sums, rows of one]` names: `[sums, F]`.

    The index after the last row adds nothing. `back` `[rows, sums of one]` is the inverse: the sums that each row is
    part of. With it the backward pass gathers instead of scattering.
    """
    return jnp.sum(x.at[index].get(mode="fill", fill_value=0), 1)


def _sum_rows_forward(x: jax.Array, index: jax.Array, back: jax.Array) -> tuple[jax.Array, Any]:
    return sum_rows(x, index, back), (index, back)


def _sum_rows_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    index, back = saved
    return sum_rows(gradient, back, index), None, None


sum_rows.defvjp(_sum_rows_forward, _sum_rows_backward)


@jax.custom_vjp
def multiply_blocks(rows: jax.Array, weights: jax.Array, owner: jax.Array, used: jax.Array) -> jax.Array:
    """Rows `[rows, in]`, block by block times the matrix `[E, in, out]` of its owner: `[rows, out]`.

    Unused blocks are 0. On a CPU a loop over the blocks in use: `jax.lax.ragged_dot` multiplies every row by every
    matrix there. Elsewhere each block is multiplied by a copy of its matrix.
    """
    return expert_blocks(rows, weights, owner, used)


@jax.jit
def expert_blocks(rows: jax.Array, weights: jax.Array, owner: jax.Array, used: jax.Array) -> jax.Array:
    """`multiply_blocks`, by a name in the program: who counts its operations cannot see how many blocks are in use."""
    if jax.default_backend() != "cpu":
        blocks = rows.reshape(len(owner), BLOCK, -1)
        return jnp.einsum("nbc,ncf->nbf", blocks, weights[owner]).reshape(len(rows), -1)

    def body(at: Any, y: jax.Array) -> jax.Array:
        part = _slice_block(rows, at) @ weights[owner[at]]
        return jax.lax.dynamic_update_slice_in_dim(y, part, at * BLOCK, 0)

    return jax.lax.fori_loop(0, used, body, _make_zeros((len(rows), weights.shape[2]), rows, weights))


def _multiply_forward(rows: jax.Array, weights: jax.Array, owner: jax.Array, used: jax.Array) -> tuple[jax.Array, Any]:
    return multiply_blocks(rows, weights, owner, used), (rows, weights, owner, used)


def _multiply_backward(saved: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, None, None]:
    rows, weights, owner, used = saved
    if jax.default_backend() != "cpu":
        pairs = (x.reshape(len(owner), BLOCK, -1) for x in (rows, gradient))
        by_block = jnp.einsum("nbc,nbf->ncf", *pairs)
        by_weights = jax.ops.segment_sum(by_block, owner, len(weights), indices_are_sorted=True)
        return multiply_blocks(gradient, weights.swapaxes(1, 2), owner, used), by_weights, None, None

    def body(at: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        by_rows, by_weights = carry
        part, expert = _slice_block(gradient, at), owner[at]
        by_rows = jax.lax.dynamic_update_slice_in_dim(by_rows, part @ weights[expert].T, at * BLOCK, 0)
        return by_rows, by_weights.at[expert].add(_slice_block(rows, at).T @ part)

    by_rows, by_weights = jax.lax.fori_loop(
        0, used, body, (_make_zeros(rows.shape, rows, gradient), _make_zeros(weights.shape, weights, gradient))
    )
    return by_rows, by_weights, None, None


def _make_zeros(shape: tuple[int, ...], *like: jax.Array) -> jax.Array:
    """Zeros that `jax.shard_map` knows to differ between devices where one of `like` does."""
    numbers = (x[(0,) * x.ndim] for x in like)
    return jnp.zeros(shape, like[0].dtype) + sum(
        jnp.where(False, number, 0).astype(like[0].dtype) for number in numbers
    )


def _slice_block(rows: jax.Array, at: Any) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(rows, at * BLOCK, BLOCK)


multiply_blocks.defvjp(_multiply_forward, _multiply_backward)
