"""The search as an environment: what an agent sees, may do and is rewarded for, one at a time and many at once."""

from __future__ import annotations

import copy
import functools
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import l2l.envs
from l2l.encoding import Encoding
from l2l.envs.search import Search
from l2l.envs.vector import VectorSearch
from l2l.errors import InputError
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.reward import LatencyPenalised, Metric
from l2l.space import Categorical, Real, SearchSpace
from l2l.tasks.tabular import Lookup
from l2l.testing import SPACES, TOY, make_landscape, toy_reward, write_landscape
from l2l.testing.searchers import BEST
from l2l.types import Outcome, Trial

MADE = make_landscape(4, 3, seed=2)


@dataclass
class Toy:
    """Rewards candidates of `TOY`, fails what `fails` says, and keeps every batch that it was given."""

    reward: Callable[[Mapping[str, Any]], float] = toy_reward
    fails: Callable[[Mapping[str, Any]], bool] = lambda values: False
    batches: list[list[Trial]] = field(default_factory=list[list[Trial]])

    def check(self) -> set[str]:
        return {"score"}

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        self.batches.append(list(trials))
        for trial in reversed(trials):  # in any order
            values = trial.candidate.values
            error = "out of luck" if self.fails(values) else None
            yield replace(trial, outcome=Outcome({"score": self.reward(values)}, error=error))


def digest(values: Mapping[str, Any]) -> float:
    """A reward of any candidate, to the last digit of every number."""
    return random.Random(repr(sorted(values.items()))).random()


@pytest.fixture
def table(folder: Path) -> dict[str, Any]:
    """The arguments of an environment on a landscape of 4 decisions with 3 options each."""
    write_landscape("toy.npz", MADE)
    landscape = space("toy.npz", "codes")
    task = Lookup("toy.npz", "reward")
    objective = Tabular(space=landscape, task=task, path="toy.npz", codes="codes", reward="reward")
    return {"space": landscape, "objective": objective}


def make(**arguments: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(l2l.envs.NAME, **arguments)


def make_vec(count: int, mode: str = "vector_entry_point", **arguments: Any) -> gymnasium.vector.VectorEnv[Any, Any]:
    return gymnasium.make_vec(l2l.envs.NAME, num_envs=count, vectorization_mode=mode, **arguments)


def play(env: Any, pick: Callable[[np.ndarray], int], **reset: Any) -> tuple[float, dict[str, Any], int]:
    """One episode: its reward, the last info and how many steps it took."""
    _, info = env.reset(**reset)
    for count in range(1, 100):
        observation, reward, ended, truncated, info = env.step(pick(info["action_mask"]))
        assert observation in env.observation_space
        assert truncated is False
        if ended:
            return reward, info, count
        assert reward == 0
        assert set(info) == {"action_mask"}
    raise AssertionError("no end")


def random_pick(seed: int) -> Callable[[np.ndarray], int]:
    draw = np.random.RandomState(seed)
    return lambda mask: int(draw.choice(np.flatnonzero(mask)))


def test_gymnasiums_checker_has_nothing_to_say(table: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(**table).unwrapped)
        for name, one in SPACES.items():
            env = make(space=replace(one, name=name), objective=Toy(digest), invalid="fail", failed=0)
            check_env(env.unwrapped)
        check_env(make(space=TOY, objective=Toy(), invalid="fail", failed=0).unwrapped)
        play(make(space=TOY, objective=Toy()), random_pick(0))


def test_a_decision_is_a_step_and_the_reward_comes_last() -> None:
    env = make(space=TOY, objective=(toy := Toy()))
    codes, _ = Encoding(TOY).encode([TOY.candidate(BEST)])
    assert env.action_space == gymnasium.spaces.Discrete(16)
    observation, info = env.reset(seed=3)
    size, width = 4, 16
    assert observation.tolist() == [0.0] * (size * (width + 1)) + [1, 0, 0, 0]
    masks, one_hots = [info["action_mask"]], []
    for code in codes[0]:
        observation, reward, ended, _, info = env.step(code)
        masks.append(info["action_mask"])
        one_hots.append(observation[: size * (width + 1)].reshape(size, width + 1))
    assert [mask.sum() for mask in masks] == [5, 4, 4, 16, 16]
    assert {mask.dtype for mask in masks} == {np.dtype(np.int8)}
    assert all((mask[: mask.sum()] == 1).all() for mask in masks)
    for step, seen in enumerate(one_hots, 1):
        assert seen[:step].argmax(-1).tolist() == codes[0][:step].tolist()
        assert seen.sum() == step
    assert observation[-size:].tolist() == [0] * 4
    assert ended
    values = info["candidate"].values
    assert {**values, "d": 0.7} == BEST
    assert int(values["d"] * 16) == codes[0, 3] != values["d"] * 16
    assert reward == toy_reward(values)
    assert info["metrics"] == {"score": reward}
    ((trial,),) = toy.batches
    assert (trial.number, trial.batch, trial.cohort) == (0, (0, 1), (0,))


def test_what_is_inactive_is_skipped() -> None:
    env = make(space=TOY, objective=Toy())
    env.reset(seed=0)
    env.step(0)
    observation, _, _, _, info = env.step(0)  # "x" has no c
    assert observation[-4:].tolist() == [0, 0, 0, 1]
    assert observation[:-4].reshape(4, 17)[2].tolist() == [0] * 16 + [1]
    assert info["action_mask"].sum() == 16
    _, _, ended, _, info = env.step(15)
    assert ended
    assert list(info["candidate"].values) == ["a", "b", "d"]
    lengths = {play(env, random_pick(seed))[2] for seed in range(20)}
    assert lengths == {3, 4}


@pytest.mark.parametrize("name", SPACES)
def test_every_space_can_be_played(name: str) -> None:
    env = make(space=SPACES[name], objective=Toy(digest))
    for seed in range(10):
        reward, info, count = play(env, random_pick(seed), seed=seed)
        candidate = info["candidate"]
        assert SPACES[name].candidate(dict(candidate.values)) == candidate
        assert (reward, count) == (digest(candidate.values), len(candidate.values))


def test_a_seed_makes_it_new() -> None:
    env = make(space=TOY, objective=(toy := Toy()))
    first = [play(env, random_pick(1), seed=7)[1], play(env, random_pick(2))[1]]
    again = [play(env, random_pick(1), seed=7)[1], play(env, random_pick(2))[1]]
    assert [info["candidate"] for info in first] == [info["candidate"] for info in again]
    assert [trial.number for (trial,) in toy.batches] == [0, 1, 0, 1]
    other = play(env, random_pick(1), seed=8)[1]["candidate"]
    assert other != first[0]["candidate"]
    assert (Encoding(TOY).encode([other])[0] == Encoding(TOY).encode([first[0]["candidate"]])[0]).all()


def test_an_action_outside_the_mask_is_refused_and_changes_nothing() -> None:
    env = make(space=TOY, objective=(toy := Toy()))
    env.reset(seed=0)
    env.step(4)
    for wrong in (4, -1, 99, 1.5, "x"):
        with pytest.raises(InputError) as caught:
            env.unwrapped.step(wrong)
        sentence = (
            f"the action {wrong!r} is none of 'b', which takes 0 to 3; choose one where info['action_mask'] is 1."
        )
        assert str(caught.value) == sentence
    env.step(np.int64(0))
    assert env.step(np.array(3))[2]
    with pytest.raises(InputError, match=r"the episode has ended, or none has begun; call reset\(\) before step\(\)"):
        env.step(0)
    with pytest.raises(InputError, match="none has begun"):
        Search(TOY, Toy()).step(0)
    assert len(toy.batches) == 1


def test_an_action_outside_the_mask_may_also_end_the_episode() -> None:
    env = make(space=TOY, objective=(toy := Toy()), invalid="fail", failed=-1)
    env.reset(seed=0)
    _, reward, ended, truncated, info = env.step(15)
    assert (reward, ended, truncated) == (-1.0, True, False)
    assert info["error"].startswith("the action 15 is none of 'a', which takes 0 to 4")
    assert (info["metrics"], "candidate" in info) == ({}, False)
    assert toy.batches == []
    assert play(env, random_pick(0))[0] > 0
    assert toy.batches[0][0].number == 0


def picked(*codes: int) -> Callable[[np.ndarray], int]:
    left = list(codes)
    return lambda mask: left.pop(0)


def test_a_failed_trial_is_worth_the_lowest_so_far_or_what_is_said() -> None:
    arguments = {"space": TOY, "objective": Toy(fails=lambda values: values["a"] == 0)}
    env = make(**arguments)
    reward, info, _ = play(env, picked(0, 0, 0), seed=0)
    assert (reward, info["error"]) == (0.0, "out of luck")
    assert info["metrics"] == {"score": toy_reward(info["candidate"].values)}
    high, low = play(env, picked(2, 1, 3, 11))[0], play(env, picked(4, 0, 0))[0]
    assert high > low
    assert play(env, picked(0, 0, 0))[0] == low
    assert play(env, picked(0, 0, 0), seed=0)[0] == 0.0
    env = make(**arguments, failed=-2)
    rewards = [play(env, picked(first, 0, 0))[0] for first in (0, 4, 0)]
    assert (rewards[0], rewards[2]) == (-2, -2) != rewards[1]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_not_finite_is_a_failure(value: float) -> None:
    env = make(space=TOY, objective=Toy(lambda values: value))
    reward, info, _ = play(env, random_pick(0), seed=0)
    assert reward == 0
    assert "diverged" in info["error"]
    env = make(space=TOY, objective=lambda trials: [])
    assert play(env, random_pick(0), seed=0)[1]["error"] == "the objective gave no outcome."


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "space": ({"space": {"a": 1}}, "space must be a SearchSpace, got {'a': 1}"),
    "no objective": ({"objective": 3}, "objective must be an Objective, .*got 3"),
    "a class": ({"objective": Toy}, "objective must be an Objective"),
    "reward": ({"reward": "score"}, "reward must be a Reward, such as .*got 'score'"),
    "no length": ({"reward": len}, "reward must be a Reward, such as .*got <built-in function len>"),
    "no such metric": ({"reward": Metric("scores")}, "there is no metric 'scores': did you mean 'score'?"),
    "no such cost": ({"reward": LatencyPenalised(1.0)}, "there is no metric 'parameters'"),
    "failed": ({"failed": math.nan}, "failed must be a finite number or null, got nan"),
    "worthless": ({"invalid": "fail"}, "invalid='fail' needs failed=NUMBER: what an episode is worth that ends so."),
    "invalid": ({"invalid": "raise"}, "invalid must be 'refuse' or 'fail', got 'raise'"),
    "bins": ({"bins": 0}, "bins must be an integer of at least 1, got 0"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD)
def test_bad_arguments_are_one_sentence(arguments: dict[str, Any], words: str) -> None:
    for constructor in (make, functools.partial(make_vec, 2)):
        with pytest.raises(InputError, match=words):
            constructor(**{"space": TOY, "objective": Toy(), **arguments})


def test_an_objective_for_another_space_is_refused(table: dict[str, Any]) -> None:
    words = r"the objective was made for another space, of codes0, .*, where this one is of a, b, c, d;"
    with pytest.raises(InputError, match=words):
        make(space=TOY, objective=table["objective"])
    fewer = {name: Categorical(options=(0, 1)) for name in table["space"].choices}
    with pytest.raises(InputError, match=r"give both the same one, names and values alike\.$"):
        make(space=SearchSpace(fewer, table["space"].build), objective=table["objective"])


def test_of_several_metrics_one_is_chosen(table: dict[str, Any]) -> None:
    np.savez("toy.npz", codes=MADE.codes, reward=MADE.rewards, test=-MADE.rewards)
    both = replace(table["objective"], report="test")
    with pytest.raises(InputError, match=r"the objective measures reward, test; say which as reward=Metric\(NAME\)"):
        make(space=table["space"], objective=both)
    env = make(space=table["space"], objective=both, reward=Metric("test"))
    assert play(env, random_pick(0))[0] < 0


def test_the_table_is_what_is_played(table: dict[str, Any]) -> None:
    env = make(**table)
    for codes, reward in zip(MADE.codes, MADE.rewards, strict=True):
        assert play(env, picked(*codes))[0] == reward
    assert env.unwrapped.action_masks().tolist() == [True] * 3  # pyright: ignore[reportAttributeAccessIssue]


def test_bins_are_the_encodings() -> None:
    wide = SearchSpace({"rate": Real(low=1e-4, high=1, log=True), "b": Categorical(options=(1, 2))}, lambda *_: None)
    env = make(space=wide, objective=Toy(digest), bins=4)
    rates = [play(env, picked(2, 0), seed=seed)[1]["candidate"].values["rate"] for seed in range(50)]
    assert all(1e-2 <= rate < 1e-1 for rate in rates)
    assert max(rates) / min(rates) > 5


def pairs(count: int, steps: int, seed: int, **arguments: Any) -> tuple[VectorSearch, list[list[int]]]:
    """The same random actions to our vector environment and to Gymnasium's own, which must answer alike."""
    draw = np.random.RandomState(seed)
    objective = arguments.pop("objective")
    vector = make_vec(count, objective=objective, **arguments)
    theirs = make_vec(count, "sync", objective=copy.deepcopy(objective), **arguments)
    assert (vector.observation_space, vector.action_space) == (theirs.observation_space, theirs.action_space)
    assert vector.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    (left, info), (right, other) = vector.reset(seed=seed), theirs.reset(seed=seed)
    ended: list[list[int]] = []
    for _ in range(steps):
        assert (left == right).all()
        assert left in vector.observation_space
        assert (info["action_mask"] == other["action_mask"]).all()
        actions = np.array([draw.choice(np.flatnonzero(mask)) for mask in info["action_mask"]])
        left, rewards, over, cut, info = vector.step(actions)
        right, expected, finished, truncated, other = theirs.step(actions)
        assert rewards.tolist() == expected.tolist()
        assert (over.tolist(), cut.tolist()) == (finished.tolist(), truncated.tolist())
        assert set(info) == set(other)
        if over.any():
            ended.append(np.flatnonzero(over).tolist())
            assert info["candidate"].tolist() == other["candidate"].tolist()
            assert info["_candidate"].tolist() == over.tolist()
            assert str(info["metrics"]) == str(other["metrics"])
    assert isinstance(vector, VectorSearch)
    return vector, ended


def test_many_are_one_batch_and_answer_as_one_by_one(table: dict[str, Any]) -> None:
    _, ended = pairs(5, 60, 0, **table)
    assert ended == [[0, 1, 2, 3, 4]] * 12


def test_those_that_end_in_the_same_step_are_run_in_one_call() -> None:
    toy = Toy(fails=lambda values: values["a"] == 1)
    _, ended = pairs(6, 200, 1, space=TOY, objective=toy)
    assert len({len(batch) for batch in ended}) > 3
    assert [len(batch) for batch in toy.batches] == [len(batch) for batch in ended]
    numbers = [trial.number for batch in toy.batches for trial in batch]
    assert numbers == list(range(len(numbers)))
    for batch in toy.batches:
        assert {trial.batch for trial in batch} == {(batch[0].number, len(batch))}
        for trial in batch:
            alike = [
                one.number for one in batch if TOY.select_static(one.candidate) == TOY.select_static(trial.candidate)
            ]
            assert trial.cohort == tuple(alike)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_can_be_played_by_many(name: str) -> None:
    _, ended = pairs(3, 40, 2, space=SPACES[name], objective=Toy(digest))
    assert {index for indices in ended for index in indices} == {0, 1, 2}


def test_many_refuse_together_and_fail_apart() -> None:
    envs = make_vec(3, space=TOY, objective=(toy := Toy()))
    before, _ = envs.reset(seed=0)
    with pytest.raises(InputError, match=r"^environment 1: the action np\.int64\(5\) is none of 'a'"):
        envs.step(np.array([0, 5, 0]))
    with pytest.raises(InputError, match="expected an action for each of 3 environments, got 2"):
        envs.step(np.array([0, 0]))
    assert (envs.unwrapped._observations() == before).all()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="expected one seed, or one for each of 3 environments, got 2"):
        envs.reset(seed=[0, 1])  # pyright: ignore[reportArgumentType]
    envs = make_vec(3, space=TOY, objective=toy, invalid="fail", failed=-1)
    envs.reset(seed=[5, 6, 7])  # pyright: ignore[reportArgumentType]
    _, rewards, ended, _, info = envs.step(np.array([0, 5, 0]))
    assert (rewards.tolist(), ended.tolist()) == ([0, -1, 0], [False, True, False])
    assert info["_error"].tolist() == [False, True, False]
    assert toy.batches == []
    _, rewards, ended, _, info = envs.step(np.array([0, 99, 0]))  # nothing is heeded in the step that resets
    assert (rewards.tolist(), ended.tolist()) == ([0, 0, 0], [False] * 3)
    assert info["action_mask"].sum(-1).tolist() == [16, 5, 16]
    assert envs.unwrapped.action_masks().sum(-1).tolist() == [16, 5, 16]  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="num_envs must be an integer of at least 1, got 0"):
        VectorSearch(TOY, toy, num_envs=0)
