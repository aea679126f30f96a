"""Candidates that differ from another one in a single decision."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from l2l.encoding import Domain
from l2l.searchers.core.points import Points, compute_uniforms, is_active, make_points, sample_points, zero_inactive
from l2l.types import Array, Key


def sample_edits(domain: Domain, parents: Points, key: Key, limit: int) -> Points:
    """Parents [N, D] with one decision set to another code: all such edits, or `limit` of them if there are more.

    Decisions that an edit activates are sampled anew. An invalid edit (the parent's own code, or a code that the
    decision does not have) becomes a candidate sampled uniformly.
    """
    first, second = jax.random.split(key)
    decisions, options = domain.valid.shape
    slots = len(parents.codes) * decisions * options
    parent, decision, code = jnp.unravel_index(jnp.arange(slots), (len(parents.codes), decisions, options))
    is_valid = jnp.asarray(domain.valid)[decision, code] & is_active(domain, parents.codes)[parent, decision]
    is_valid &= parents.codes[parent, decision] != code
    if slots > limit:
        _, chosen = jax.lax.top_k(jnp.where(is_valid, jax.random.uniform(first, (slots,)), -1.0), limit)
        parent, decision, code, is_valid = parent[chosen], decision[chosen], code[chosen], is_valid[chosen]
    fresh = sample_points(domain, second, len(parent))
    edits = _set_codes(domain, parents.take(parent), decision, code, fresh)
    return Points(*(jnp.where(is_valid[:, None], a, b) for a, b in zip(edits, fresh, strict=True)))


def list_neighbours(domain: Domain, parent: Points, fresh: Points) -> tuple[Points, Array]:
    """Every one-edit of one parent [1, D]: points [D * K, D], and a mask [D * K] of the valid ones.

    A category may become any other option, a number's code one more or one less. Decisions that this activates come
    from `fresh` [1, D], as does the position inside a new bin.
    """
    decisions, options = jnp.asarray(domain.valid).shape
    decision, code = (index.reshape(-1) for index in jnp.divmod(jnp.arange(decisions * options), options))
    old = parent.codes[0, decision]
    ordinal = jnp.asarray(domain.ordinal)[decision]
    is_valid = jnp.asarray(domain.valid)[decision, code] & jnp.where(ordinal, jnp.abs(code - old) == 1, code != old)
    edits = _set_codes(domain, parent, decision, code, fresh)
    return zero_inactive(domain, edits), is_valid & is_active(domain, parent.codes)[0, decision]


def _set_codes(domain: Domain, parents: Points, decision: Array, code: Array, fresh: Points) -> Points:
    """Points [N, D]: parents with one decision [N] set to a code [N], and what is inactive in them from `fresh`."""
    mask = is_active(domain, parents.codes)
    edited = jnp.arange(mask.shape[1]) == decision[:, None]
    codes = jnp.where(edited, code[:, None], jnp.where(mask, parents.codes, fresh.codes))
    uniforms = jnp.where(edited | ~mask, compute_uniforms(domain, fresh), compute_uniforms(domain, parents))
    return make_points(domain, codes, uniforms)
