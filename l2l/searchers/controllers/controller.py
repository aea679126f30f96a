"""Controllers that learn by reinforcement: controller = policy x update x baseline.

The policy is a distribution from which candidates are sampled. The baseline turns their rewards into advantages. The
update changes the policy's weights, so that candidates with a positive advantage become likelier. Every combination
of the three is a searcher; the arguments are the settings of each part:

    Controller()  # REINFORCE with independent softmaxes and a moving average (Ying et al. 2019)
    Controller(policy=Lstm())  # the controller of Zoph and Le 2017
    Controller(policy=Lstm(), update=Ppo())  # the controller of NASNet (Zoph et al. 2018)
    Controller(policy=Transformer(), update=Ppo(), baseline=LeaveOneOut())  # reads past trials before each decision
    Controller(policy=Lstm(), update=Ppo(replay=16), baseline=Ranks())  # learns from ranks, and replays 16 trials

A new part is a frozen dataclass with the methods of one of the Protocols: `Policy` in policy.py, `Update` below, or
`Baseline` in baseline.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from l2l.encoding import Domain
from l2l.errors import InputError, check_part
from l2l.searchers.controllers.baseline import Baseline, MovingAverage
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.policy import Experience, Params, Policy, append_experience, make_experience
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.core.base import ArraySearcher, Proposal
from l2l.searchers.core.points import Points, is_active
from l2l.types import Array, Key


@runtime_checkable
class Update(Protocol):
    """A rule that turns advantages into better parameters; hashable, since compiled programs are cached by it."""

    @property
    def replay(self) -> int:
        """Number of past trials that it learns from again."""
        ...

    def start(self, params: Params) -> optax.OptState:
        """The optimizer's state before any step."""
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
    """What a controller has learnt: its weights, and what its parts remember."""

    params: Params
    opt_state: optax.OptState
    baseline: Any
    """The state of the baseline."""
    past: Experience
    """The latest trials, for the policy to read or the update to replay."""
    reward: Array
    """[]: mean reward of the last batch that had one."""
    entropy: Array
    """[]: mean entropy, in nats, of the policy over the last batch."""


@dataclass(frozen=True)
class Controller(ArraySearcher):
    """Samples candidates from a policy and makes those likelier that beat the baseline.

    The metadata of each candidate holds its log-probability.

    Source: Zoph and Le 2017, Neural Architecture Search with Reinforcement Learning, ICLR, section 3.2.
    """

    policy: Policy = Factorised()  # noqa: RUF009  # frozen, hence safe to share
    update: Update = Reinforce()  # noqa: RUF009
    baseline: Baseline = MovingAverage()  # noqa: RUF009

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, protocol in (("policy", Policy), ("update", Update), ("baseline", Baseline)):
            expected = f"a {name} of l2l.searchers.controllers"
            check_part(f"Controller's {name}", getattr(self, name), expected, protocol)
        if self.policy.context and self.update.replay:
            # The policy would read each replayed trial together with its advantage.
            raise InputError(
                f"a {type(self.policy).__name__} already reads past trials, so the update must not replay them; "
                "set the update's replay to 0 or the policy's context to 0."
            )

    @property
    def title(self) -> str:
        """Its parts, as folders and reports name them: `reinforce`, `ppo_lstm`."""
        update, policy = (type(part).__name__.lower() for part in (self.update, self.policy))
        return update if type(self.policy) is Factorised else f"{update}_{policy}"

    def start(self, domain: Domain, key: Key) -> ControllerState:
        """The untrained policy."""
        params = self.policy.init(domain, key)
        past = make_experience(domain, max(self.policy.context, self.update.replay))
        nan = jnp.float32(jnp.nan)
        return ControllerState(params, self.update.start(params), self.baseline.start(), past, nan, nan)

    def propose(self, state: ControllerState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates sampled from the policy."""
        # One call of the generator, which takes longest to compile, and the first ask waits for it.
        code_uniforms, bin_uniforms = jax.random.uniform(key, (2, count, len(domain.valid)))
        codes, log_prob = self.policy.sample(state.params, domain, code_uniforms, state.past)
        return Proposal(jnp.where(is_active(domain, codes), codes, 0), bin_uniforms, {"log_prob": log_prob})

    def learn(self, state: ControllerState, domain: Domain, points: Points, scores: Array) -> ControllerState:
        """The state after learning from N trials."""
        advantages, baseline = self.baseline.compute_advantages(state.baseline, scores)
        log_probs, _ = self.policy.compute_log_probs(state.params, domain, points.codes, state.past)
        batch = Experience(points.codes, advantages, log_probs, jnp.ones(len(scores), jnp.bool_))
        params, opt_state, entropy = self.update.take_steps(
            self.policy, state.params, state.opt_state, domain, batch, state.past
        )
        has_score = ~jnp.isnan(scores)
        mean = jnp.where(has_score, scores / jnp.maximum(has_score.sum(), 1), 0).sum()
        reward = jnp.where(has_score.any(), mean, state.reward)
        after = ControllerState(params, opt_state, baseline, append_experience(state.past, batch), reward, entropy)
        # Before the first reward there is nothing to learn, and nothing to remember.
        has_reward = ~jnp.isnan(reward)
        return jax.tree.map(lambda old, new: jnp.where(has_reward, new, old), state, after)

    def summarise(self, state: ControllerState) -> Mapping[str, Array]:
        """Mean reward of the last batch, baseline, and the policy's entropy in nats."""
        return {
            "reward": state.reward,
            "baseline": self.baseline.estimate_reward(state.baseline),
            "entropy": state.entropy,
        }
