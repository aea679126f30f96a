"""Candidates a minute: l2l against Optuna or Ray Tune with the usual training loops, on the same candidates.

    python benchmarks/candidates.py A --candidates 200 --peers flax:1,torch --repeats 5 --json FILE

Every run is a fresh process, timed from its start to its end; the peers take turns, and each repeat begins with
another one. The Flax loop and PyTorch run as a process for each core, PyTorch with one thread in each, and Ray with an
actor for each: their best arrangements. "Cold" starts with an empty compilation cache of the peer's own and fills it,
"warm" follows with what the cold run left; PyTorch compiles nothing and runs once. `flax:1` takes part in the first
repeat alone, and `--peers ''` times l2l alone.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import floor
import quality
from about import CORES, announce
from processes import prepare_cache, rotate_names, time_commands
from table import Result, format_table, summarise_runs

PEERS = {"flax": "flax_loop.py", "torch": "torch_eager.py", "ray": "ray_tune.py"}
"""Their scripts in `peers/`."""
PROCESSES = {"flax": CORES, "torch": CORES, "ray": 1}
"""How many take candidates, each the next one when it is free; Ray starts its own."""


@dataclass(frozen=True)
class Bench:
    """One workload's files, and the interpreters that run the peers on it."""

    workload: Any
    count: int
    batch: int
    """How many candidates l2l's search asks for at once."""
    seed: int
    folder: Path
    pythons: Mapping[str, str]

    def once(self, kind: str) -> Result:
        """A run of one row of the table."""
        name, _, state = kind.partition(" ")
        return self.ours(state == "cold") if name == "l2l" else self.peer(name, cold=state == "cold")

    def peer(self, name: str, *more: str, cold: bool = False) -> Result:
        """A run of a peer that is a script; `more` follows its arguments."""
        cache = self.cache(name, cold)
        for old in (*self.folder.glob(f"{name}-*.json"), *self.folder.glob("*.taken")):
            old.unlink()
        script = str(Path(__file__).parent / "peers" / PEERS[name])
        more = (*more, str(CORES)) if name == "ray" else more
        commands = [[self.pythons[name], script, str(self.folder), str(part), *more] for part in range(PROCESSES[name])]
        seconds, memory = time_commands(commands, self.folder, **cache)
        accuracies: dict[str, float | None] = {}
        for part in self.folder.glob(f"{name}-*.json"):
            accuracies |= json.loads(part.read_text())
        if missing := {str(number) for number in range(self.count)} - set(accuracies):
            raise RuntimeError(f"{name} says nothing of the candidates {sorted(missing, key=int)}.")
        for folder in self.folder.glob("ray*/"):
            shutil.rmtree(folder, ignore_errors=True)
        return Result(seconds, memory, {int(number): accuracies[number] for number in sorted(accuracies, key=int)}, {})

    def ours(self, cold: bool) -> Result:
        """A run of `l2l search`."""
        cache, run = self.cache("l2l", cold), self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-c", "from l2l.cli import main; main()", *self.words()]
        seconds, memory = time_commands([command], self.folder, **cache)
        with (run / "trials.csv").open() as file:
            rows = list(csv.DictReader(file))
        # A training that diverges is a failed trial; the peers say null.
        accuracies = {
            int(row["number"]): float(row["accuracy"]) if row["status"] == "complete" else None for row in rows
        }
        return Result(seconds, memory, accuracies, json.loads((run / "result.json").read_text())["seconds"])

    def words(self) -> list[str]:
        """What follows `l2l` to run its search."""
        chosen = self.workload.words(self.count, self.seed, self.batch)
        return ["search", *chosen, "~final", "tracker=console", "out=run"]

    def cache(self, name: str, cold: bool) -> dict[str, str]:
        """Environment variables for a cache of this peer's own, emptied if `cold`."""
        return prepare_cache(self.folder / f"cache-{name}", cold)

    def quality(self, name: str, trials: Sequence[Any], seeds: int) -> dict[str, Any]:
        """The usual Flax loop and l2l on the same candidates under several seeds."""
        import workloads

        script = str(Path(__file__).parent / "quality.py")
        l2l_runs: list[dict[int, float | None]] = []
        flax_runs: list[Mapping[int, Any]] = []
        for offset in range(seeds):
            seed = self.seed + offset
            workloads.write_orders(self.workload, trials, seed, self.folder)
            flax_runs.append(self.peer("flax", str(offset)).accuracies)
            numbers = map(str, (self.count, self.batch, self.seed, seed))
            command = [sys.executable, script, str(self.folder), name, *numbers]
            time_commands([command], self.folder, **self.cache("l2l", cold=False))
            accuracies = json.loads((self.folder / "l2l-seed.json").read_text())
            l2l_runs.append({int(number): accuracy for number, accuracy in accuracies.items()})
        return quality.compare_accuracies(l2l_runs, flax_runs)


def main() -> None:
    """Runs the benchmark and prints its table."""
    import workloads

    options = parse_arguments(sorted(workloads.WORKLOADS))
    workload = workloads.WORKLOADS[options.workload]
    count = options.candidates or workload.count
    batch = min(count, options.batch or workloads.BATCH)
    peers = parse_peers(options.peers, options.repeats)
    pythons = {"flax": sys.executable, "torch": options.torch_python, "ray": options.ray_python}
    about = announce({name: pythons[name] for name in peers if name in ("torch", "ray")})
    libraries = {"numpy": sys.executable, "xla": sys.executable}
    peak = floor.measure_peak(libraries | ({"torch": options.torch_python} if "torch" in peers else {}))
    print(floor.describe_peak(peak), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(workload, count, batch, options.seed, Path(folder).resolve(), pythons)
        trials = workloads.write_inputs(workload, count, options.seed, batch, bench.folder)
        candidates = [trial.candidate.values for trial in trials]
        flops = sum(floor.count_operations(workloads.make_space(workload), candidates, workloads.make_spec(workload)))
        results = repeat_runs(bench, peers, options.repeats)
        record: dict[str, Any] = {"about": about, "workload": options.workload, "candidates": count, "batch": batch}
        record |= {"seed": options.seed, "command": shlex.join(["l2l", *bench.words()])}
        record |= summarise_runs(results, count, flops, peak["gflops"]) | {"peak": peak}
        if options.quality_seeds:
            record["quality"] = bench.quality(options.workload, trials, options.quality_seeds)
    print(json.dumps(record, indent=2))
    print(
        f"\nWorkload {options.workload}, {count} candidates, {options.repeats} repeats: median (smallest to largest)\n"
    )
    print(format_table(record))
    print(f"\nThe floor, {record['floor_seconds']:.2f} s: {flops:.3g} operations at the {floor.describe_peak(peak)}.")
    if options.quality_seeds:
        print(quality.describe_comparison(record["quality"]))
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def parse_arguments(names: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", choices=names)
    parser.add_argument("--candidates", type=int)
    parser.add_argument(
        "--peers", default="flax,torch",
        help="flax, torch and ray, with commas, each as NAME or NAME:REPEATS; '' for l2l alone",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, help="how many candidates l2l's search asks for at once (default: 200)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quality-seeds", type=int, default=0, help="also train all candidates under so many seeds")
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch and optuna")
    parser.add_argument("--ray-python", default=sys.executable, help="one that has ray[tune], flax, optax and optuna")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for name in ("candidates", "repeats", "batch"):
        if (number := getattr(options, name)) is not None and number < 1:
            parser.error(f"--{name} {number}: expected at least 1.")
    try:
        parse_peers(options.peers, options.repeats)
    except ValueError as error:
        parser.error(f"--peers {error}")
    return options


def parse_peers(text: str, repeats: int) -> dict[str, int]:
    """How many repeats each peer of `flax:1,torch` takes part in, all of them unless said otherwise.

    Raises: ValueError for a peer that is unknown or more repeats than there are.
    """
    repeats_of: dict[str, int] = {}
    for entry in filter(None, text.split(",")):
        name, _, number = entry.partition(":")
        if name not in PEERS:
            raise ValueError(f"{entry}: expected some of {', '.join(PEERS)}.")
        if number and not (number.isdecimal() and 1 <= int(number) <= repeats):
            raise ValueError(f"{entry}: expected from 1 to {repeats} repeats behind the colon.")
        repeats_of[name] = int(number or repeats)
    return repeats_of


def list_rows(name: str) -> list[str]:
    """The rows of a peer: one from an empty cache and one that finds what it left, or one if it compiles nothing."""
    return [name] if name == "torch" else [f"{name} cold", f"{name} warm"]


def repeat_runs(bench: Bench, peers: Mapping[str, int], repeats: int) -> dict[str, list[Result]]:
    """All runs by row; every repeat begins with the next peer in turn, and a warm run follows its cold one."""
    results: dict[str, list[Result]] = {kind: [] for name in (*peers, "l2l") for kind in list_rows(name)}
    for repeat in range(repeats):
        for name in rotate_names([*(name for name, number in peers.items() if repeat < number), "l2l"], repeat):
            for kind in list_rows(name):
                run_once(results, kind, bench.count, lambda kind=kind: bench.once(kind))
    return results


def run_once(results: dict[str, list[Result]], name: str, count: int, call: Callable[[], Result]) -> None:
    """Adds one result and prints its line as it ends."""
    result = call()
    results[name].append(result)
    accuracies = [accuracy for accuracy in result.accuracies.values() if accuracy is not None]
    parts = {key: round(value, 1) for key, value in result.ledger.items()}
    print(
        f"{name}: {result.seconds:.1f} s, {60 * count / result.seconds:.0f} candidates/min, mean accuracy "
        f"{statistics.mean(accuracies or [0.0]):.4f} ({len(accuracies)} of {count}), "
        f"{result.memory:.0f} MiB {parts or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
