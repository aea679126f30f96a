"""Controllers: a policy proposes, an update learns from rewards, a baseline says what was to be expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Domain
from l2l.errors import InputError
from l2l.searchers.controllers.baseline import Baseline, MovingAverage
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.policy import Experience, Params, Policy, append_experience, make_experience
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.core.base import ArraySearcher, Proposal
from l2l.searchers.core.points import Points, is_active
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

    def take_steps(
        self,
        policy: Policy,
        params: Params,
        opt_state: optax.OptState,
        domain: Domain,
        batch: Experience,
        past: Experience,
    ) -> tuple[Params, optax.OptState, Array]:
        """The parameters after a batch, and the mean entropy [] of the policy over it, in nats. Traceable."""
        ...


class ControllerState(NamedTuple):
    """What a controller has learnt."""

    params: Params
    opt_state: optax.OptState
    baseline: Any
    past: Experience
    reward: Array
    """[]: mean reward of the last batch that had any."""
    entropy: Array
    """[]: mean entropy, in nats, of the policy over the last batch."""


@dataclass(frozen=True)
class Controller(ArraySearcher):
    """Draws candidates from a policy and makes those likelier that beat the baseline; notes hold log-probabilities.

    Source: Zoph and Le 2017, Neural Architecture Search with Reinforcement Learning, ICLR, section 3.2.
    """

    policy: Policy = Factorised()  # noqa: RUF009  # frozen, hence safe to share
    update: Update = Reinforce()  # noqa: RUF009
    baseline: Baseline = MovingAverage()  # noqa: RUF009

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, method in (("policy", "sample"), ("update", "take_steps"), ("baseline", "compare")):
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

    def start(self, domain: Domain, key: Key) -> ControllerState:
        """The policy as it starts, and nothing learnt."""
        params = self.policy.init(domain, key)
        past = make_experience(domain, max(self.policy.context, self.update.replay))
        unknown = jnp.float32(jnp.nan)
        return ControllerState(params, self.update.start(params), self.baseline.start(), past, unknown, unknown)

    def propose(self, state: ControllerState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates drawn from the policy."""
        # One call of the generator: it is what takes longest to compile, and the first ask waits for it.
        chosen, within = jax.random.uniform(key, (2, count, len(domain.valid)))
        codes, log_prob = self.policy.sample(state.params, domain, chosen, state.past)
        return Proposal(jnp.where(is_active(domain, codes), codes, 0), within, {"log_prob": log_prob})

    def learn(self, state: ControllerState, domain: Domain, points: Points, scores: Array) -> ControllerState:
        """What is learnt from N trials."""
        advantages, level = self.baseline.compare(state.baseline, scores)
        log_probs, _ = self.policy.score(state.params, domain, points.codes, state.past)
        batch = Experience(points.codes, advantages, log_probs, jnp.ones(len(scores), jnp.bool_))
        params, opt_state, entropy = self.update.take_steps(
            self.policy, state.params, state.opt_state, domain, batch, state.past
        )
        known = ~jnp.isnan(scores)
        mean = jnp.where(known, scores / jnp.maximum(known.sum(), 1), 0).sum()
        reward = jnp.where(known.any(), mean, state.reward)
        after = ControllerState(params, opt_state, level, append_experience(state.past, batch), reward, entropy)
        # Before the first reward there is nothing to learn, and nothing to remember.
        some = ~jnp.isnan(reward)
        return jax.tree.map(lambda old, new: jnp.where(some, new, old), state, after)

    def summarise(self, state: ControllerState) -> Mapping[str, Array]:
        """Mean reward of the last batch, baseline, and the policy's entropy in nats."""
        return {
            "reward": state.reward,
            "baseline": self.baseline.expected_reward(state.baseline),
            "entropy": state.entropy,
        }
