"""Our searchers as an Optuna sampler, for any study anywhere.

Source: Akiba et al. 2019, Optuna: A Next-generation Hyperparameter Optimization Framework, KDD.
"""

from __future__ import annotations

import math
import random
import secrets
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import jax
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from l2l.errors import InputError, check_integer, check_part
from l2l.optuna_sampler.inferred_space import InferredSpace, ParameterHistory, create_choice, decode_value
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.types import Searcher, Status, Trial

S = TypeVar("S")

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
MAX_FOLDS = 32
"""The most folds, each with the states of a searcher on one space, in a sampler's cache."""
MAX_PENDING = 7
"""The most running trials that a proposal takes into account: a crashed trial stays open in a study for ever."""
CACHES = ("_lock", "_folds", "_served")
"""What is not pickled: nothing but time depends on it."""


class TrialFold(Generic[S]):
    """The state after a list of trials, with a cache of the states after some of its beginnings.

    Of n trials the cache has the state after the last multiple of each power of two. Where a list differs from the one
    before only in its last d trials, at most 2 d are folded again.
    """

    def __init__(self, start: S, step: Callable[[S, FrozenTrial], S]) -> None:
        """`start` is the state before any trial, `step` the state after one more trial."""
        self.start, self.step = start, step
        self.trials: Sequence[FrozenTrial] = ()
        self.snapshots: dict[int, tuple[int, S]] = {}
        """The number of trials and the state after them, by the largest power of two that divides the number."""

    def fold(self, trials: Sequence[FrozenTrial]) -> S:
        """The state after `trials`."""
        common = 0
        for old, new in zip(self.trials, trials, strict=False):
            if old is not new and old != new:
                break
            common += 1
        self.snapshots = {power: snapshot for power, snapshot in self.snapshots.items() if snapshot[0] <= common}
        first, state = max(self.snapshots.values(), key=lambda snapshot: snapshot[0], default=(0, self.start))
        for count, trial in enumerate(trials[first:], first + 1):
            state = self.step(state, trial)
            self.snapshots[count & -count] = count, state
        self.trials = trials
        return state


class ControllerSampler(BaseSampler):
    """Proposes by one of l2l's searchers, which learns from the study's finished trials in the order of their numbers.

    The sampler learns what a study asks for while it runs. Parameters that are in every trial, and those that come with
    certain values of another one, are proposed together from a conditional space; any other parameter is searched on
    its own, by its own history. Failed trials count as failed, and so do values that are not finite; pruned trials
    count with their last intermediate value. Equal seeds and histories give equal proposals.

    Raises: InputError if an argument is out of its range, or later if the searcher cannot serve a study's objectives.
    """

    def __init__(self, searcher: Searcher[Any] | None = None, *, seed: int | None = None, startup: int = 10) -> None:
        """`searcher=None` is `GpCritic()`; the first `startup` trials that do not fail are sampled uniformly."""
        searcher = GpCritic() if searcher is None else searcher
        check_part("ControllerSampler's searcher", searcher, "a Searcher, such as GpCritic()", Searcher)
        if isinstance(searcher, GpCritic) and searcher.prior:
            raise InputError(
                "ControllerSampler's searcher may have no prior; give the study the earlier trials: "
                "study.add_trials(optuna.load_study(...).trials)."
            )
        check_integer("ControllerSampler's seed", seed, 0, 2**32 - 1, optional=True)
        check_integer("ControllerSampler's startup", startup, 0)
        self.searcher = searcher
        self.startup = startup
        self._seed = secrets.randbits(32) if seed is None else seed
        self._reseeded = 0
        self._clear_caches()

    def _clear_caches(self) -> None:
        self._lock = threading.Lock()
        self._folds: OrderedDict[str, TrialFold[Any]] = OrderedDict()
        self._served: set[int] = {1}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in CACHES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._clear_caches()

    def reseed_rng(self) -> None:
        """Changes the random numbers from here on; what was learnt stays."""
        self._reseeded += 1

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that are proposed together; none during the startup."""
        self._check_objectives(study)
        trials = _list_finished(study)
        if _count_unfailed(trials) < self.startup:
            return {}
        return self._fold_parameters(study, trials).select_joint()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of these parameters in the searcher's candidate."""
        self._check_objectives(study)
        if not search_space:
            return {}
        trials = _list_finished(study)
        conditions = self._fold_parameters(study, trials).infer_conditions(search_space)
        if not conditions:  # another worker's trial, or a sampler around this one, has left nothing to propose together
            return {}
        return self._propose(study, trial, trials, InferredSpace(search_space, conditions), "")

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of one parameter by its own history; a uniform sample while that is shorter than the startup."""
        self._check_objectives(study)
        trials = _list_finished(study)
        count = _count_unfailed([other for other in trials if param_name in other.params])
        if param_distribution.single() or count < max(self.startup, 1):
            generator = random.Random(f"{self._seed} {self._reseeded} {trial.number} {param_name}")
            return decode_value(param_distribution, create_choice(param_distribution).value_at(generator.random()))
        space = InferredSpace({param_name: param_distribution}, {param_name: {}})
        return self._propose(study, trial, trials, space, param_name)[param_name]

    def _propose(
        self, study: optuna.Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], space: InferredSpace, purpose: str
    ) -> dict[str, Any]:
        """The parameters of one candidate after `trials`."""
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            root = jax.random.key(self._seed)
            state = self._fold_searcher(study, trials, space, root)
            key = root
            for part in (1 + self._reseeded, trial.number, zlib.crc32(purpose.encode())):
                key = jax.random.fold_in(key, part)
            # The last candidate of a batch whose others stand for the running trials, which would get the same one from
            # the same state. The batch's size is a power of two, so that few programs are compiled.
            pending = min(_count_running_before(study, trial), MAX_PENDING)
            candidate = self.searcher.ask(state, key, 1 << pending.bit_length())[pending]
        return space.decode_candidate(candidate)

    def _fold_parameters(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> ParameterHistory:
        """The parameters that the trials asked for."""
        return self._fold(study, trials, "", lambda: TrialFold(ParameterHistory(), ParameterHistory.add_trial))

    def _fold_searcher(
        self, study: optuna.Study, trials: Sequence[FrozenTrial], inferred: InferredSpace, root: jax.Array
    ) -> Any:
        """The searcher's state on a space after the trials."""
        directions = study.directions

        def create_fold() -> TrialFold[Any]:
            space = inferred.create_space()

            def tell(state: Any, trial: FrozenTrial) -> Any:
                candidate = inferred.encode_trial(space, trial)
                if candidate is None:
                    return state
                return self.searcher.tell(state, [_convert_trial(trial, candidate, directions)])

            return TrialFold(self.searcher.init(space, jax.random.fold_in(root, 0)), tell)

        name = repr((directions, sorted(inferred.distributions.items()), inferred.conditions))
        return self._fold(study, trials, name, create_fold)

    def _fold(
        self, study: optuna.Study, trials: Sequence[FrozenTrial], name: str, create_fold: Callable[[], TrialFold[Any]]
    ) -> Any:
        """The state after the trials of the fold with this name; threads take turns."""
        # Hyperband shows each of its brackets as a study of its own: their first trials tell them apart.
        name = f"{study.study_name} {trials[0].number if trials else None} {name}"
        with self._lock:
            if name not in self._folds:
                self._folds[name] = create_fold()
            self._folds.move_to_end(name)
            while len(self._folds) > MAX_FOLDS:
                self._folds.popitem(last=False)
            return self._folds[name].fold(trials)

    def _check_objectives(self, study: optuna.Study) -> None:
        """Rejects a study of more objectives than the searcher serves. Raises: InputError."""
        count = len(study.directions)
        if count in self._served:
            return
        # Only the searcher knows, so it is told one trial with so many objectives.
        space = SearchSpace({"x": Categorical(options=(0, 1))}, lambda values, spec: values)
        trial = Trial(0, Candidate({"x": 0}), (0, 1), (0,), Status.COMPLETE, reward=(0.0,) * count)
        try:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                self.searcher.tell(self.searcher.init(space, jax.random.key(0)), [trial])
        except InputError:
            raise InputError(
                f"{type(self.searcher).__name__} cannot serve a study of {count} objectives; give the study one "
                "direction, or the sampler a searcher for several such as GpCritic(), Nsga2() or Tpe()."
            ) from None
        self._served.add(count)


def _list_finished(study: optuna.Study) -> list[FrozenTrial]:
    return sorted(study.get_trials(deepcopy=False, states=FINISHED), key=lambda trial: trial.number)


def _count_running_before(study: optuna.Study, trial: FrozenTrial) -> int:
    """How many earlier trials are still running."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(other.number < trial.number for other in running)


def _count_unfailed(trials: Sequence[FrozenTrial]) -> int:
    """How many trials have not failed."""
    return sum(trial.state is not TrialState.FAIL for trial in trials)


def _convert_trial(trial: FrozenTrial, candidate: Candidate, directions: Sequence[StudyDirection]) -> Trial:
    """A finished trial of Optuna's as one of ours: larger is better, and a value that is not finite is a failure."""
    signs = [1 if direction is StudyDirection.MAXIMIZE else -1 for direction in directions]
    steps = {step: value for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}
    values: Sequence[float] | None = None
    if trial.state is TrialState.COMPLETE:
        values = trial.values
    elif trial.state is TrialState.PRUNED and trial.last_step is not None and len(signs) == 1:
        values = [trial.intermediate_values[trial.last_step]]
    if values is None or not all(map(math.isfinite, values)):
        return Trial(trial.number, candidate, (trial.number, 1), (trial.number,), Status.FAILED)
    return Trial(
        trial.number, candidate, (trial.number, 1), (trial.number,),
        Status.PRUNED if trial.state is TrialState.PRUNED else Status.COMPLETE,
        reward=tuple(sign * value for sign, value in zip(signs, values, strict=True)),
        scores={step: (signs[0] * value,) for step, value in steps.items()} if len(signs) == 1 else {},
    )  # fmt: skip
