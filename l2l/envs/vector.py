"""The environment for many agents: the candidates that they finish in the same step are run as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from l2l.envs.episode import Episode, Observation, Rules, Run, told
from l2l.envs.search import spaces
from l2l.errors import InputError, check_integer
from l2l.space import SearchSpace
from l2l.types import Reward, Trial

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class VectorSearch(VectorEnv[Observation, npt.NDArray[Any], npt.NDArray[Any]]):
    """`num_envs` environments as `Search` in lockstep, with one call of the objective for all that end in a step.

    Where every decision is always active they all end together; in a conditional space those that end earlier are run
    earlier. An environment that has ended is reset in the next step, which heeds no action for it. Equal seeds and
    actions give what `gymnasium.vector.SyncVectorEnv` gives, but for the numbers of trials: here no two share one.

    Raises: InputError as `Search` does; no environment has then taken its action.
    """

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        space: SearchSpace[Any],
        objective: Run,
        reward: Reward | None = None,
        failed: float | None = None,
        invalid: str = "refuse",
        bins: int = 16,
        num_envs: int = 1,
    ) -> None:
        check_integer("num_envs", num_envs, 1)
        self.rules = Rules(space, objective, reward, failed, invalid, bins)
        self.episodes = [Episode(self.rules) for _ in range(num_envs)]
        self.draws = [seeding.np_random(None)[0] for _ in range(num_envs)]
        self.number = 0
        """Of the next trial."""
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = spaces(self.rules)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Nothing is decided anywhere; environment i is seeded with `seed` + i, or with the i-th of several."""
        if isinstance(seed, int | np.integer):
            seeds: list[int | None] = [int(seed) + place for place in range(self.num_envs)]
        else:
            seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise InputError(f"expected one seed, or one for each of {self.num_envs} environments, got {len(seeds)}.")
        for place, (episode, own) in enumerate(zip(self.episodes, seeds, strict=True)):
            if own is not None:
                self.draws[place] = seeding.np_random(own)[0]
            episode.begin(afresh=own is not None)
        if None not in seeds:
            self.number = 0
        return self._observations(), self._infos({})

    def step(self, actions: npt.NDArray[Any]) -> tuple[Observation, Floats, Flags, Flags, dict[str, Any]]:
        """Takes one decision each; what is finished then is run at once. Raises: InputError."""
        going = [place for place, episode in enumerate(self.episodes) if not episode.over]
        if len(actions) != self.num_envs:
            raise InputError(f"expected an action for each of {self.num_envs} environments, got {len(actions)}.")
        complaints = {place: self.episodes[place].complaint(actions[place]) for place in going}
        for place, why in complaints.items():
            if why is not None and self.rules.invalid == "refuse":
                raise InputError(f"environment {place}: {why}")
        for place, episode in enumerate(self.episodes):
            if place not in complaints:
                episode.begin(afresh=False)
            elif complaints[place] is None:
                episode.take(actions[place])
            else:
                episode.stop()
        over = [place for place in going if self.episodes[place].over]
        trials = self._judged([place for place in over if complaints[place] is None])
        rewards, ended = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        for place in over:
            rewards[place], ended[place] = self.episodes[place].worth(trials.get(place)), True
        infos = self._infos({place: told(trials.get(place), complaints[place]) for place in over})
        return self._observations(), rewards, ended, np.zeros_like(ended), infos

    def _judged(self, places: Sequence[int]) -> dict[int, Trial]:
        """The trials of environments that have finished a candidate, run in one call."""
        candidates = [self.episodes[place].candidate(self.draws[place]) for place in places]
        trials = self.rules.judge(candidates, self.number)
        self.number += len(trials)
        return dict(zip(places, trials, strict=True))

    def action_masks(self) -> Flags:
        """[num_envs, K]: the masks, as sb3-contrib's agents ask for them."""
        return np.stack([episode.mask() for episode in self.episodes]).astype(np.bool_)

    def _observations(self) -> Observation:
        return np.stack([episode.observation() for episode in self.episodes])

    def _infos(self, ends: dict[int, dict[str, Any]]) -> dict[str, Any]:
        """What each environment says, in Gymnasium's form: by name an array, and which of its places are told."""
        found: dict[str, Any] = {}
        for place, episode in enumerate(self.episodes):
            found = self._add_info(found, {"action_mask": episode.mask(), **ends.get(place, {})}, place)
        return found
