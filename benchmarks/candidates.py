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
from about import CORES, announced
from processes import timed
from table import Result, markdown, summary

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
        seconds, memory = timed(commands, self.folder, **cache)
        found: dict[str, float | None] = {}
        for part in self.folder.glob(f"{name}-*.json"):
            found |= json.loads(part.read_text())
        if missing := {str(number) for number in range(self.count)} - set(found):
            raise RuntimeError(f"{name} says nothing of the candidates {sorted(missing, key=int)}.")
        for left in self.folder.glob("ray*/"):
            shutil.rmtree(left, ignore_errors=True)
        return Result(seconds, memory, {int(number): found[number] for number in sorted(found, key=int)}, {})

    def ours(self, cold: bool) -> Result:
        """A run of `l2l search`."""
        cache, run = self.cache("l2l", cold), self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-c", "from l2l.cli.commands import main; main()", *self.words()]
        seconds, memory = timed([command], self.folder, **cache)
        with (run / "trials.csv").open() as file:
            rows = list(csv.DictReader(file))
        # A training that diverges is a failed trial; the peers say null.
        found = {int(row["number"]): float(row["accuracy"]) if row["status"] == "complete" else None for row in rows}
        return Result(seconds, memory, found, json.loads((run / "result.json").read_text())["seconds"])

    def words(self) -> list[str]:
        """What follows `l2l` to run its search."""
        chosen = self.workload.words(self.count, self.seed, self.batch)
        return ["search", *chosen, "~final", "tracker=console", "out=run"]

    def cache(self, name: str, cold: bool) -> dict[str, str]:
        """Environment variables that have JAX keep all programs in a folder of this peer, emptied if `cold`.

        Whatever the caller's own environment says of a cache, it is neither read nor written.
        """
        folder = self.folder / f"cache-{name}"
        if cold:
            shutil.rmtree(folder, ignore_errors=True)
        return {
            "JAX_COMPILATION_CACHE_DIR": str(folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def quality(self, name: str, trials: Sequence[Any], seeds: int) -> dict[str, Any]:
        """The usual Flax loop and l2l on the same candidates under several seeds."""
        import workloads

        script = str(Path(__file__).parent / "quality.py")
        ours: list[dict[int, float | None]] = []
        theirs: list[Mapping[int, Any]] = []
        for at in range(seeds):
            seed = self.seed + at
            workloads.write_orders(self.workload, trials, seed, self.folder)
            theirs.append(self.peer("flax", str(at)).accuracies)
            numbers = map(str, (self.count, self.batch, self.seed, seed))
            command = [sys.executable, script, str(self.folder), name, *numbers]
            timed([command], self.folder, **self.cache("l2l", cold=False))
            found = json.loads((self.folder / "l2l-seed.json").read_text())
            ours.append({int(number): accuracy for number, accuracy in found.items()})
        return quality.compared(ours, theirs)


def main() -> None:
    """Runs the benchmark and prints its table."""
    import workloads

    given = arguments(sorted(workloads.WORKLOADS))
    workload = workloads.WORKLOADS[given.workload]
    count = given.candidates or workload.count
    batch = min(count, given.batch or workloads.BATCH)
    peers = entrants(given.peers, given.repeats)
    pythons = {"flax": sys.executable, "torch": given.torch_python, "ray": given.ray_python}
    about = announced({name: pythons[name] for name in peers if name in ("torch", "ray")})
    libraries = {"numpy": sys.executable, "xla": sys.executable}
    peak = floor.peak(libraries | ({"torch": given.torch_python} if "torch" in peers else {}))
    print(floor.told(peak), flush=True)
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(workload, count, batch, given.seed, Path(place).resolve(), pythons)
        trials = workloads.write(workload, count, given.seed, batch, bench.folder)
        candidates = [trial.candidate.values for trial in trials]
        flops = sum(floor.operations(workloads.space_of(workload), candidates, workloads.spec_of(workload)))
        results = repeated(bench, peers, given.repeats)
        record: dict[str, Any] = {"about": about, "workload": given.workload, "candidates": count, "batch": batch}
        record |= {"seed": given.seed, "command": shlex.join(["l2l", *bench.words()])}
        record |= summary(results, count, flops, peak["gflops"]) | {"peak": peak}
        if given.quality_seeds:
            record["quality"] = bench.quality(given.workload, trials, given.quality_seeds)
    print(json.dumps(record, indent=2))
    print(f"\nWorkload {given.workload}, {count} candidates, {given.repeats} repeats: median (smallest to largest)\n")
    print(markdown(record))
    print(f"\nThe floor, {record['floor_seconds']:.2f} s: {flops:.3g} operations at the {floor.told(peak)}.")
    if given.quality_seeds:
        print(quality.told(record["quality"]))
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n")


def arguments(names: Sequence[str]) -> argparse.Namespace:
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
    given = parser.parse_args()
    for name in ("candidates", "repeats", "batch"):
        if (number := getattr(given, name)) is not None and number < 1:
            parser.error(f"--{name} {number}: expected at least 1.")
    try:
        entrants(given.peers, given.repeats)
    except ValueError as error:
        parser.error(f"--peers {error}")
    return given


def entrants(text: str, repeats: int) -> dict[str, int]:
    """How many repeats each peer of `flax:1,torch` takes part in, all of them unless said otherwise.

    Raises: ValueError for a peer that is unknown or more repeats than there are.
    """
    found: dict[str, int] = {}
    for each in filter(None, text.split(",")):
        name, _, number = each.partition(":")
        if name not in PEERS:
            raise ValueError(f"{each}: expected some of {', '.join(PEERS)}.")
        if number and not (number.isdecimal() and 1 <= int(number) <= repeats):
            raise ValueError(f"{each}: expected from 1 to {repeats} repeats behind the colon.")
        found[name] = int(number or repeats)
    return found


def kinds(name: str) -> list[str]:
    """The rows of a peer: one from an empty cache and one that finds what it left, or one if it compiles nothing."""
    return [name] if name == "torch" else [f"{name} cold", f"{name} warm"]


def repeated(bench: Bench, peers: Mapping[str, int], repeats: int) -> dict[str, list[Result]]:
    """All runs by row; every repeat begins with the next peer in turn, and a warm run follows its cold one."""
    results: dict[str, list[Result]] = {kind: [] for name in (*peers, "l2l") for kind in kinds(name)}
    for at in range(repeats):
        for name in rotated([*(name for name, number in peers.items() if at < number), "l2l"], at):
            for kind in kinds(name):
                run(results, kind, bench.count, lambda kind=kind: bench.once(kind))
    return results


def rotated(names: Sequence[str], at: int) -> list[str]:
    """The names from another one on, the others behind it."""
    at %= len(names)
    return [*names[at:], *names[:at]]


def run(results: dict[str, list[Result]], name: str, count: int, call: Callable[[], Result]) -> None:
    """Adds one result and prints its line as it ends."""
    result = call()
    results[name].append(result)
    known = [each for each in result.accuracies.values() if each is not None]
    parts = {key: round(value, 1) for key, value in result.ledger.items()}
    print(
        f"{name}: {result.seconds:.1f} s, {60 * count / result.seconds:.0f} candidates/min, mean accuracy "
        f"{statistics.mean(known or [0.0]):.4f} ({len(known)} of {count}), {result.memory:.0f} MiB {parts or ''}",
        flush=True,
    )


if __name__ == "__main__":
    main()
