"""The environment for one agent: a decision of a candidate is a step, its reward the end of the episode."""

from __future__ import annotations

from typing import Any, SupportsIndex

import gymnasium
import numpy as np
import numpy.typing as npt

from l2l.envs.episode import Episode, Observation, Rules, RunTrials, make_info
from l2l.errors import InputError
from l2l.space import SearchSpace
from l2l.types import Reward, Trial


class Search(gymnasium.Env[Observation, SupportsIndex]):
    """Builds one candidate an episode, one active decision a step, in the order of the space.

    An action is a code of `l2l.encoding.Encoding`: an option of a category, a value of a short range, or one of `bins`
    parts of a longer range, inside which the environment's own generator samples the value. `info["action_mask"]` `[K]`
    says which are allowed, and so does `action_masks()` for agents of sb3-contrib. Inactive decisions are skipped. The
    reward is 0 until the last decision, and then that of the trial, whose `candidate` and `metrics` (and `error`, if it
    failed) are in `info`. Observations are described at `Episode.observation`, the arguments at `Rules`.

    `reset` with a seed makes it a new environment: equal actions give equal candidates under equal trial numbers.

    Raises: InputError if an argument is invalid, or for an action outside the mask.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        space: SearchSpace[Any],
        objective: RunTrials,
        reward: Reward | None = None,
        failed: float | None = None,
        invalid: str = "refuse",
        bins: int = 16,
    ) -> None:
        self.episode = Episode(Rules(space, objective, reward, failed, invalid, bins))
        self.number = 0
        """The next trial's number."""
        self.observation_space, self.action_space = make_spaces(self.episode.rules)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts a candidate."""
        super().reset(seed=seed)
        if seed is not None:
            self.number = 0
        self.episode.begin(forget=seed is not None)
        return self.episode.observation(), {"action_mask": self.episode.mask()}

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one decision; after the last one the candidate is run. Raises: InputError."""
        episode, rules = self.episode, self.episode.rules
        trial: Trial | None = None
        if (problem := episode.explain_invalid(action)) is None:
            episode.take(action)
        elif rules.invalid == "refuse":
            raise InputError(problem)
        else:
            episode.stop()
        if episode.is_over and problem is None:
            (trial,) = rules.run_candidates([episode.decode_candidate(self.np_random)], self.number)
            self.number += 1
        reward = episode.compute_reward(trial) if episode.is_over else 0.0
        info = {"action_mask": episode.mask(), **(make_info(trial, problem) if episode.is_over else {})}
        return episode.observation(), reward, episode.is_over, False, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """The action mask `[K]`, under the name that sb3-contrib's agents ask for."""
        return self.episode.mask().astype(np.bool_)


def make_spaces(rules: Rules) -> tuple[gymnasium.Space[Observation], gymnasium.spaces.Discrete]:
    """The spaces of observations and of actions."""
    size, width = rules.encoding.domain.valid.shape
    box: gymnasium.Space[Any] = gymnasium.spaces.Box(0, 1, (size * (width + 2),), np.float32)
    return box, gymnasium.spaces.Discrete(width)
