"""Our searchers as a sampler of Optuna's, for any study anywhere.

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

from l2l.errors import InputError
from l2l.optuna_sampler.inferred_space import Asked, Defined, choice, value
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.space import Candidate, Categorical, SearchSpace
from l2l.types import Searcher, Status, Trial

S = TypeVar("S")

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
SPACES = 32
"""How many spaces' states are kept."""


class Fold(Generic[S]):
    """The state after a list of trials, and as a cache those after some of its beginnings.

    Of n trials it keeps the state after the last multiple of each power of two, so that where the list has changed d
    from its end, at most 2 d are told again.
    """

    def __init__(self, start: S, step: Callable[[S, FrozenTrial], S]) -> None:
        self.start, self.step = start, step
        self.trials: Sequence[FrozenTrial] = ()
        self.kept: dict[int, tuple[int, S]] = {}

    def over(self, trials: Sequence[FrozenTrial]) -> S:
        """The state after `trials`."""
        same = 0
        for old, new in zip(self.trials, trials, strict=False):
            if old is not new and old != new:
                break
            same += 1
        self.kept = {slot: each for slot, each in self.kept.items() if each[0] <= same}
        done, state = max(self.kept.values(), key=lambda each: each[0], default=(0, self.start))
        for count, trial in enumerate(trials[done:], done + 1):
            state = self.step(state, trial)
            self.kept[count & -count] = count, state
        self.trials = trials
        return state


class ControllerSampler(BaseSampler):
    """Proposes by one of l2l's searchers, which learns from the study's finished trials in the order of their numbers.

    What a study asks for is learnt as it runs: parameters that are in every trial, and those that come with certain
    values of another one, are proposed together from a conditional space; any other is searched alone, by its own
    history. Failed trials count as failed, as do values that are not finite; pruned ones count with their last
    intermediate value. Equal seeds and histories give equal proposals.

    Raises: InputError if an argument is out of its range, or later if the searcher cannot serve a study's objectives.
    """

    def __init__(self, searcher: Searcher[Any] | None = None, *, seed: int | None = None, startup: int = 10) -> None:
        """`searcher` is `GpCritic()` unless given; the first `startup` trials that do not fail are uniform draws."""
        searcher = GpCritic() if searcher is None else searcher
        if isinstance(searcher, type) or not callable(getattr(searcher, "ask", None)):
            raise InputError(f"ControllerSampler's searcher must be a Searcher, such as GpCritic(), got {searcher!r}.")
        if getattr(searcher, "prior", ()):
            raise InputError(
                "ControllerSampler's searcher may have no prior; give the study the earlier trials: "
                "study.add_trials(optuna.load_study(...).trials)."
            )
        if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
            raise InputError(f"ControllerSampler's seed must be a whole number from 0 to {2**32 - 1}, got {seed!r}.")
        if type(startup) is not int or startup < 0:
            raise InputError(f"ControllerSampler's startup must be a whole number, 0 or more, got {startup!r}.")
        self.searcher = searcher
        self.startup = startup
        self._seed = secrets.randbits(32) if seed is None else seed
        self._reseeded = 0
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._folds: OrderedDict[str, Fold[Any]] = OrderedDict()
        self._served: set[int] = {1}

    def __getstate__(self) -> dict[str, Any]:
        return {name: each for name, each in vars(self).items() if name not in CACHES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def reseed_rng(self) -> None:
        """Other draws from here on; what has been learnt stays."""
        self._reseeded += 1

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is proposed together; nothing during the startup."""
        self._check(study)
        trials = _finished(study)
        if _succeeded(trials) < self.startup:
            return {}
        return self._asked(study, trials).joint()

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of those parameters that the searcher's candidate has."""
        self._check(study)
        if not search_space:
            return {}
        trials = _finished(study)
        conditions = self._asked(study, trials).conditions(search_space)
        if not conditions:  # another worker's trial, or a sampler around this one, has left nothing to propose together
            return {}
        return self._proposed(study, trial, trials, Defined(search_space, conditions), "")

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of one parameter from its own history; drawn uniformly while that is shorter than the startup."""
        self._check(study)
        trials = _finished(study)
        known = _succeeded([each for each in trials if param_name in each.params])
        if param_distribution.single() or known < max(self.startup, 1):
            draw = random.Random(f"{self._seed} {self._reseeded} {trial.number} {param_name}")
            return value(param_distribution, choice(param_distribution).value_at(draw.random()))
        alone = Defined({param_name: param_distribution}, {param_name: {}})
        return self._proposed(study, trial, trials, alone, param_name)[param_name]

    def _proposed(
        self, study: optuna.Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], defined: Defined, purpose: str
    ) -> dict[str, Any]:
        """The parameters of one candidate after `trials`."""
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            root = jax.random.key(self._seed)
            state = self._state(study, trials, defined, root)
            key = root
            for each in (1 + self._reseeded, trial.number, zlib.crc32(purpose.encode())):
                key = jax.random.fold_in(key, each)
            # As the last of a batch with those that others are at work on, which from the same state would propose the
            # same; a power of two of them, so that few programs are compiled.
            others = min(_open(study, trial), OTHERS)
            candidate = self.searcher.ask(state, key, 1 << others.bit_length())[others]
        return defined.values(candidate)

    def _asked(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> Asked:
        """What the trials asked for."""
        return self._folded(study, trials, "", lambda: Fold(Asked(), Asked.after))

    def _state(self, study: optuna.Study, trials: Sequence[FrozenTrial], defined: Defined, root: jax.Array) -> Any:
        """Where the searcher stands on a space after the trials."""
        directions = study.directions

        def start() -> Fold[Any]:
            space = defined.space()

            def step(state: Any, trial: FrozenTrial) -> Any:
                candidate = defined.candidate(space, trial)
                return state if candidate is None else self.searcher.tell(state, [_ended(trial, candidate, directions)])

            return Fold(self.searcher.init(space, jax.random.fold_in(root, 0)), step)

        name = repr((directions, sorted(defined.distributions.items()), defined.conditions))
        return self._folded(study, trials, name, start)

    def _folded(
        self, study: optuna.Study, trials: Sequence[FrozenTrial], name: str, start: Callable[[], Fold[Any]]
    ) -> Any:
        """The state of a fold over the trials, in whichever thread."""
        # Hyperband shows each of its brackets as a study of its own: their first trials tell them apart.
        name = f"{study.study_name} {trials[0].number if trials else None} {name}"
        with self._lock:
            if name not in self._folds:
                self._folds[name] = start()
            self._folds.move_to_end(name)
            while len(self._folds) > SPACES:
                self._folds.popitem(last=False)
            return self._folds[name].over(trials)

    def _check(self, study: optuna.Study) -> None:
        """Refuses a study of more objectives than the searcher serves. Raises: InputError."""
        count = len(study.directions)
        if count in self._served:
            return
        # A rehearsal: only the searcher knows.
        space = SearchSpace({"x": Categorical(options=(0, 1))}, lambda values, spec: values)
        ended = Trial(0, Candidate({"x": 0}), (0, 1), (0,), Status.COMPLETE, reward=(0.0,) * count)
        try:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                self.searcher.tell(self.searcher.init(space, jax.random.key(0)), [ended])
        except InputError:
            raise InputError(
                f"{type(self.searcher).__name__} cannot serve a study of {count} objectives; give the study one "
                "direction, or the sampler a searcher for several such as GpCritic(), Nsga2() or Tpe()."
            ) from None
        self._served.add(count)


OTHERS = 7
"""The most trials at work that are heeded: what crashed stays open in a study for good."""
CACHES = ("_lock", "_folds", "_served")
"""What is not pickled: nothing depends on it but time."""


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return sorted(study.get_trials(deepcopy=False, states=FINISHED), key=lambda trial: trial.number)


def _open(study: optuna.Study, trial: FrozenTrial) -> int:
    """How many trials before this one are still at work."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(each.number < trial.number for each in running)


def _succeeded(trials: Sequence[FrozenTrial]) -> int:
    """How many have not failed."""
    return sum(trial.state is not TrialState.FAIL for trial in trials)


def _ended(trial: FrozenTrial, candidate: Candidate, directions: Sequence[StudyDirection]) -> Trial:
    """A finished trial in our words: larger is better, and what is not finite has failed."""
    signs = [1 if each is StudyDirection.MAXIMIZE else -1 for each in directions]
    steps = {step: each for step, each in sorted(trial.intermediate_values.items()) if math.isfinite(each)}
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
        reward=tuple(sign * each for sign, each in zip(signs, values, strict=True)),
        scores={step: (signs[0] * each,) for step, each in steps.items()} if len(signs) == 1 else {},
    )  # fmt: skip
