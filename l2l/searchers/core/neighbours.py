"""Candidates that differ from another in a single decision."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from l2l.encoding import Tables
from l2l.searchers.core.points import Points, active, drawn, inside, settled, within
from l2l.types import Array, Key


def edited(tables: Tables, parents: Points, key: Key, most: int) -> Points:
    """One-edits of parents [N, D], each decision set to each other code; `most` of them if there are more.

    What an edit activates is drawn anew. Edits that are none (the parent's own code, one that the decision has not)
    come out as candidates drawn uniformly.
    """
    first, second = jax.random.split(key)
    rows, width = tables.valid.shape
    slots = len(parents.codes) * rows * width
    which, decision, code = jnp.unravel_index(jnp.arange(slots), (len(parents.codes), rows, width))
    fits = jnp.asarray(tables.valid)[decision, code] & active(tables, parents.codes)[which, decision]
    fits &= parents.codes[which, decision] != code
    if slots > most:
        _, kept = jax.lax.top_k(jnp.where(fits, jax.random.uniform(first, (slots,)), -1.0), most)
        which, decision, code, fits = which[kept], decision[kept], code[kept], fits[kept]
    fresh = drawn(tables, second, len(which))
    made = _assigned(tables, parents.at(which), decision, code, fresh)
    return Points(*(jnp.where(fits[:, None], a, b) for a, b in zip(made, fresh, strict=True)))


def neighbours(tables: Tables, parent: Points, fresh: Points) -> tuple[Points, Array]:
    """Every one-edit of one parent [1, D]: points [D * K, D], and which of them are any.

    A category may become each other one, a number's code one more or one less; what that activates comes from `fresh`
    [1, D], as does the place inside a new bin.
    """
    rows, width = jnp.asarray(tables.valid).shape
    decision, code = (each.reshape(-1) for each in jnp.divmod(jnp.arange(rows * width), width))
    old = parent.codes[0, decision]
    steps = jnp.asarray(tables.ordinal)[decision]
    fits = jnp.asarray(tables.valid)[decision, code] & jnp.where(steps, jnp.abs(code - old) == 1, code != old)
    made = _assigned(tables, parent, decision, code, fresh)
    return settled(tables, made), fits & active(tables, parent.codes)[0, decision]


def _assigned(tables: Tables, parents: Points, decision: Array, code: Array, fresh: Points) -> Points:
    """Points [N, D]: parents with one decision [N] set to a code [N], and what is inactive in them from `fresh`."""
    masks = active(tables, parents.codes)
    here = jnp.arange(masks.shape[1]) == decision[:, None]
    codes = jnp.where(here, code[:, None], jnp.where(masks, parents.codes, fresh.codes))
    shares = jnp.where(here | ~masks, within(tables, fresh), within(tables, parents))
    return inside(tables, codes, shares)
