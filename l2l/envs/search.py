"""The environment for one agent: a decision of a candidate is a step, its reward the end of the episode."""

from __future__ import annotations

from typing import Any, SupportsIndex

import gymnasium
import numpy as np
import numpy.typing as npt

from l2l.envs.episode import Episode, Observation, Rules, Run, told
from l2l.errors import InputError
from l2l.space import SearchSpace
from l2l.types import Reward, Trial


class Search(gymnasium.Env[Observation, SupportsIndex]):
    """Builds one candidate an episode, one active decision a step, in the order of the space.

    An action is a code of `l2l.encoding.Encoding`: an option of a category, a value of a short range, one of `bins`
    parts of a longer one, inside which the environment's own generator draws the place. `info["action_mask"]` [K]
    says which are allowed, and `action_masks()` says it to agents of sb3-contrib. Decisions that are inactive are
    skipped. The reward is 0 until the last decision, and then that of the trial, whose `candidate` and `metrics`
    (and `error`, if it failed) `info` holds. Observations are those of `Episode.observation`, arguments of `Rules`.

    A seeded `reset` makes it a new environment: equal actions give equal candidates under equal trial numbers.

    Raises: InputError if an argument does not fit, or for an action outside the mask.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(
        self,
        space: SearchSpace[Any],
        objective: Run,
        reward: Reward | None = None,
        failed: float | None = None,
        invalid: str = "refuse",
        bins: int = 16,
    ) -> None:
        self.episode = Episode(Rules(space, objective, reward, failed, invalid, bins))
        self.number = 0
        """Of the next trial."""
        self.observation_space, self.action_space = spaces(self.episode.rules)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Nothing is decided."""
        super().reset(seed=seed)
        if seed is not None:
            self.number = 0
        self.episode.begin(afresh=seed is not None)
        return self.episode.observation(), {"action_mask": self.episode.mask()}

    def step(self, action: SupportsIndex) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Takes one decision; after the last one the candidate is run. Raises: InputError."""
        episode, rules = self.episode, self.episode.rules
        trial: Trial | None = None
        if (complaint := episode.complaint(action)) is None:
            episode.take(action)
        elif rules.invalid == "refuse":
            raise InputError(complaint)
        else:
            episode.stop()
        if episode.over and complaint is None:
            (trial,) = rules.judge([episode.candidate(self.np_random)], self.number)
            self.number += 1
        reward = episode.worth(trial) if episode.over else 0.0
        info = {"action_mask": episode.mask(), **(told(trial, complaint) if episode.over else {})}
        return episode.observation(), reward, episode.over, False, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """[K]: the mask, as sb3-contrib's agents ask for it."""
        return self.episode.mask().astype(np.bool_)


def spaces(rules: Rules) -> tuple[gymnasium.Space[Observation], gymnasium.spaces.Discrete]:
    """The spaces of observations and of actions."""
    size, width = rules.encoding.domain.valid.shape
    box: gymnasium.Space[Any] = gymnasium.spaces.Box(0, 1, (size * (width + 2),), np.float32)
    return box, gymnasium.spaces.Discrete(width)
