"""An agent that knows nothing of l2l learns to search: Stable-Baselines3's PPO against random, at equal evaluations.

    pip install -e '.[rl]'
    python experiments/gym/run.py --json experiments/gym/results.json --figure experiments/gym/figure.svg

It plays `l2l/Search-v0` on NAS-Bench-201 (CIFAR-10), where $L2L_DATA/nasbench201/nasbench201.npz is at hand, and
otherwise on a landscape made up by `l2l.testing`. Every candidate counts, also one that was evaluated before.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import l2l.envs
from l2l.compare.bootstrap import compute_student_interval
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.reward import Metric
from l2l.tasks.tabular import Lookup
from l2l.testing.landscapes import make_landscape, write_landscape
from l2l.types import Trial

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import about

NASBENCH = "nasbench201/nasbench201.npz"
WINDOW = 50
"""Candidates that a point of a learning curve is the mean of."""
ENVIRONMENTS, DECISIONS, EPISODES = 8, 6, 4
"""Of a rollout: environments side by side, steps of an episode, episodes of each."""
LOOKS = {"ppo": "#1f5fa8", "random": "#7f7f7f"}
Curve = Mapping[str, list[float]]


class Recorded:
    """An objective that remembers what it has measured, in order."""

    def __init__(self, inner: Tabular) -> None:
        self.inner = inner
        self.seen: list[tuple[str, Mapping[str, float]]] = []

    def check(self) -> Any:
        """What it measures."""
        return self.inner.check()

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """The trials with their outcomes."""
        for trial in self.inner(trials):
            assert trial.outcome is not None
            self.seen.append((trial.candidate.key, trial.outcome.metrics))
            yield trial


def load_benchmark(folder: Path) -> Tabular:
    """The table that is searched."""
    data = os.environ.get("L2L_DATA")
    if data and (Path(data) / NASBENCH).is_file():
        names: dict[str, Any] = {"codes": "ops", "names": "op_names", "reward": "cifar10_val_acc_12ep"}
        path, more = NASBENCH, {**names, "report": "cifar10_test_acc_200ep"}
    else:
        path, more = str(folder / "landscape.npz"), {"codes": "codes", "reward": "reward"}
        write_landscape(path, make_landscape(DECISIONS, 5, ruggedness=2))
    of = space(path, more["codes"], more.get("names"))
    return Tabular(space=of, task=Lookup(path, more["reward"]), path=path, **more)


def search_by_ppo(objective: Recorded, seed: int, evaluations: int) -> None:
    """Stable-Baselines3's own settings, but for short rollouts, no discount and rewards of unit scale."""
    arguments = {"space": objective.inner.space, "objective": objective, "reward": Metric(objective.inner.reward)}
    make = functools.partial(gymnasium.make, l2l.envs.NAME, **arguments)
    envs = VecNormalize(make_vec_env(make, n_envs=ENVIRONMENTS, seed=seed), norm_obs=False, gamma=1.0)
    agent = PPO("MlpPolicy", envs, n_steps=DECISIONS * EPISODES, gamma=1.0, seed=seed, device="cpu")
    agent.learn(evaluations * DECISIONS)


def search_at_random(objective: Recorded, seed: int, evaluations: int) -> None:
    """Actions drawn evenly, in the same environment."""
    arguments = {"space": objective.inner.space, "objective": objective, "reward": Metric(objective.inner.reward)}
    env = gymnasium.make(l2l.envs.NAME, **arguments)
    env.action_space.seed(seed)
    for episode in range(evaluations):
        _, info = env.reset(seed=seed if episode == 0 else None)
        ended = False
        while not ended:
            _, _, ended, _, info = env.step(env.action_space.sample(info["action_mask"]))


def compute_curve(objective: Recorded, evaluations: int) -> Curve:
    """Every `WINDOW` evaluations: their mean reward, the highest so far, and what is reported of that candidate."""
    seen = objective.seen[:evaluations]
    report = objective.inner.report or objective.inner.reward
    rewards = np.array([metrics[objective.inner.reward] for _, metrics in seen])
    ends = list(range(WINDOW, evaluations + 1, WINDOW))
    winners = [int(rewards[:end].argmax()) for end in ends]
    return {
        "evaluations": [float(end) for end in ends],
        "mean": [float(rewards[end - WINDOW : end].mean()) for end in ends],
        "best": [float(rewards[winner]) for winner in winners],
        "report": [float(seen[winner][1][report]) for winner in winners],
        "different": [float(len({key for key, _ in seen[:end]})) for end in ends],
    }


def draw_curves(rows: Mapping[str, Sequence[Curve]], optimum: float, unit: str, path: Path) -> None:
    """Mean over seeds, from the lowest to the highest: what is proposed, and the best that was found."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # The same records give the same file.
    with pyplot.rc_context({"svg.hashsalt": "gym", "font.size": 9}):
        figure, panels = pyplot.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
        titles = {"mean": f"reward of the last {WINDOW} candidates", "best": "highest reward so far"}
        for panel, (key, title) in zip(panels, titles.items(), strict=True):
            for name, curves in rows.items():
                values = np.array([curve[key] for curve in curves])
                x = curves[0]["evaluations"]
                panel.fill_between(x, values.min(0), values.max(0), color=LOOKS[name], alpha=0.2, linewidth=0)
                panel.plot(x, values.mean(0), color=LOOKS[name], label=name)
            panel.axhline(optimum, color="black", linewidth=0.8, linestyle=":", label="best of the table")
            panel.set(title=title, xlabel="evaluations", ylabel=unit)
        panels[1].legend(loc="lower right", frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def print_table(rows: Mapping[str, Sequence[Curve]]) -> None:
    """A line for each few evaluations, means over seeds, and the difference of the sides with its interval."""
    print("| evaluations | side | mean of the last | best so far | reported | different | best, less random's |")
    print("|---|---|---|---|---|---|---|")
    ends = rows["ppo"][0]["evaluations"]
    for index in sorted({ends.index(end) for end in (100, 200, 500, 1000, 2000, ends[-1]) if end in ends}):
        ppo_rewards, random_rewards = (
            np.array([curve["best"][index] for curve in rows[name]]) for name in ("ppo", "random")
        )
        low, high = compute_student_interval(ppo_rewards - random_rewards)
        difference = f"{(ppo_rewards - random_rewards).mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        for name, curves in rows.items():
            means = {key: statistics.fmean(curve[key][index] for curve in curves) for key in curves[0]}
            cells = [f"{means[key]:.3f}" for key in ("mean", "best", "report")]
            last = difference if name == "ppo" else ""
            print(f"| {ends[index]:.0f} | {name} | {' | '.join(cells)} | {means['different']:.0f} | {last} |")


def main() -> None:
    """Prints the table; writes the record and the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    parser.add_argument("--figure", type=Path, help="where to draw the learning curves")
    options = parser.parse_args()
    if options.evaluations < WINDOW or options.seeds < 1:
        parser.error(f"--evaluations must be at least {WINDOW} and --seeds at least 1")
    torch.set_num_threads(1)  # the networks are small
    machine = about.announce(dict.fromkeys(("stable-baselines3", "torch", "gymnasium"), sys.executable))
    rows: dict[str, list[Curve]] = {"ppo": [], "random": []}
    seconds: dict[str, list[float]] = {"ppo": [], "random": []}
    with tempfile.TemporaryDirectory() as folder:
        table = load_benchmark(Path(folder))
        for seed in range(options.seeds):
            for name, search in (("ppo", search_by_ppo), ("random", search_at_random)):
                objective, started = Recorded(table), time.perf_counter()
                search(objective, seed, options.evaluations)
                seconds[name].append(time.perf_counter() - started)
                rows[name].append(compute_curve(objective, options.evaluations))
        optimum, source = table.benchmark.best_reward, Path(table.path).stem
    print(f"table: {source}, best {optimum:.3f}\n")
    print_table(rows)
    if options.json:
        sizes = {name: getattr(options, name) for name in ("evaluations", "seeds")}
        record = {"options": sizes, "machine": machine, "table": source, "reward": table.reward, "report": table.report}
        record |= {"optimum": optimum, "seconds": seconds, "rows": rows}
        options.json.write_text(json.dumps(record) + "\n")
    if options.figure:
        draw_curves(rows, optimum, table.reward, options.figure)


if __name__ == "__main__":
    main()
