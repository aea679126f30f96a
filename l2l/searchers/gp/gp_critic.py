"""A controller with a Gaussian process as its critic: a policy and edits of the best propose, the critic chooses.

The parts are known ones: policy gradients with replay, expected improvement under a Gaussian process on ranks, and
candidates for it from local edits of the incumbents. Source of the acquisition: Jones et al. 1998, Efficient Global
Optimization of Expensive Black-Box Functions, equation 15.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l.encoding import Domain, Encoding
from l2l.errors import InputError
from l2l.pareto import sort_best_first
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
    pad_history,
    sample_points,
    zero_inactive,
)
from l2l.searchers.gp.gaussian_process import VIEWS, empty, featured, fitted, observed, predicted, widened
from l2l.searchers.gp.state import LIMIT, Critic, Source, ranked
from l2l.space import SearchSpace
from l2l.types import Array, Key, Trial

INCUMBENTS = 5
"""The best, each of whose one-edits is a proposal."""
TRIED = 5
"""Trials that a source leads before anything is known of it."""
LESSONS = 10
"""How often the policy goes through a source; no step leaves what it trusts by far, so that one would say little."""
PARENTS = 10
"""The best, of which several decisions at once are changed."""


@dataclass(frozen=True)
class GpCritic(ArraySearcher):
    """Proposes some hundred candidates a trial and takes the one with the highest expected improvement.

    The first candidates are a design in which every decision takes each of its values equally often. After
    that proposals come from a policy, uniformly, as all one-edits of the best few and as edits of several
    decisions of the best ten. The critic is a Gaussian process on the ranks of the rewards, and its policy
    learns from the trials and from what the critic thinks of its own draws.

    Raises: InputError if a number is out of its range.
    """

    controller: Controller = Controller(update=Ppo(minibatch=None, replay=16))  # noqa: RUF009  # frozen, hence safe to share
    first: int = 20
    """Trials of the first design."""
    edits: int = 256
    """One-edits of the best, at most; all of them where there are fewer."""
    moves: int = 256
    """Edits of two or three decisions."""
    uniform: int = 256
    sampled: int = 32
    """Draws of the policy."""
    imagined: int = 16
    """Draws of the policy, after each batch, from whose reward by the critic it learns."""
    prior: str | Sequence[str] = ()
    """Earlier searches to learn from: run folders, or addresses of Optuna storages; one, or a list."""

    def __post_init__(self) -> None:
        super().__post_init__()
        prior = (self.prior,) if isinstance(self.prior, str) else tuple(self.prior)
        if not all(isinstance(each, str) and each for each in prior):
            raise InputError(f"GpCritic's prior must be run folders or addresses, got {self.prior!r}.")
        object.__setattr__(self, "prior", prior)  # hashable
        if not isinstance(self.controller, Controller):
            raise InputError(f"GpCritic's controller must be a Controller, got {self.controller!r:.80}.")
        for name, low in (("first", 1), ("edits", 0), ("moves", 0), ("uniform", 1), ("sampled", 0), ("imagined", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < low:
                raise InputError(f"GpCritic's {name} must be a whole number of at least {low}, got {value!r}.")

    def read_earlier(self, encoding: Encoding) -> Source | None:
        """What the earlier searches tell of a space, if there are any. Raises: InputError if one cannot be read."""
        from l2l.searchers.gp.earlier_searches import MOST, known

        if not self.prior:
            return None
        found = [known(each, encoding, max(MOST // len(self.prior), 8)) for each in self.prior]
        points = Points(*(np.concatenate([each[part] for each in found]) for part in (0, 1)))  # pyright: ignore[reportArgumentType]
        targets = np.concatenate([np.asarray(ranked(each.scores, np.ones(len(each.scores), bool))) for each in found])
        task = np.concatenate([np.full(len(each.scores), at, np.int32) for at, each in enumerate(found, 1)])
        return Source(points, targets, task)  # pyright: ignore[reportArgumentType]

    def digest(self, space: SearchSpace[Any]) -> str | None:
        """A digest of what the earlier searches tell, since a search that is resumed must know the same."""
        if not self.prior:
            return None
        leaves = jax.tree.leaves(self.read_earlier(Encoding(space, self.bins)))
        return hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest()[:16]

    def tell(self, state: ArraySearcherState, trials: Sequence[Trial]) -> ArraySearcherState:
        """The state after a batch; of several objectives the fronts count, and then how crowded they are."""
        if all(trial.reward is None or len(trial.reward) == 1 for trial in trials) and not state.rewards:
            return super().tell(state, trials)
        told = (*(state.rewards or (None,) * state.trial_count), *(trial.reward for trial in trials))
        ended = [row for row, reward in enumerate(told) if reward is not None]
        scores = np.full(len(told), np.nan, np.float32)
        order = sort_best_first([told[row] or () for row in ended])
        scores[[ended[place] for place in order]] = -np.arange(len(order), dtype=np.float32)
        single = [
            trial if trial.reward is None else replace(trial, reward=(float(score),))
            for trial, score in zip(trials, scores[-len(trials) :], strict=True)
        ]
        kept = np.array(state.arrays.history.scores)
        kept[: state.trial_count] = scores[: state.trial_count]  # the new trials change the ranks of those before them
        arrays = state.arrays._replace(history=state.arrays.history._replace(scores=kept))
        return super().tell(state._replace(arrays=arrays), single)._replace(rewards=told)

    def summary(self, state: ArraySearcherState) -> Mapping[str, float]:
        """The best reward, where there is one objective."""
        return {} if state.rewards else super().summary(state)

    def start(self, domain: Domain, key: Key) -> Critic:
        """The first design, and nothing learnt."""
        kept = make_history(domain)
        orders, inside_, policy, later = jax.random.split(key, 4)
        numbers = jnp.broadcast_to(jnp.arange(self.first)[:, None], (self.first, len(domain.valid)))
        strata = jax.random.permutation(orders, numbers, independent=True)
        quantiles = (strata + jax.random.uniform(inside_, strata.shape)) / self.first
        design = locate_points(domain, jnp.minimum(quantiles, 1 - 1e-7))
        none = Source(Points(*(each[:0] for each in design)), jnp.zeros(0), jnp.zeros(0, jnp.int32))
        process = empty(domain, len(kept.scores))
        rows = jnp.zeros(len(kept.scores), jnp.int32)
        return Critic(none, kept, process, rows, design, self.controller.start(domain, policy), later)

    def learn_earlier(self, state: Critic, domain: Domain, earlier: Source) -> Critic:
        """The state before any trial, with what earlier searches tell the critic and the policy."""
        process = empty(domain, len(earlier.targets) + len(state.history.scores), several=True)
        process = observed(process, featured(domain, earlier.points, earlier.task))
        points = self._whole(earlier, domain, state.key)
        controller = jax.lax.fori_loop(
            0, LESSONS, lambda _, held: self.controller.learn(held, domain, points, earlier.targets), state.controller
        )
        controller = controller._replace(past=state.controller.past, baseline=state.controller.baseline)
        return state._replace(source=earlier, process=process, controller=controller)

    def reserve(self, state: Critic, count: int) -> Critic:
        """The same state with room for `count` trials in all."""
        room = choose_capacity(count)
        held = min(room, LIMIT)
        process = widened(state.process, len(state.source.targets) + held)
        rows = jnp.pad(state.rows, (0, max(held - len(state.rows), 0)))
        return state._replace(history=pad_history(state.history, room), process=process, rows=rows)

    def propose(self, state: Critic, domain: Domain, key: Key, count: int) -> Proposal:
        """`count` candidates, each chosen as if those before it had ended as the critic expects."""
        if count == 1:
            points, _ = self._chosen(state, state.targets(), domain, key)
            return Proposal(points.codes, compute_uniforms(domain, points), {})
        # Room for what is expected, which is forgotten afterwards.
        roomy = self.reserve(state, len(state.history.scores) + count)
        rows = len(state.rows) + count
        process = widened(roomy.process, len(state.source.targets) + rows)
        roomy = roomy._replace(process=process, rows=jnp.pad(roomy.rows, (0, max(rows - len(roomy.rows), 0))))

        def one(carry: tuple[Critic, Array], each: Key) -> tuple[tuple[Critic, Array], Points]:
            state, targets = carry
            point, mean = self._chosen(state, targets, domain, each)
            targets = targets.at[state.held()].set(mean)
            return (state.with_trials(domain, point, jnp.full(1, jnp.nan)), targets), point

        _, found = jax.lax.scan(one, (roomy, roomy.targets()), jax.random.split(key, count))
        points = Points(*(each[:, 0] for each in found))
        return Proposal(points.codes, compute_uniforms(domain, points), {})

    def _chosen(self, state: Critic, targets: Array, domain: Domain, key: Key) -> tuple[Points, Array]:
        """One candidate [1, D], and the target [] that the critic expects of it."""
        kept = state.history
        source = state.source
        # The views take turns: the counts lead to the right region, the places to its summit.
        view = kept.count % len(VIEWS)
        # A setting is drawn rather than chosen: in the long run that averages over what is not known about it
        # (Snoek et al. 2012, Practical Bayesian Optimization of Machine Learning Algorithms, section 3.2). A source
        # tells more than enough to choose one, and what is drawn there only takes longer to find the best.
        drawing, key = jax.random.split(key)
        known = jnp.concatenate([source.targets, targets])
        posterior = fitted(state.process, known, view, None if len(source.targets) else drawing)
        proposals = self._proposals(state, targets, domain, key)
        means, spreads = predicted(state.process, posterior, featured(domain, proposals))
        # Zero, the mean, before our own first trial: there is nothing else to improve on.
        value = log_improvement(means, spreads, targets.max())
        # Where a code is one value, trials go to what has not been tried; noise is met by its neighbours' rewards.
        value = jnp.where(is_repeat(kept, proposals.codes) & jnp.asarray(domain.exact).all(), -jnp.inf, value)
        best = jnp.argmax(value)
        early, begin = self._early(state, posterior.setting)
        begin = zero_inactive(domain, state.design).take(begin)
        point = Points(*(jnp.where(early, a, b)[None] for a, b in zip(begin, proposals.take(best), strict=True)))
        return point, jnp.where(early, 0.0, means[best])

    def _early(self, state: Critic, setting: Array) -> tuple[Array, Array]:
        """Whether it is still the first design's turn, and which of its candidates."""
        count = state.history.count
        if not len(state.source.targets):
            return count < self.first, jnp.minimum(count, self.first - 1)
        # A source is tried at once, and trusted for as long as it is likely to say something of our task.
        trusted = state.process.settings[setting, 3] > 0
        place = count - TRIED
        return (place >= 0) & (place < self.first) & ~trusted, jnp.clip(place, 0, self.first - 1)

    def _proposals(self, state: Critic, targets: Array, domain: Domain, key: Key) -> Points:
        """Candidates [M, D] to choose from."""
        keys = jax.random.split(key, 8)
        kept = state.history
        held = jnp.arange(len(targets)) < state.held()
        _, order = jax.lax.top_k(jnp.where(held, targets, -jnp.inf), PARENTS)
        best = kept.points.take(state.rows[order])
        parts = [sample_points(domain, keys[0], self.uniform)]
        if len(state.source.targets):
            parts.append(self._sourced(state.source, domain, keys[7]))
        if self.edits:
            parts.append(sample_edits(domain, best.take(jnp.arange(INCUMBENTS)), keys[1], self.edits))
        if self.moves:
            ours = jax.random.randint(keys[2], (self.moves,), 0, jnp.clip(state.held(), 1, PARENTS))
            parents = best.take(ours)
            size, step = jax.random.uniform(keys[3], (2, self.moves, 1))
            chosen = choose_decisions(domain, parents.codes, keys[4], 2 + (size < 0.5))
            parts.append(mutate_points(domain, parents, chosen, keys[5], 0.02 * 15**step))
        if self.sampled:
            found = self.controller.propose(state.controller, domain, keys[6], self.sampled)
            parts.append(make_points(domain, found.codes, found.uniforms))
        return zero_inactive(domain, Points(*(jnp.concatenate(each) for each in zip(*parts, strict=True))))

    def _sourced(self, source: Source, domain: Domain, key: Key) -> Points:
        """The source's own candidates, what they lack drawn anew, and one-edits of its best."""
        first, second = jax.random.split(key)
        whole = self._whole(source, domain, first)
        _, order = jax.lax.top_k(source.targets, min(INCUMBENTS, len(source.targets)))
        edits = sample_edits(domain, whole.take(order), second, max(self.edits, 1))
        return Points(*(jnp.concatenate(pair) for pair in zip(whole, edits, strict=True)))

    def _whole(self, source: Source, domain: Domain, key: Key) -> Points:
        """The source's candidates [S, D], what they lack drawn anew."""
        fresh, known = sample_points(domain, key, len(source.targets)), source.points.codes >= 0
        return zero_inactive(
            domain, Points(*(jnp.where(known, a, b) for a, b in zip(source.points, fresh, strict=True)))
        )

    def learn(self, state: Critic, domain: Domain, points: Points, scores: Array) -> Critic:
        """What the critic and the policy learn from N trials."""
        points, most = zero_inactive(domain, points), LIMIT // 4  # of which there is always room for as many
        for first in range(0, len(scores), most):
            some = slice(first, first + most)
            part = Points(points.codes[some], points.quantiles[some])
            state = self._learnt(state, domain, part, scores[some])
        return state

    def _learnt(self, state: Critic, domain: Domain, points: Points, scores: Array) -> Critic:
        learnt = state.spared(len(scores)).with_trials(domain, points, scores)
        if not self.sampled:
            return learnt
        targets = learnt.targets()
        ours = jax.lax.dynamic_slice_in_dim(targets, learnt.held() - len(scores), len(scores))
        controller = self.controller.learn(state.controller, domain, points, ours)
        if self.imagined:
            key = jax.random.fold_in(state.key, learnt.history.count)
            found = self.controller.propose(controller, domain, key, self.imagined)
            draws = zero_inactive(domain, make_points(domain, found.codes, found.uniforms))
            posterior = fitted(learnt.process, jnp.concatenate([state.source.targets, targets]))
            means, _ = predicted(learnt.process, posterior, featured(domain, draws))
            # Compared with each other, and forgotten: past and baseline are those of trials that were run.
            alone = controller._replace(baseline=self.controller.baseline.start())
            after = self.controller.learn(alone, domain, draws, means)
            controller = after._replace(past=controller.past, baseline=controller.baseline)
        return learnt._replace(controller=controller)

    def summarise(self, state: Critic) -> Mapping[str, Array]:
        """The best reward."""
        best = jnp.where(state.history.has_score(), state.history.scores, -jnp.inf).max()
        return {"best": jnp.where(state.history.has_score().any(), best, jnp.nan)}


def log_improvement(means: Array, spreads: Array, best: Array) -> Array:
    """The logarithm of the expected improvement [M] on `best`; where it underflows, how many spreads are missing."""
    far = (means - best) / spreads
    gain = spreads * (far * jax.scipy.stats.norm.cdf(far) + jax.scipy.stats.norm.pdf(far))
    return jnp.where(gain > 1e-12, jnp.log(jnp.maximum(gain, 1e-30)), -30 + 1e-3 * far)
