"""The search as a Gymnasium environment, for other people's agents; to import this registers `l2l/Search-v0`.

import gymnasium, l2l.envs

env = gymnasium.make("l2l/Search-v0", space=space, objective=objective, reward=Metric("accuracy"))
envs = gymnasium.make_vec("l2l/Search-v0", num_envs=8, space=space, objective=objective)
"""

from __future__ import annotations

import gymnasium

NAME = "l2l/Search-v0"

gymnasium.register(
    NAME,
    entry_point="l2l.envs.search:Search",
    vector_entry_point="l2l.envs.vector:VectorSearch",
)
