"""A dense transformer against mixtures of experts that compute as much for a token, on Shakespeare, at equal steps.

    python experiments/moe/run.py --seeds 6 --json experiments/moe/results.json --figures experiments/moe

Each model trains for half the steps under every learning rate of a grid, on a seed of its own, and then under the best
of them on the seeds that are compared: a worker of one thread for each core. Rates are constant after the warm-up, so
that each point of a curve is what a training of that many steps comes to; `--schedule cosine` has them fall to zero.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from l2l.compare.bootstrap import compute_student_interval, judge_differences
from l2l.engine.cost import measure_cost
from l2l.engine.data import add_preprocessing, compute_statistics, load_data, make_spec, sample_order
from l2l.engine.evaluate import make_score
from l2l.engine.fit import make_rngs
from l2l.nn.moe import collect_measures, collect_penalties
from l2l.tasks.text import TinyShakespeare
from l2l.types import Learner
from search_spaces import recipe, transformer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))

import about  # noqa: E402

ROWS: Mapping[str, int] = {"dense": 0, "4 experts": 4, "8 experts": 8, "16 experts": 16, "32 experts": 32}
"""How many experts each layer has; 0: one perceptron for all tokens."""
ROOM = 2.0
"""Times an even share of a sequence that an expert takes: an even share of 64 tokens is few, and so varies."""
DEPTH, WIDTH, RATIO, BATCH = 2, 64, 2, 32
RECIPE: Mapping[str, Any] = {
    "optimizer": "adamw", "weight_decay": 1e-2, "warmup": 0.05, "batch_size": BATCH,
    "dropout": 0.0, "label_smoothing": 0.0,
}  # fmt: skip
RATES = "0.003,0.006,0.012"
POINTS = 20
"""Evaluations of a training; the grid's, at constant rates, end after half of them."""
TUNED = 1000
"""The seed of the grid."""
LOOKS: Mapping[str, Mapping[str, Any]] = {
    "dense": {"color": "#444444"},
    "4 experts": {"color": "#b08900"},
    "8 experts": {"color": "#d1491b"},
    "16 experts": {"color": "#1f5fa8"},
    "32 experts": {"color": "#6a3d9a"},
}
Curves = Mapping[str, Any]
Runs = Mapping[str, Sequence[Curves]]


class Job(NamedTuple):
    """One training."""

    row: str
    rate: float
    seed: int
    epochs: int
    schedule: str
    points: int = POINTS


def make_values(row: str, rate: Any, schedule: str) -> dict[str, Any]:
    """The row as a point of the space `transformer`; what is not named is that space's default."""
    part: dict[str, Any] = {"forward": "dense", "mlp_ratio": RATIO}
    if experts := ROWS[row]:
        part = {
            "forward": "experts", "experts": experts, "expert_ratio": RATIO, "k": 1, "router": "softmax",
            "capacity": ROOM, "shared": False, "balance_weight": 1e-2,
        }  # fmt: skip
    layers = {f"layer{n}_{name}": value for n in range(1, DEPTH + 1) for name, value in part.items()}
    return {"depth": DEPTH, "width": WIDTH, **layers, **RECIPE, "schedule": schedule, "adamw_learning_rate": rate}


class Training:
    """A row's programs: some steps, and the score of a state (weights, other variables, the optimizer's)."""

    def __init__(self, row: str, epochs: int, schedule: str) -> None:
        self.row, self.schedule, self.task = row, schedule, TinyShakespeare()
        self.data = load_data(self.task)
        self.spec = make_spec(self.task, self.data, epochs)
        self.x, self.y, *self.validation = map(jnp.asarray, self.data)
        model = self.model(0)
        self.graph = nnx.graphdef(model)
        model.eval()
        self.asleep = nnx.graphdef(model)
        self.length = self.spec.steps(BATCH) // POINTS
        state, index = self.begin(0), np.zeros((self.length, BATCH), np.int32)
        self.steps = jax.jit(self._steps, donate_argnums=0).lower(state, index, jnp.float32(0)).compile()
        self.score = jax.jit(self._score).lower(*state[:2]).compile()

    def model(self, seed: int) -> Any:
        """The untrained model."""
        model = add_preprocessing(
            self.learner(0.0).model(make_rngs(jax.random.key(seed))),
            self.spec,
            compute_statistics(self.task, self.data),
        )
        model.train()
        return model

    def learner(self, rate: Any) -> Learner:
        """The row's model and recipe."""
        return transformer.build(make_values(self.row, rate, self.schedule), self.spec)

    def begin(self, seed: int) -> Any:
        """A state before the first step."""
        _, params, rest = nnx.split(self.model(seed), nnx.Param, ...)
        return params, rest, self.learner(0.0).optimizer.init(params)

    def _loss(self, params: Any, rest: Any, index: Any) -> Any:
        model: Any = nnx.merge(self.graph, params, rest, copy=True)
        error = jnp.mean(self.task.loss(model(self.x[index]), self.y[index]))
        means = {"train": error / jnp.log(2.0), **collect_measures(model)}
        return sum(collect_penalties(model), error), (nnx.state(model, nnx.Not(nnx.Param)), means)

    def _steps(self, state: Any, indices: Any, rate: Any) -> Any:
        """The state after steps on these examples `[T, B]`, and means over the steps of what they measured."""

        def step(state: Any, index: Any) -> Any:
            params, rest, opt_state = state
            gradient, (rest, means) = jax.grad(self._loss, has_aux=True)(params, rest, index)
            updates, opt_state = self.learner(rate).optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), rest, opt_state), means

        state, means = jax.lax.scan(step, state, indices)
        return state, jax.tree.map(jnp.mean, means)

    def _score(self, params: Any, rest: Any) -> Any:
        """Validation bits of a character."""
        score = make_score(self.task, len(self.validation[0]))
        sums = score(nnx.merge(self.asleep, params, rest, copy=True), *self.validation)
        return sums["bits"] / len(self.validation[0])


training = functools.cache(Training)


def run_training(job: Job) -> dict[str, Any]:
    """The curves of one training, and the seconds of its steps."""
    programs = training(job.row, job.epochs, job.schedule)
    state = programs.begin(job.seed)
    examples = sample_order(jax.random.key(job.seed), programs.spec, BATCH).reshape(-1, BATCH)
    curves: dict[str, list[float]] = {}
    seconds = 0.0
    for point in range(job.points):
        part = examples[point * programs.length : (point + 1) * programs.length]
        started = time.perf_counter()
        state, means = jax.block_until_ready(programs.steps(state, part, jnp.float32(job.rate)))
        seconds += time.perf_counter() - started
        for name, value in {"step": (point + 1) * programs.length, "bits": programs.score(*state[:2]), **means}.items():
            curves.setdefault(name, []).append(round(float(value), 4))
    return {**job._asdict(), "seconds": seconds, **curves}


def count_costs(epochs: int) -> dict[str, dict[str, float]]:
    """Parameters of each row, those that one token is computed with, and operations of an example forwards."""
    task = TinyShakespeare()
    spec, space = make_spec(task, load_data(task), epochs), transformer.space()
    sizes = {name: measure_cost(space, make_values(name, 0.0, "constant"), spec) for name in ROWS}
    return {
        name: {"parameters": size.parameters, "active_parameters": size.active_parameters, "flops": size.flops}
        for name, size in sizes.items()
    }


def find_share(curve: Curves, target: float) -> float | None:
    """The share of the training after which the validation bits are first at the target; None if never."""
    bits, shares = np.array(curve["bits"]), np.array(curve["step"]) / curve["step"][-1]
    (below,) = np.nonzero(bits <= target)
    if not len(below):
        return None
    first = int(below[0])
    if first == 0:
        return float(shares[0])
    return float(np.interp(-target, -bits[first - 1 : first + 1], shares[first - 1 : first + 1]))


def compare_models(runs: Runs, costs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Each row against the dense one, seed by seed."""
    dense, rows = runs["dense"], dict[str, dict[str, Any]]()
    for name, repeats in runs.items():
        bits = np.array([run["bits"][-1] for run in repeats])
        differences = bits - np.array([run["bits"][-1] for run in dense])
        pairs = list(zip(repeats, dense, strict=True))
        last = {key: statistics.fmean(run[key][-1] for run in repeats) for key in repeats[0] if key in MEASURED}
        rows[name] = {
            **costs[name], "rate": repeats[0]["rate"], "bits": bits.tolist(), "mean": float(bits.mean()),
            "train": statistics.fmean(run["train"][-1] for run in repeats),
            "less_dense": {
                "mean": float(differences.mean()), "student": list(compute_student_interval(differences)),
                "verdict": judge_differences(-differences),
            },
            "reached": [find_share(run, other["bits"][-1]) for run, other in pairs],
            "seconds": [run["seconds"] for run in repeats],
            "seconds_ratio": [run["seconds"] / other["seconds"] for run, other in pairs],
            "last": last,
        }  # fmt: skip
    return rows


MEASURED = ("expert_load_max", "expert_load_min", "drop_rate", "router_entropy")


def format_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The comparison as Markdown."""
    head = (
        "model", "parameters (of a token)", "operations", "rate", "bits", "each seed", "less dense's, 95 %",
        "dense's last bits at", "in operations", "seconds", "load", "dropped",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        work = row["flops"] / rows["dense"]["flops"]
        cells = [
            name, f"{row['parameters']:,} ({row['active_parameters']:,})", f"{work:.3f}", f"{row['rate']:g}",
            f"{row['mean']:.3f}", " ".join(f"{value:.3f}" for value in row["bits"]),
        ]  # fmt: skip
        if name != "dense":
            low, high = row["less_dense"]["student"]
            shares = [value for value in row["reached"] if value is not None]
            last, total = row["last"], len(row["reached"])
            cells += [
                f"{row['less_dense']['mean']:+.3f} [{low:+.3f}, {high:+.3f}], {row['less_dense']['verdict']}",
                _format_range(shares) if len(shares) == total else f"{len(shares)} of {total}",
                _format_range([work * value for value in shares]),
                _format_range(row["seconds_ratio"]),
                f"{last['expert_load_max']:.2f} / {last['expert_load_min']:.2f}", f"{100 * last['drop_rate']:.1f} %",
            ]  # fmt: skip
        else:
            cells += ["", "", "", f"1 ({statistics.median(row['seconds']):.0f} s)", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _format_range(figures: Sequence[float]) -> str:
    if not figures:
        return "-"
    return f"{statistics.median(figures):.2f} ({min(figures):.2f} to {max(figures):.2f})"


def draw_figures(runs: Runs, folder: Path) -> None:
    """Curves over the steps, means over the seeds and from the lowest to the highest, as three figures."""
    experts = {name: repeats for name, repeats in runs.items() if name != "dense"}
    differences = {
        name: [
            {**run, "apart": np.subtract(run["bits"], other["bits"])}
            for run, other in zip(repeats, runs["dense"], strict=True)
        ]
        for name, repeats in experts.items()
    }
    _draw_figure(
        folder / "loss.svg",
        [(runs, "bits", "validation bits of a character"), (differences, "apart", "the same, less dense's")],
    )
    loads = {"expert_load_max": "largest", "expert_load_min": "smallest"}
    _draw_figure(folder / "load.svg", [(experts, key, f"{word} share, times experts") for key, word in loads.items()])
    _draw_figure(folder / "drop.svg", [(experts, "drop_rate", "share of tokens that are dropped")])


def _draw_figure(path: Path, panels: Sequence[tuple[Runs, str, str]]) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "moe", "font.size": 9}):  # the same records give the same file
        figure = Figure(figsize=(1.2 + 4.2 * len(panels), 4.2), layout="constrained")
        for axes, (runs, key, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name, repeats in runs.items():
                curves, steps = np.array([run[key] for run in repeats]), repeats[0]["step"]
                axes.fill_between(
                    steps, curves.min(0), curves.max(0), color=LOOKS[name]["color"], alpha=0.12, linewidth=0
                )
                axes.plot(steps, curves.mean(0), label=name, **LOOKS[name])
            axes.set(title=title, xlabel="steps")
            axes.grid(alpha=0.3)
            if key == "apart":
                axes.axhline(0, color=LOOKS["dense"]["color"], linewidth=1)
        handles = figure.axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=len(handles[1]), frameon=False)
        figure.savefig(path, metadata={"Date": None})


def prepare_worker() -> None:
    """Before a worker's first job: one thread."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def choose_rates(grid: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The best rate of each row."""
    best: dict[str, Mapping[str, Any]] = {}
    for run in grid:
        best[run["row"]] = min(best.get(run["row"], run), run, key=lambda run: run["bits"][-1])
    return {row: run["rate"] for row, run in best.items()}


def main() -> None:
    """Finds the rates, trains every row on every seed, prints how they compare, and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rates", default=RATES, help="the grid; of one rate there is none")
    parser.add_argument("--schedule", default="constant", choices=recipe.SCHEDULES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path, help="a folder")
    args = parser.parse_args()
    grid_rates = [float(rate) for rate in args.rates.split(",")]
    machine, started = about.announce(), time.perf_counter()
    with ProcessPoolExecutor(about.CORES, mp_context=get_context("spawn"), initializer=prepare_worker) as pool:
        points = POINTS // 2 if args.schedule == "constant" else POINTS
        search = [Job(row, rate, TUNED, args.epochs, args.schedule, points) for row in ROWS for rate in grid_rates]
        grid = list(pool.map(run_training, search)) if len(grid_rates) > 1 else []
        rates = choose_rates(grid) if grid else dict.fromkeys(ROWS, grid_rates[0])
        for run in grid:
            print(f"{run['row']}, rate {run['rate']:g}: {run['bits'][-1]:.3f} bits", flush=True)
        jobs = [Job(row, rates[row], seed, args.epochs, args.schedule) for seed in range(args.seeds) for row in ROWS]
        runs: dict[str, list[Curves]] = {name: [] for name in ROWS}
        for run in pool.map(run_training, jobs):
            runs[run["row"]].append(run)
            print(f"{run['row']}, seed {run['seed']}: {run['bits'][-1]:.3f} bits, {run['seconds']:.0f} s", flush=True)
    rows = compare_models(runs, count_costs(args.epochs))
    seconds = time.perf_counter() - started
    print("\n" + format_table(rows) + f"\n\n{seconds:.0f} s")
    if args.json:
        record = {"about": machine, "command": about.read_command(), "seconds": seconds, "found": rows}
        args.json.write_text(json.dumps({**record, "grid": grid, "runs": runs}) + "\n")
    if args.figures:
        draw_figures(runs, args.figures)


if __name__ == "__main__":
    main()
