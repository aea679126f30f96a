"""Optuna's samplers behind pure states: a study is built from all trials at each ask, or followed and replayed.

Source: Akiba et al. 2019, Optuna: A Next-generation Hyperparameter Optimization Framework, KDD.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import warnings
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from l2l.encoding import strip_builder
from l2l.errors import InputError
from l2l.space import Candidate, Categorical, Choice, Integer, SearchSpace, Value
from l2l.types import Key, Status, Trial


class Observation(NamedTuple):
    """The part of a finished trial that a sampler learns from."""

    candidate: Candidate
    reward: tuple[float, ...] | None
    """None if the trial failed."""
    steps: Mapping[int, float] | None = None
    """The score after each epoch of a pruned trial; None for any other."""

    @staticmethod
    def from_trial(trial: Trial) -> Observation:
        """A trial's observation; with several objectives a pruned trial counts as complete with its last scores."""
        # Optuna prunes for one objective only, and leaving these trials out would lose most of a search.
        if trial.status is not Status.PRUNED or trial.reward is None or len(trial.reward) != 1:
            return Observation(trial.candidate, trial.reward)
        return Observation(trial.candidate, trial.reward, {epoch: score[0] for epoch, score in trial.scores.items()})


class OptunaState(NamedTuple):
    """Every observation, batch by batch: Optuna's own state is rebuilt from them."""

    space: SearchSpace[Any]
    seed: int
    batches: tuple[tuple[Observation, ...], ...] = ()
    digests: tuple[str, ...] = ()
    """The digest of all observations before the first batch, and after each batch."""

    def count_objectives(self) -> int:
        """How many numbers a reward has; 1 before the first reward is known."""
        rewards = (observation.reward for batch in self.batches for observation in batch)
        return next((len(reward) for reward in rewards if reward is not None), 1)


class OptunaSearcher:
    """What all searchers by Optuna's samplers share: their state, and how it grows."""

    def init(self, space: SearchSpace[Any], key: Key) -> OptunaState:
        """The state before any trial, with the seed of all randomness that a replay repeats."""
        seed = derive_seed(key)
        return OptunaState(strip_builder(space), seed, (), (_hash_text(json.dumps([space.describe(), seed])),))

    def tell(self, state: OptunaState, trials: Sequence[Trial]) -> OptunaState:
        """The state with one more batch. Raises: InputError if rewards differ in length."""
        batch = tuple(map(Observation.from_trial, trials))
        entries = [[observation.candidate.key, observation.reward, observation.steps] for observation in batch]
        digest = _hash_text(json.dumps([state.digests[-1], *entries]))
        state = state._replace(batches=(*state.batches, batch), digests=(*state.digests, digest))
        objectives = state.count_objectives()
        for observation in batch:
            if observation.reward is not None and len(observation.reward) != objectives:
                raise InputError(
                    f"every reward of a search must have the same length: expected {objectives}, "
                    f"got {len(observation.reward)}."
                )
        return state

    def summary(self, state: OptunaState) -> Mapping[str, float]:
        """The mean first reward of the last batch; empty before any."""
        last_batch = state.batches[-1] if state.batches else ()
        rewards = [observation.reward[0] for observation in last_batch if observation.reward is not None]
        return {"reward": sum(rewards) / len(rewards)} if rewards else {}


@dataclass
class StudySession:
    """A study that follows one search."""

    study: optuna.Study
    pending: list[tuple[optuna.Trial, Candidate]] = field(default_factory=list[tuple[optuna.Trial, Candidate]])
    """The trials that were asked for and not told yet, each with its candidate."""


class ReplayedSearcher(OptunaSearcher, abc.ABC):
    """A sampler whose own state lives in the study: it is rebuilt by repeating the search's asks and tells.

    All randomness comes from the seed fixed at `init`, hence `ask` does not use its key. The session that has just
    asked is cached for the tell that usually follows, so that a running search never replays.
    """

    @abc.abstractmethod
    def create_sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, as it starts."""

    def tell(self, state: OptunaState, trials: Sequence[Trial]) -> OptunaState:
        """The state with one more batch, in which a pruned trial is complete with the reward of its last rung.

        Such samplers build populations from complete trials only, and early stopping leaves few of those. Raises:
        InputError if rewards differ in length.
        """
        trials = [replace(trial, scores={}, status=Status.COMPLETE) if trial.reward else trial for trial in trials]
        return super().tell(state, trials)

    def suggest_candidate(self, space: SearchSpace[Any], study: optuna.Study) -> tuple[optuna.Trial, Candidate]:
        """One candidate, and the trial that Optuna keeps of it."""
        trial = study.ask()
        return trial, suggest_candidate(space, trial)

    def encode_candidate(
        self, space: SearchSpace[Any], candidate: Candidate
    ) -> dict[str, tuple[Any, BaseDistribution]]:
        """A candidate that the sampler did not propose, as Optuna's parameters."""
        return {
            name: (value, create_distribution(space.choices[name]))
            for name, value in encode_values(space, candidate).items()
        }

    def ask(self, state: OptunaState, key: Key, count: int) -> list[Candidate]:
        """The next `count` candidates of the sampler after all trials of the state."""
        with silence_optuna():
            session = self._catch_up(state)
            session.pending = [self.suggest_candidate(state.space, session.study) for _ in range(count)]
        _cache_session((self, state.count_objectives(), state.digests[-1]), session)
        return [candidate for _, candidate in session.pending]

    def _catch_up(self, state: OptunaState) -> StudySession:
        """A session that has been told every batch of `state`, with nothing pending.

        The invariant: a session that the cache holds under the digest of `n` batches has been told exactly these
        batches, in their order, and has then been asked once; its pending trials are the answer. A batch can
        therefore be told to it if it has as many trials as are pending. The newest cached session that fits is taken
        out of the cache, and the batches after it are replayed: for each one the sampler is asked for as many
        candidates as the batch has, and then told their rewards. What the sampler does depends on this sequence of
        asks and tells alone, so a replay ends where the running search stands.
        """
        count, session = self._resume_session(state)
        for batch in state.batches[count:]:
            pending = session.pending or [self.suggest_candidate(state.space, session.study) for _ in batch]
            for (trial, candidate), observation in zip(pending, batch, strict=True):
                self._tell_study(state.space, session.study, trial, candidate, observation)
            session.pending = []
        return session

    def _resume_session(self, state: OptunaState) -> tuple[int, StudySession]:
        """The cached session that knows most batches of `state`, with their number; otherwise a new session and 0."""
        objectives = state.count_objectives()
        for count in reversed(range(len(state.batches))):
            session = _SESSIONS.pop((self, objectives, state.digests[count]), None)
            if session is not None and len(session.pending) == len(state.batches[count]):
                return count, session
        return 0, StudySession(create_study(self.create_sampler(state.seed), objectives))

    def _tell_study(
        self,
        space: SearchSpace[Any],
        study: optuna.Study,
        trial: optuna.Trial,
        candidate: Candidate,
        observation: Observation,
    ) -> None:
        """Tells the study what came of the trial in which it proposed `candidate`."""
        if observation.reward is None:
            study.tell(trial, state=TrialState.FAIL)
        elif candidate == observation.candidate:
            study.tell(trial, list(observation.reward))
        else:  # The observation comes from elsewhere: the sampler learns from it all the same.
            study.tell(trial, state=TrialState.FAIL)
            parameters = self.encode_candidate(space, observation.candidate)
            study.add_trial(
                optuna.create_trial(
                    params={name: value for name, (value, _) in parameters.items()},
                    distributions={name: distribution for name, (_, distribution) in parameters.items()},
                    values=observation.reward,
                )
            )


SESSION_LIMIT = 8
"""The most sessions in the cache; the oldest leaves first."""
_SESSIONS: OrderedDict[tuple[ReplayedSearcher, int, str], StudySession] = OrderedDict()
"""Sessions by searcher, number of objectives and digest of the batches they were told: a cache, to save time."""


def _cache_session(name: tuple[ReplayedSearcher, int, str], session: StudySession) -> None:
    _SESSIONS[name] = session
    while len(_SESSIONS) > SESSION_LIMIT:
        _SESSIONS.popitem(last=False)


@contextlib.contextmanager
def silence_optuna() -> Generator[None]:
    """Turns off Optuna's log lines and its warnings about experimental features."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def create_study(sampler: BaseSampler, objectives: int) -> optuna.Study:
    """A study in memory that maximises every objective."""
    return optuna.create_study(sampler=sampler, directions=[StudyDirection.MAXIMIZE] * objectives)


def create_distribution(choice: Choice) -> BaseDistribution:
    """Optuna's distribution of a choice; of a Categorical over the indices of its options."""
    if isinstance(choice, Categorical):
        # Indices, not options: Optuna takes True for 1.
        return CategoricalDistribution(range(len(choice.options)))
    if isinstance(choice, Integer):
        return IntDistribution(choice.low, choice.high, log=choice.log, step=choice.step)
    return FloatDistribution(choice.low, choice.high, log=choice.log)


def encode_values(space: SearchSpace[Any], candidate: Candidate) -> dict[str, Any]:
    """A candidate's values as those of Optuna's parameters; an option as its index."""

    def encode_value(choice: Choice, value: Value) -> Any:
        return int(choice.quantile(value) * len(choice.options)) if isinstance(choice, Categorical) else value

    return {name: encode_value(space.choices[name], value) for name, value in candidate.values.items()}


def suggest_candidate(space: SearchSpace[Any], trial: optuna.Trial) -> Candidate:
    """A candidate by define-by-run: only the active choices are asked for."""

    def suggest_value(name: str, choice: Choice) -> Value:
        if isinstance(choice, Categorical):
            return choice.options[trial.suggest_categorical(name, range(len(choice.options)))]
        if isinstance(choice, Integer):
            return trial.suggest_int(name, choice.low, choice.high, step=choice.step, log=choice.log)
        return trial.suggest_float(name, choice.low, choice.high, log=choice.log)

    return space.complete(suggest_value)


def derive_seed(key: Key) -> int:
    """An integer seed from a key."""
    return int(jax.random.bits(key))


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
