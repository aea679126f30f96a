"""A controller with a Gaussian process as its critic: a policy and edits of the best propose, the critic chooses.

The parts are known ones: policy gradients with replay, expected improvement under a Gaussian process on ranks, and
candidates for it from local edits of the incumbents. Source of the acquisition: Jones et al. 1998, Efficient Global
Optimization of Expensive Black-Box Functions, equation 15.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain, Encoding
from l2l.errors import InputError, check_integer, check_part
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.core.base import ArraySearcher, ArraySearcherState, Proposal
from l2l.searchers.core.neighbours import sample_edits
from l2l.searchers.core.points import (
    Points,
    choose_capacity,
    choose_decisions,
    compute_uniforms,
    is_repeat,
    locate_points,
    make_history,
    make_points,
    mutate_points,
    sample_points,
    zero_inactive,
)
from l2l.searchers.gp.earlier_searches import EarlierTrials, load_earlier_trials
from l2l.searchers.gp.gaussian_process import (
    KERNELS,
    add_observations,
    compute_features,
    create_process,
    fit_posterior,
    predict,
)
from l2l.searchers.gp.objective_ranks import (
    append_rewards,
    has_several_objectives,
    replace_rewards,
    replace_scores,
    score_by_rank,
)
from l2l.searchers.gp.state import PROCESS_CAPACITY, CriticState
from l2l.space import SearchSpace
from l2l.types import Array, Key, Trial

INCUMBENTS = 5
"""The best trials, each of whose one-edits is a proposal."""
PARENTS = 10
"""The best trials, of which several decisions at once are changed."""
HEAD_START = 5
"""Trials led by an earlier search before the data of this one can outvote it."""
EARLIER_EPOCHS = 10
"""How often the policy learns from the trials of earlier searches; one update alone stays close to where it began."""


@dataclass(frozen=True)
class GpCritic(ArraySearcher):
    """Proposes some hundred candidates a trial and takes the one with the highest expected improvement.

    The first candidates are a design in which every decision takes each of its values equally often. After that,
    proposals come from a policy, from uniform sampling, from all one-edits of the best few trials and from edits of
    several decisions of the best ten. The critic is a Gaussian process on the ranks of the rewards. The policy learns
    from the trials, and from what the critic predicts for the policy's own samples.

    Raises: InputError if a number is out of its range.
    """

    controller: Controller = Controller(update=Ppo(minibatch=None, replay=16))  # noqa: RUF009  # frozen, hence safe to share
    first: int = 20
    """Trials of the first design."""
    edits: int = 256
    """The most one-edits of the best trials; all of them where there are fewer."""
    moves: int = 256
    """Edits of two or three decisions."""
    uniform: int = 256
    """Uniform samples."""
    sampled: int = 32
    """Samples of the policy."""
    imagined: int = 16
    """Samples of the policy, after each batch, that it learns from by the rewards that the critic predicts."""
    prior: str | Sequence[str] = ()
    """Earlier searches to learn from: run folders, or addresses of Optuna storages; one, or a list."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prior = (self.prior,) if isinstance(self.prior, str) else tuple(self.prior)
        if not all(isinstance(location, str) and location for location in prior):
            raise InputError(f"GpCritic's prior must be run folders or addresses, got {self.prior!r}.")
        object.__setattr__(self, "prior", prior)  # hashable
        check_part("GpCritic's controller", self.controller, "a Controller", Controller)
        for name, low in (("first", 1), ("edits", 0), ("moves", 0), ("uniform", 1), ("sampled", 0), ("imagined", 0)):
            check_integer(f"GpCritic's {name}", getattr(self, name), low)

    def read_earlier(self, encoding: Encoding) -> EarlierTrials | None:
        """The trials of the earlier searches, if there are any. Raises: InputError if one cannot be read."""
        return load_earlier_trials(self.prior, encoding) if self.prior else None

    def digest(self, space: SearchSpace[Any]) -> str | None:
        """A digest of the earlier searches' trials, since a search must be resumed with the same ones."""
        if not self.prior:
            return None
        leaves = jax.tree.leaves(self.read_earlier(Encoding(space, self.bins)))
        return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()[:16]

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state after a batch; with several objectives a trial's score is its rank among all trials."""
        if not has_several_objectives(state, trials):
            return super().tell(state, trials)
        rewards = append_rewards(state, trials)
        scores = score_by_rank(rewards)
        single_objective = replace_rewards(trials, scores[state.trial_count :])
        return super().tell(replace_scores(state, scores), single_objective)._replace(rewards=rewards)

    def summary(self, state: ArraySearcherState) -> Mapping[str, float]:
        """The best reward, if there is one objective."""
        return {} if state.rewards else super().summary(state)

    def start(self, domain: Domain, key: Key) -> CriticState:
        """The state before any trial: a design, and an untrained critic and policy."""
        trials = make_history(domain)
        order_key, sample_key, policy_key, imagine_key = jax.random.split(key, 4)
        numbers = jnp.broadcast_to(jnp.arange(self.first)[:, None], (self.first, len(domain.valid)))
        strata = jax.random.permutation(order_key, numbers, independent=True)
        quantiles = (strata + jax.random.uniform(sample_key, strata.shape)) / self.first
        design = locate_points(domain, jnp.minimum(quantiles, 1 - 1e-7))
        no_trials = EarlierTrials(Points(*(leaf[:0] for leaf in design)), jnp.zeros(0), jnp.zeros(0, jnp.int32))
        room = len(trials.scores)
        process, indices = create_process(domain, room), jnp.zeros(room, jnp.int32)
        policy = self.controller.start(domain, policy_key)
        return CriticState(no_trials, trials, process, indices, design, policy, imagine_key)

    def learn_earlier(self, state: CriticState, domain: Domain, earlier: EarlierTrials) -> CriticState:
        """The state before any trial, whose critic and policy have learnt from the trials of earlier searches."""
        process = create_process(domain, len(earlier.targets) + len(state.history.scores), several_tasks=True)
        process = add_observations(process, compute_features(domain, earlier.points, earlier.task))
        points = earlier.complete(domain, state.key)
        controller = jax.lax.fori_loop(
            0, EARLIER_EPOCHS,
            lambda _, policy: self.controller.learn(policy, domain, points, earlier.targets), state.controller,
        )  # fmt: skip
        controller = controller._replace(past=state.controller.past, baseline=state.controller.baseline)
        return state._replace(earlier=earlier, process=process, controller=controller)

    def reserve(self, state: CriticState, count: int) -> CriticState:
        """The same state with room for `count` trials in all."""
        return state.widen(choose_capacity(count), min(choose_capacity(count), PROCESS_CAPACITY))

    def propose(self, state: CriticState, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, each chosen as if those before it had got the reward that the critic expects."""
        if count == 1:
            points, _ = self._choose(state, state.compute_targets(), domain, key)
            return Proposal(points.codes, compute_uniforms(domain, points), {})
        # Room for the expected rewards, which are dropped afterwards.
        room = choose_capacity(len(state.history.scores) + count)
        widened = state.widen(room, max(min(room, PROCESS_CAPACITY), len(state.trial_indices) + count))

        def choose_next(carry: tuple[CriticState, Array], key: Key) -> tuple[tuple[CriticState, Array], Points]:
            state, targets = carry
            point, mean = self._choose(state, targets, domain, key)
            targets = targets.at[state.count_observations()].set(mean)
            return (state.add_trials(domain, point, jnp.full(1, jnp.nan)), targets), point

        _, chosen = jax.lax.scan(choose_next, (widened, widened.compute_targets()), jax.random.split(key, count))
        points = Points(*(leaf[:, 0] for leaf in chosen))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def _choose(self, state: CriticState, targets: Array, domain: Domain, key: Key) -> tuple[Points, Array]:
        """One candidate [1, D], and the target [] that the critic expects of it."""
        earlier = state.earlier
        # The kernels take turns: counts lead to the right region, decisions to its summit.
        kernel = state.history.count % len(KERNELS)
        # The setting is sampled rather than the likeliest one: in the long run that averages over what is not known
        # about it (Snoek et al. 2012, Practical Bayesian Optimization of Machine Learning Algorithms, section 3.2).
        # Earlier searches have data enough to tell the likeliest one, and sampling would only delay the best.
        setting_key, key = jax.random.split(key)
        all_targets = jnp.concatenate([earlier.targets, targets])
        posterior = fit_posterior(state.process, all_targets, kernel, None if len(earlier.targets) else setting_key)
        proposals = self._propose_many(state, targets, domain, key)
        means, stds = predict(state.process, posterior, compute_features(domain, proposals))
        # The best target is 0, the mean, before the first trial of this search: there is nothing else to improve on.
        improvements = compute_log_improvement(means, stds, targets.max())
        # Where a code is one value, nothing is tried twice; its neighbours' rewards average out the noise.
        is_repeated = is_repeat(state.history, proposals.codes) & jnp.asarray(domain.exact).all()
        best = jnp.argmax(jnp.where(is_repeated, -jnp.inf, improvements))
        is_early, index = self._follow_design(state, posterior.setting)
        first = zero_inactive(domain, state.design).take(index)
        point = Points(*(jnp.where(is_early, a, b)[None] for a, b in zip(first, proposals.take(best), strict=True)))
        return point, jnp.where(is_early, 0.0, means[best])

    def _follow_design(self, state: CriticState, setting: Array) -> tuple[Array, Array]:
        """Whether the next candidate is one of the first design, and which of them."""
        count = state.history.count
        if not len(state.earlier.targets):
            return count < self.first, jnp.minimum(count, self.first - 1)
        # Earlier searches lead at once, and for as long as their task is likely to be correlated with this one.
        is_trusted = state.process.settings[setting, 3] > 0
        index = count - HEAD_START
        return (index >= 0) & (index < self.first) & ~is_trusted, jnp.clip(index, 0, self.first - 1)

    def _propose_many(self, state: CriticState, targets: Array, domain: Domain, key: Key) -> Points:
        """Candidates [N, D] for the critic to choose from."""
        keys = jax.random.split(key, 8)
        size = state.count_observations()
        _, order = jax.lax.top_k(jnp.where(jnp.arange(len(targets)) < size, targets, -jnp.inf), PARENTS)
        best = state.history.points.take(state.trial_indices[order])
        parts = [sample_points(domain, keys[0], self.uniform)]
        if len(state.earlier.targets):
            parts.append(self._propose_from_earlier(state.earlier, domain, keys[7]))
        if self.edits:
            parts.append(sample_edits(domain, best.take(jnp.arange(INCUMBENTS)), keys[1], self.edits))
        if self.moves:
            parents = best.take(jax.random.randint(keys[2], (self.moves,), 0, jnp.clip(size, 1, PARENTS)))
            count, step = jax.random.uniform(keys[3], (2, self.moves, 1))
            decisions = choose_decisions(domain, parents.codes, keys[4], 2 + (count < 0.5))
            parts.append(mutate_points(domain, parents, decisions, keys[5], 0.02 * 15**step))
        if self.sampled:
            samples = self.controller.propose(state.controller, domain, keys[6], self.sampled)
            parts.append(make_points(domain, samples.codes, samples.uniforms))
        return zero_inactive(domain, Points(*(jnp.concatenate(leaves) for leaves in zip(*parts, strict=True))))

    def _propose_from_earlier(self, earlier: EarlierTrials, domain: Domain, key: Key) -> Points:
        """The candidates of earlier searches, with unknown decisions sampled, and one-edits of the best of them."""
        sample_key, edit_key = jax.random.split(key)
        points = earlier.complete(domain, sample_key)
        _, order = jax.lax.top_k(earlier.targets, min(INCUMBENTS, len(earlier.targets)))
        edits = sample_edits(domain, points.take(order), edit_key, max(self.edits, 1))
        return Points(*(jnp.concatenate(pair) for pair in zip(points, edits, strict=True)))

    def learn(self, state: CriticState, domain: Domain, points: Points, scores: Array) -> CriticState:
        """The state whose critic and policy have learnt from N trials."""
        points, size = zero_inactive(domain, points), PROCESS_CAPACITY // 4  # an eviction makes room for as many
        for first in range(0, len(scores), size):
            part = slice(first, first + size)
            batch = Points(points.codes[part], points.quantiles[part])
            state = self._learn_batch(state, domain, batch, scores[part])
        return state

    def _learn_batch(self, state: CriticState, domain: Domain, points: Points, scores: Array) -> CriticState:
        state = state.make_room(len(scores)).add_trials(domain, points, scores)
        if not self.sampled:
            return state
        targets = state.compute_targets()
        first = state.count_observations() - len(scores)
        new_targets = jax.lax.dynamic_slice_in_dim(targets, first, len(scores))
        controller = self.controller.learn(state.controller, domain, points, new_targets)
        state = state._replace(controller=controller)
        return self._imagine(state, domain, targets) if self.imagined else state

    def _imagine(self, state: CriticState, domain: Domain, targets: Array) -> CriticState:
        """The state whose policy has learnt from samples of its own with the targets that the critic expects."""
        controller, key = state.controller, jax.random.fold_in(state.key, state.history.count)
        samples = self.controller.propose(controller, domain, key, self.imagined)
        points = zero_inactive(domain, make_points(domain, samples.codes, samples.uniforms))
        posterior = fit_posterior(state.process, jnp.concatenate([state.earlier.targets, targets]))
        means, _ = predict(state.process, posterior, compute_features(domain, points))
        # The samples are compared with each other only, and then dropped: replay and baseline are those of real trials.
        fresh = controller._replace(baseline=self.controller.baseline.start())
        learnt = self.controller.learn(fresh, domain, points, means)
        return state._replace(controller=learnt._replace(past=controller.past, baseline=controller.baseline))

    def summarise(self, state: CriticState) -> Mapping[str, Array]:
        """The best reward."""
        best = jnp.where(state.history.has_score(), state.history.scores, -jnp.inf).max()
        return {"best": jnp.where(state.history.has_score().any(), best, jnp.nan)}


def compute_log_improvement(means: Array, stds: Array, best: Array) -> Array:
    """The logarithm of the expected improvement [N] on `best`; where it underflows, means near `best` still win."""
    distances = (means - best) / stds
    gain = stds * (distances * jax.scipy.stats.norm.cdf(distances) + jax.scipy.stats.norm.pdf(distances))
    return jnp.where(gain > 1e-12, jnp.log(jnp.maximum(gain, 1e-30)), -30 + 1e-3 * distances)
