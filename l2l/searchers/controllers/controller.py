"""Controllers: a policy proposes, an update learns from rewards, a baseline says what was to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Tables
from l2l.errors import InputError
from l2l.searchers.controllers.baseline import Baseline, MovingAverage
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.policy import Context, Params, Policy, latest, nothing
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.core.base import Coded, Proposal
from l2l.searchers.core.points import Points, active
from l2l.types import Array, Key


class Update(Protocol):
    """A rule that turns advantages into better parameters; hashable, since compiled functions are kept by it."""

    @property
    def replay(self) -> int:
        """How many past trials it learns from again."""
        ...

    def start(self, params: Params) -> optax.OptState:
        """What it keeps, before any step."""
        ...

    def steps(
        self, policy: Policy, params: Params, moments: optax.OptState, tables: Tables, batch: Context, past: Context
    ) -> tuple[Params, optax.OptState, Array]:
        """The parameters after a batch, and the mean entropy [] of the policy over it, in nats. Traceable."""
        ...


class ControllerState(NamedTuple):
    """What a controller has learnt."""

    params: Params
    moments: optax.OptState
    baseline: Any
    past: Context
    reward: Array
    """[]: mean reward of the last batch that had any."""
    entropy: Array
    """[]: mean entropy, in nats, of the policy over the last batch."""


@dataclass(frozen=True)
class Controller(Coded):
    """Draws candidates from a policy and makes those likelier that beat the baseline; notes hold log-probabilities.

    Source: Zoph and Le 2017, Neural Architecture Search with Reinforcement Learning, ICLR, section 3.2.
    """

    policy: Policy = Factorised()  # noqa: RUF009  # frozen, hence safe to share
    update: Update = Reinforce()  # noqa: RUF009
    baseline: Baseline = MovingAverage()  # noqa: RUF009

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, method in (("policy", "sample"), ("update", "steps"), ("baseline", "compare")):
            part = getattr(self, name)
            if isinstance(part, type) or not callable(getattr(part, method, None)):
                raise InputError(f"Controller's {name} must be one of l2l.searchers, got {part!r:.80}.")
        if self.policy.context and self.update.replay:
            # It would find each of them, with its advantage, among what it attends to.
            raise InputError(
                f"a {type(self.policy).__name__} already attends to past trials, so the update must not replay them; "
                "set its replay to 0 or the policy's context to 0."
            )

    @property
    def title(self) -> str:
        """Its parts, as folders and reports name them: `reinforce`, `ppo_lstm`."""
        update, policy = (type(part).__name__.lower() for part in (self.update, self.policy))
        return update if type(self.policy) is Factorised else f"{update}_{policy}"

    def start(self, tables: Tables, key: Key) -> ControllerState:
        """The policy as it starts, and nothing learnt."""
        params = self.policy.init(tables, key)
        past = nothing(tables, max(self.policy.context, self.update.replay))
        unknown = jnp.float32(jnp.nan)
        return ControllerState(params, self.update.start(params), self.baseline.start(), past, unknown, unknown)

    def propose(self, inner: ControllerState, tables: Tables, key: Key, count: int) -> Proposal:
        """`count` candidates drawn from the policy."""
        # One call of the generator: it is what takes longest to compile, and the first ask waits for it.
        chosen, within = jax.random.uniform(key, (2, count, len(tables.valid)))
        codes, log_prob = self.policy.sample(inner.params, tables, chosen, inner.past)
        return Proposal(jnp.where(active(tables, codes), codes, 0), within, {"log_prob": log_prob})

    def learn(self, inner: ControllerState, tables: Tables, points: Points, scores: Array) -> ControllerState:
        """What is learnt from N trials."""
        advantages, level = self.baseline.compare(inner.baseline, scores)
        log_probs, _ = self.policy.score(inner.params, tables, points.codes, inner.past)
        batch = Context(points.codes, advantages, log_probs, jnp.ones(len(scores), jnp.bool_))
        params, moments, entropy = self.update.steps(
            self.policy, inner.params, inner.moments, tables, batch, inner.past
        )
        known = ~jnp.isnan(scores)
        mean = jnp.where(known, scores / jnp.maximum(known.sum(), 1), 0).sum()
        reward = jnp.where(known.any(), mean, inner.reward)
        after = ControllerState(params, moments, level, latest(inner.past, batch), reward, entropy)
        # Before the first reward there is nothing to learn, and nothing to remember.
        some = ~jnp.isnan(reward)
        return jax.tree.map(lambda old, new: jnp.where(some, new, old), inner, after)

    def figures(self, inner: ControllerState) -> Mapping[str, Array]:
        """Mean reward of the last batch, baseline, and the policy's entropy in nats."""
        return {"reward": inner.reward, "baseline": self.baseline.level(inner.baseline), "entropy": inner.entropy}
