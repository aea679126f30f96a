"""The factorised policy: logits [D, K], from which each decision is sampled independently.

Source: Ying et al. 2019, NAS-Bench-101, ICML, appendix; Dong and Yang 2020, NAS-Bench-201, ICLR (REINFORCE).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain
from l2l.searchers.controllers.policy import Experience, check_temperature, compute_entropy, log_softmax, sample_codes
from l2l.searchers.core.points import is_active
from l2l.types import Array, Key


@dataclass(frozen=True)
class Factorised:
    """Independent softmaxes over the codes of each decision; uniform before any reward.

    Raises: InputError if the temperature is not above 0.
    """

    temperature: float = 1.0
    """Divides the logits: above 1 it samples more evenly."""
    context = 0

    def __post_init__(self) -> None:
        check_temperature("a Factorised", self.temperature)

    def init(self, domain: Domain, key: Key) -> Array:
        """Logits [D, K], all zero; `key` is not used."""
        return jnp.asarray(np.zeros(domain.valid.shape, np.float32))

    def sample(self, params: Array, domain: Domain, uniforms: Array, past: Experience) -> tuple[Array, Array]:
        """Codes [N, D] by uniforms [N, D], and their log-probability [N]; all decisions are sampled at once."""
        valid = jnp.asarray(domain.valid)
        codes = sample_codes(log_softmax(params / self.temperature, valid), valid, uniforms)
        return codes, self.compute_log_probs(params, domain, codes, past)[0]

    def compute_log_probs(self, params: Array, domain: Domain, codes: Array, past: Experience) -> tuple[Array, Array]:
        """Log-probability [N] and entropy [N] of the decisions that are active in codes [N, D]."""
        log_probs = log_softmax(params / self.temperature, jnp.asarray(domain.valid))
        chosen = log_probs[jnp.arange(len(params)), codes]  # [N, D]
        masks = is_active(domain, codes)
        return (chosen * masks).sum(-1), (compute_entropy(log_probs) * masks).sum(-1)
