"""Lanes: candidates a minute when P candidates of one bucket train in one call of its program.

    python benchmarks/lanes.py A C --lanes 1,4,16,64,256,1024 --json FILE
    python benchmarks/lanes.py C --devices 1,2 --lanes 16 --json FILE

A workload's bucket is the one that most of its candidates fall into, for perceptrons and for convolutional networks
apart. Calls are timed with their program compiled: they sample weights on the host, train and cut what comes back.
With `--devices` each count of host devices is tried in processes of its own, in turn (CPU alone). The share of peak
is that of the seconds of training, by the candidates' operations in their true shapes and the matrix product that
is fastest with all cores or the accelerator.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import floor
from about import announce
from table import format_range

CPU, ACCELERATOR = (1, 4, 16), (1, 4, 16, 64, 256, 1024)
"""Numbers of lanes tried unless the command says otherwise."""
DRAWN = 256
"""Candidates by which a workload's commonest buckets are known."""
MORE = 64
"""Draws for each lane before a bucket is too rare to fill."""
POOL = 16
"""Candidates that fewer lanes train in several calls, so that few lanes and many are compared on the same ones."""


def choose_candidates(population: Any, lanes: int, seed: int) -> dict[str, tuple[Any, list[Any]]]:
    """The commonest bucket of each family and as many of its candidates as lanes, by family."""
    rng, space = random.Random(seed), population.space
    groups: dict[str, list[Any]] = collections.defaultdict(list)
    for count in range(max(DRAWN, MORE * lanes)):
        candidate = space.sample(rng)
        groups[population.bucket(candidate).name].append(candidate)
        if count + 1 >= DRAWN:
            commonest = _find_commonest(groups)
            if all(len(members) >= lanes for members in commonest.values()):
                break
    else:
        raise SystemExit(f"no bucket of {space.name!r} has {lanes} candidates: ask for fewer lanes.")
    return {family: (population.bucket(members[0]), members[:lanes]) for family, members in commonest.items()}


def _find_commonest(groups: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    picked: dict[str, list[Any]] = {}
    for members in groups.values():
        family = str(members[0].values["family"])
        picked[family] = max(picked.get(family, []), members, key=len)
    return picked


def measure_lanes(population: Any, bucket: Any, candidates: Sequence[Any], lanes: int, repeats: int) -> dict[str, Any]:
    """Seconds to train these candidates so many at a time, after a call that compiles the program."""
    import jax

    members = [(candidate, jax.random.fold_in(jax.random.key(0), start)) for start, candidate in enumerate(candidates)]
    _, first = population.train(members[:lanes], bucket, lanes)
    walls, runs = list[float](), list[float]()
    for _ in range(repeats):
        started, run = time.perf_counter(), 0.0
        for start in range(0, len(members), lanes):
            run += population.train(members[start : start + lanes], bucket, lanes)[1]["train"]
        walls.append(time.perf_counter() - started)
        runs.append(run)
    flops = sum(
        floor.count_operations(population.space, [candidate.values for candidate in candidates], population.spec)
    )
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "lanes": lanes, "candidates": len(candidates), "flops": flops,
        "compile_seconds": first["trace"] + first["compile"],
        "seconds": {"median": statistics.median(walls), "all": walls},
        "run_seconds": {"median": statistics.median(runs), "all": runs},
        "device_memory_mib": stats["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in stats else None,
    } | compute_rates(len(candidates), flops, statistics.median(walls), statistics.median(runs))  # fmt: skip


def compute_rates(candidates: int, flops: float, wall: float, run: float) -> dict[str, float]:
    """What is done in a minute, and in a second of the program."""
    return {"candidates_per_minute": 60 * candidates / wall, "gflops": flops / run / 1e9}


def measure_here(names: Sequence[str], lanes: Sequence[int], repeats: int, seed: int) -> list[dict[str, Any]]:
    """The rows of these workloads on this process's devices; a count that does not fit in memory ends its bucket."""
    import jax
    import workloads

    from l2l.engine.population import Population

    rows: list[dict[str, Any]] = []
    for name in names:
        workload = workloads.WORKLOADS[name]
        population = Population(workloads.make_space(workload), workloads.make_task(workload), workload.epochs)
        for family, (bucket, candidates) in choose_candidates(population, max([POOL, *lanes]), seed).items():
            about = {"workload": name, "bucket": f"{family} {dict(bucket.sizes)}", "devices": jax.device_count()}
            for count in sorted(lanes):
                try:
                    pool = candidates[: max(POOL, count)]
                    rows.append(about | measure_lanes(population, bucket, pool, count, repeats))
                except Exception as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    print(f"{name} {family}: {count} lanes are out of memory", flush=True)
                    break
                print(describe_row(rows[-1]), flush=True)
    return rows


def measure_devices(
    counts: Sequence[int], names: Sequence[str], lanes: Sequence[int], repeats: int, seed: int
) -> list[dict[str, Any]]:
    """The rows for each count of host devices, each repeat a process of its own, the counts in turn."""
    repeats_of: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        for _ in range(repeats):
            for count in counts:
                flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
                command = [sys.executable, __file__, *names, "--lanes", ",".join(map(str, lanes)), "--repeats", "3"]
                command += ["--seed", str(seed), "--peak", "1", "--json", str(file)]
                subprocess.run(
                    command, env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}, check=True,
                    stdout=subprocess.DEVNULL,
                )  # fmt: skip
                for row in json.loads(file.read_text())["rows"]:
                    repeats_of.setdefault((row["workload"], row["bucket"], row["lanes"], row["devices"]), []).append(
                        row
                    )
    return [_join_rows(rows) for rows in repeats_of.values()]


def _join_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The processes of one row as one: the median of each is one of its seconds."""
    row = dict(rows[0])
    for name in ("seconds", "run_seconds"):
        medians = [repeat[name]["median"] for repeat in rows]
        row[name] = {"median": statistics.median(medians), "all": medians}
    return row | compute_rates(row["candidates"], row["flops"], row["seconds"]["median"], row["run_seconds"]["median"])


def compute_speedups(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many times as fast more devices are than the fewest, paired process by process."""
    speedups: dict[str, Any] = {}
    for row in rows:
        same = [other for other in rows if all(other[key] == row[key] for key in ("workload", "bucket", "lanes"))]
        base = min(same, key=lambda other: other["devices"])
        if row["devices"] != base["devices"]:
            pairs = zip(base["seconds"]["all"], row["seconds"]["all"], strict=True)
            quotients = [one / more for one, more in pairs]
            name = f"{row['workload']} {row['bucket']}, {row['lanes']} lanes, {row['devices']} to {base['devices']}"
            speedups[name] = {"median": statistics.median(quotients), "all": quotients}
    return speedups


def describe_row(row: Mapping[str, Any]) -> str:
    """A row in a line."""
    return (
        f"{row['workload']} {row['bucket']}, {row['devices']} device(s), {row['lanes']} lanes: "
        f"{row['candidates_per_minute']:.0f} candidates/min, {row['gflops']:.1f} GFLOP/s in training"
    )


def format_rows(rows: Sequence[Mapping[str, Any]], peak: float) -> str:
    """The rows as a table."""
    lines = [
        "| workload | bucket | devices | lanes | candidates/min | train, s | of peak | compile, s | device MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        values = [60 * row["candidates"] / seconds for seconds in row["seconds"]["all"]]
        rate = {"median": row["candidates_per_minute"], "all": values}
        memory = row["device_memory_mib"]
        lines.append(
            f"| {row['workload']} | {row['bucket']} | {row['devices']} | {row['lanes']} | {format_range(rate, 0)} | "
            f"{format_range(row['run_seconds'], 3)} | {100 * row['gflops'] / peak:.2g} % | "
            f"{row['compile_seconds']:.1f} | "
            f"{'-' if memory is None else f'{memory:.0f}'} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="+", choices=("A", "B", "C"))
    parser.add_argument("--lanes", type=parse_integers, help="with commas")
    parser.add_argument("--devices", type=parse_integers, help="counts of host devices to compare, with commas")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--peak", type=float, help="GFLOP/s measured before; by default they are measured now")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = announce()
    # In other processes, before this one takes the accelerator's memory.
    peak = {"gflops": options.peak} if options.peak else floor.measure_peak({"xla": sys.executable})
    print(floor.describe_peak(peak) if "all" in peak else f"peak {options.peak} GFLOP/s, as given", flush=True)
    record: dict[str, Any] = {"about": about, "peak": peak}
    if options.devices:
        lanes = options.lanes or [16]
        record["rows"] = measure_devices(options.devices, options.workloads, lanes, options.repeats, options.seed)
        record["ratio"] = compute_speedups(record["rows"])
    else:
        import jax

        about["device"] = jax.devices()[0].device_kind
        lanes = options.lanes or (CPU if jax.default_backend() == "cpu" else ACCELERATOR)
        record["rows"] = measure_here(options.workloads, lanes, options.repeats, options.seed)
    for row in record["rows"]:
        row["share_of_peak"] = row["gflops"] / peak["gflops"]
    print("\n" + format_rows(record["rows"], peak["gflops"]))
    for name, ratio in record.get("ratio", {}).items():
        print(f"{name} device(s): {format_range(ratio, 2)} times as fast")
    if options.json:
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def parse_integers(text: str) -> list[int]:
    """Whole numbers of at least 1, with commas between them."""
    integers = [int(word) for word in text.split(",")]
    if min(integers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected integers of at least 1.")
    return integers


if __name__ == "__main__":
    main()
