"""The benchmark's arithmetic, and what it counts and watches; no time is asserted."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import candidates
import floor
import pytest
import quality
import workloads
from processes import Memory, time_commands
from table import Result, compute_ratios, describe_lost, format_range, format_table, summarise_runs


def test_a_table_of_medians_and_spread() -> None:
    scores, others = {0: 0.5, 1: None, 2: 0.7}, {0: 0.4, 1: 0.1, 2: 0.6}
    ledger = {"total": 1.0, "train": 0.5}
    results = {
        "flax cold": [Result(40.0, 300.0, others, {}), Result(60.0, 310.0, others, {})],
        "flax warm": [Result(20.0, 300.0, others, {}), Result(30.0, 310.0, others, {})],
        "torch": [Result(15.0, 200.0, others, {})],  # in the first repeat alone
        "l2l cold": [Result(20.0, 500.0, scores, ledger), Result(20.0, 400.0, scores, {"total": 3.0, "train": 0.5})],
        "l2l warm": [Result(10.0, 500.0, scores, ledger), Result(10.0, 450.0, scores, ledger)],
    }
    record = {"candidates": 3, "command": "l2l search", **summarise_runs(results, 3, flops=1e11, peak=10.0)}
    rates = {"flax cold": 3.6, "flax warm": 7.2, "torch": 12.0, "l2l cold": 9.0, "l2l warm": 18.0}
    assert record["candidates_per_minute"] == rates
    assert record["seconds"]["flax cold"] == {"median": 50.0, "all": [40.0, 60.0]}
    # Candidate 1 diverged for l2l, so nobody's accuracy counts it.
    assert record["mean_accuracy"] == pytest.approx(dict.fromkeys(rates, 0.5) | {"l2l cold": 0.6, "l2l warm": 0.6})
    assert [*record["peak_memory_mib"].values()] == [310.0, 310.0, 200.0, 500.0, 500.0]
    assert record["floor_seconds"] == 10.0
    assert record["share_of_floor"]["flax cold"] == 0.2
    assert record["ledger"]["l2l cold"] == {"total": 2.0, "train": 0.5}
    lines = format_table(record).splitlines()
    assert lines[2] == (
        "| Optuna + usual Flax loop, empty cache | 2 | 50.0 (40.0 to 60.0) | 4 (3 to 4) | 0.5000 | 310 | 20 % "
        "| 2.50 (2.00 to 3.00) / - |"
    )
    assert lines[3].endswith("| - / 2.50 (2.00 to 3.00) |")
    assert lines[4] == "| Optuna + PyTorch eager | 1 | 15.0 | 12 | 0.5000 | 200 | 67 % | 0.75 / 1.50 |"
    assert lines[5].endswith("| - |")
    assert {line.count("|") for line in lines[:7]} == {9}
    assert lines[-6] == "| cold | 2.0 | 0.5 |"
    assert "scoring is part of the compiled program, hence evaluate 0" in lines[-3]
    assert lines[-1] == "What l2l ran: `l2l search`"


def test_ratios_are_of_like_to_like_and_of_the_repeats_that_both_have() -> None:
    def runs(*seconds: float) -> list[Result]:
        return [Result(duration, 1.0, {0: 0.5}, {}) for duration in seconds]

    ratios = compute_ratios(
        {
            "flax cold": runs(80.0), "flax warm": runs(30.0), "torch": runs(8.0, 9.0),
            "l2l cold": runs(4.0, 6.0), "l2l warm": runs(2.0, 3.0),
        }
    )  # fmt: skip
    assert {name: ratio["all"] for name, ratio in ratios.items()} == {
        "cold to flax": [20.0],
        "warm to cold flax": [40.0],
        "warm to flax": [15.0],
        "cold to torch": [2.0, 1.5],
        "warm to torch": [4.0, 3.0],
    }


def test_a_mean_is_over_what_no_run_of_any_peer_lost() -> None:
    results = {
        "torch": [Result(1.0, 1.0, {0: None, 1: 0.3, 2: 0.5, 3: 0.7}, {}) for _ in range(2)],
        "l2l cold": [Result(1.0, 1.0, {0: 0.9, 1: 0.4, 2: 0.6, 3: 0.8}, {}), Result(1.0, 1.0, {0: 0.9, 1: None}, {})],
        "l2l warm": [Result(1.0, 1.0, {0: 0.9, 1: 0.4, 2: 0.6, 3: 0.8}, {}) for _ in range(2)],
    }
    record = {"candidates": 4, **summarise_runs(results, 4, flops=1e11, peak=10.0)}
    assert record["lost"] == {"torch": 1, "l2l cold": 1, "l2l warm": 0}
    assert record["accuracies_of"] == 2
    assert record["mean_accuracy"] == pytest.approx({"torch": 0.6, "l2l cold": 0.7, "l2l warm": 0.7})
    assert describe_lost(record) == (
        "Accuracy is over the 2 candidates that no peer lost to a training that diverged "
        "(lost: torch 1, l2l cold 1, l2l warm 0)."
    )


def test_one_run_has_no_spread() -> None:
    assert format_range({"median": 2.0, "all": [2.0]}, 1) == "2.0"


def test_a_peer_takes_part_in_so_many_repeats() -> None:
    assert candidates.parse_peers("flax:1,torch", 5) == {"flax": 1, "torch": 5}
    assert candidates.parse_peers("", 5) == {}
    for text in ("flux", "flax:6", "flax:0", "flax:-1", "flax:one"):
        with pytest.raises(ValueError, match="expected"):
            candidates.parse_peers(text, 5)


def test_who_runs_when(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    def once(self: candidates.Bench, kind: str) -> Result:
        seen.append(kind)
        return Result(1.0, 1.0, {0: None}, {})

    monkeypatch.setattr(candidates.Bench, "once", once)
    results = candidates.repeat_runs(candidates.Bench(None, 1, 1, 7, tmp_path, {}), {"flax": 1, "torch": 3}, 3)
    assert {name: len(runs) for name, runs in results.items()} == {
        "flax cold": 1, "flax warm": 1, "torch": 3, "l2l cold": 3, "l2l warm": 3
    }  # fmt: skip
    assert seen == [
        "flax cold", "flax warm", "torch", "l2l cold", "l2l warm",
        "l2l cold", "l2l warm", "torch",
        "torch", "l2l cold", "l2l warm",
    ]  # fmt: skip


def test_a_cold_run_empties_its_own_cache_and_nobody_reads_the_callers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "callers"))
    seen: list[tuple[str, bool]] = []

    def time_commands(_: list[list[str]], folder: Path, **environment: str) -> tuple[float, float]:
        cache = Path(environment["JAX_COMPILATION_CACHE_DIR"])
        assert cache.is_absolute()
        assert environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"
        assert environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] == "-1"
        seen.append((cache.name, cache.exists()))
        cache.mkdir(exist_ok=True)
        (folder / "flax-0.json").write_text('{"0": 0.5}')
        (folder / "run").mkdir(exist_ok=True)
        (folder / "run" / "trials.csv").write_text("number,status,accuracy\n0,complete,0.5\n")
        (folder / "run" / "result.json").write_text('{"seconds": {}}')
        return 1.0, 1.0

    monkeypatch.setattr(candidates, "time_commands", time_commands)
    bench = candidates.Bench(workloads.WORKLOADS["A"], 1, 1, 7, tmp_path, {"flax": sys.executable})
    kinds = ("flax cold", "flax warm", "l2l cold", "l2l warm")
    for kind in (*kinds, *kinds):
        assert bench.once(kind).accuracies == {0: 0.5}
    caches = [("cache-flax", False), ("cache-flax", True), ("cache-l2l", False), ("cache-l2l", True)]
    assert seen == [*caches, *caches]


def test_l2ls_words_are_those_of_its_command(tmp_path: Path) -> None:
    words = candidates.Bench(workloads.WORKLOADS["A"], 20, 5, 7, tmp_path, {}).words()
    assert words == [
        "search", "space=mixed", "task=digits", "objective.epochs=5", "searcher=random", "seed=7", "trials=20",
        "batch=5", "~final", "tracker=console", "out=run",
    ]  # fmt: skip


def test_peers_take_turns_to_begin() -> None:
    orders = [candidates.rotate_names(["flax", "torch", "l2l"], at) for at in range(4)]
    assert [order[0] for order in orders] == ["flax", "torch", "l2l", "flax"]
    assert all(sorted(order) == ["flax", "l2l", "torch"] for order in orders)


def test_quality_is_paired_by_seed_and_leaves_out_what_either_lost() -> None:
    accuracies = [{0: 0.5, 1: None, 2: 0.3}, {0: 0.7, 1: 0.9, 2: 0.3}]
    others = [{0: 0.4, 1: 0.1, 2: 0.3}, {0: 0.8, 1: None, 2: None}]
    comparison = quality.compare_accuracies(accuracies, others)
    assert (comparison["candidates"], comparison["lost"]) == (1, {"l2l": 1, "flax": 2})
    assert comparison["within"]
    assert comparison["difference"]["all"] == pytest.approx([0.1, -0.1])
    assert comparison["difference"]["standard_error"] == pytest.approx(0.1)
    assert not quality.compare_accuracies([{0: 0.9}], [{0: 0.4}])["within"]


def taps(size: int, kernel: int) -> float:
    """Products for an output pixel and a pair of channels: the kernel's, or those of whole rows where that is fewer."""
    inside = [0 <= row + offset - kernel // 2 < size for row in range(size) for offset in range(kernel)]
    return min(kernel**2, size * sum(inside) / size)


def test_the_floor_counts_what_the_true_shape_needs() -> None:
    workload = workloads.WORKLOADS["A"]
    space, spec = workloads.make_space(workload), workloads.make_spec(workload)
    draw = random.Random(1)
    samples = [space.sample(draw).values for _ in range(12)]
    assert {values["family"] for values in samples} == {"mlp", "cnn"}
    for values, counted in zip(samples, floor.count_operations(space, samples, spec), strict=True):
        depth = int(values["depth"])
        if values["family"] == "mlp":
            width = int(values["width"])
            products = 64 * width + (depth - 1) * width**2 + width * 10
        else:  # 8 x 8 in the first layer, 4 x 4 behind its pooling
            filters, kernel = int(values["filters"]), int(values["kernel"])
            products = 64 * taps(8, kernel) * filters + 16 * filters * 10
            products += (depth - 1) * 16 * taps(4, kernel) * filters**2
        assert counted == pytest.approx(3 * 2 * products * spec.examples * spec.epochs)


def test_the_peak_names_its_product() -> None:
    peak = floor.measure_peak({"numpy": sys.executable}, sizes=(64, 128), budget=0.01)
    assert peak["gflops"] == max(peak["all"]["numpy"].values()) > 0
    assert peak["by"] in {"numpy, 64 x 64", "numpy, 128 x 128"}
    assert "of numpy" in floor.describe_peak(peak)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_that_of_all_descendants_together() -> None:
    # Both hold 60 MiB; the child says so and waits for its input to end.
    hold = "data = bytearray(60 << 20)"
    child = f"{hold}; print('ready', flush=True); input()"
    parent = f"{hold}; import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = Memory([process.pid])
        memory.look()
        process.communicate()
    assert 120 < memory.peak < 240
    memory.look()
    assert not memory.known


def test_a_peer_that_fails_is_no_figure(tmp_path: Path) -> None:
    seconds, memory = time_commands([[sys.executable, "-c", "print('done')"]] * 2, tmp_path)
    assert seconds > 0 < memory
    with pytest.raises(RuntimeError, match=r"exit codes \[0, 3\](.|\n)*too small"):
        time_commands([[sys.executable, "-c", "0"], [sys.executable, "-c", "print('too small'); exit(3)"]], tmp_path)
