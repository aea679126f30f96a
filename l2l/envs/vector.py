"""The environment for many agents: the candidates that they finish in the same step are run as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from l2l.envs.episode import Episode, Observation, Rules, RunTrials, make_info
from l2l.envs.search import make_spaces
from l2l.errors import InputError, check_integer
from l2l.space import SearchSpace
from l2l.types import Reward, Trial

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class VectorSearch(VectorEnv[Observation, npt.NDArray[Any], npt.NDArray[Any]]):
    """`num_envs` environments as `Search` in lockstep, with one call of the objective for all that end in a step.

    If every decision is always active they all end together; in a conditional space those that end earlier are run
    earlier. An environment that has ended is reset in the next step, which ignores its action. Equal seeds and
    actions give what `gymnasium.vector.SyncVectorEnv` gives, except for the trial numbers, which are unique here.

    Raises: InputError as `Search` does; no environment has then taken its action.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        space: SearchSpace[Any],
        objective: RunTrials,
        reward: Reward | None = None,
        failed: float | None = None,
        invalid: str = "refuse",
        bins: int = 16,
        num_envs: int = 1,
    ) -> None:
        check_integer("num_envs", num_envs, 1)
        self.rules = Rules(space, objective, reward, failed, invalid, bins)
        self.episodes = [Episode(self.rules) for _ in range(num_envs)]
        self.generators = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self.number = 0
        """The next trial's number."""
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = make_spaces(self.rules)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a candidate in each environment; environment i gets the seed `seed` + i, or the i-th of several."""
        if isinstance(seed, int | np.integer):
            seeds: list[int | None] = [int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"expected one seed, or one for each of {self.num_envs} environments, got {len(seeds)}.")
        for index, (episode, episode_seed) in enumerate(zip(self.episodes, seeds, strict=True)):
            if episode_seed is not None:
                self.generators[index] = seeding.np_random(episode_seed)[0]
            episode.begin(forget=episode_seed is not None)
        if None not in seeds:
            self.number = 0
        return self._observations(), self._infos({})

    def step(self, actions: npt.NDArray[Any]) -> tuple[Observation, Floats, Flags, Flags, dict[str, Any]]:
        """Takes one decision in each environment and runs the candidates that are then complete. Raises: InputError."""
        going = [index for index, episode in enumerate(self.episodes) if not episode.is_over]
        if len(actions) != self.num_envs:
            raise InputError(f"expected an action for each of {self.num_envs} environments, got {len(actions)}.")
        problems = {index: self.episodes[index].explain_invalid(actions[index]) for index in going}
        for index, problem in problems.items():
            if problem is not None and self.rules.invalid == "refuse":
                raise InputError(f"environment {index}: {problem}")
        for index, episode in enumerate(self.episodes):
            if index not in problems:
                episode.begin(forget=False)
            elif problems[index] is None:
                episode.take(actions[index])
            else:
                episode.stop()
        ended_now = [index for index in going if self.episodes[index].is_over]
        trials = self._run_candidates([index for index in ended_now if problems[index] is None])
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        for index in ended_now:
            rewards[index], ended[index] = self.episodes[index].compute_reward(trials.get(index)), True
        infos = self._infos({index: make_info(trials.get(index), problems[index]) for index in ended_now})
        return self._observations(), rewards, ended, np.zeros_like(ended), infos

    def _run_candidates(self, indices: Sequence[int]) -> dict[int, Trial]:
        """Runs the candidates of environments that have completed one, in one call: their trials by environment."""
        candidates = [self.episodes[index].decode_candidate(self.generators[index]) for index in indices]
        trials = self.rules.run_candidates(candidates, self.number)
        self.number += len(trials)
        return dict(zip(indices, trials, strict=True))

    def action_masks(self) -> Flags:
        """The action masks `[num_envs, K]`, under the name that sb3-contrib's agents ask for."""
        return np.stack([episode.mask() for episode in self.episodes]).astype(np.bool_)

    def _observations(self) -> Observation:
        return np.stack([episode.observation() for episode in self.episodes])

    def _infos(self, ends: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """The infos of all environments in Gymnasium's form: for each name an array, and which entries are set."""
        infos: dict[str, Any] = {}
        for index, episode in enumerate(self.episodes):
            infos = self._add_info(infos, {"action_mask": episode.mask(), **ends.get(index, {})}, index)
        return infos
