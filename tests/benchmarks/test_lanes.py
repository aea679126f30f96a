"""Which candidates fill the lanes, and how their rows are joined and compared; no time is asserted."""

from __future__ import annotations

from typing import Any

import lanes
import pytest
import workloads

from l2l.engine.population import Population


@pytest.fixture(scope="module")
def population() -> Population:
    """Workload A on one epoch."""
    workload = workloads.WORKLOADS["A"]
    return Population(workloads.make_space(workload), workloads.make_task(workload), 1)


def test_lanes_are_filled_from_the_commonest_bucket_of_each_family(population: Population) -> None:
    chosen = lanes.choose_candidates(population, 40, seed=7)
    assert set(chosen) == {"mlp", "cnn"}
    for family, (bucket, members) in chosen.items():
        assert len(members) == 40
        assert {member.values["family"] for member in members} == {family}
        assert {population.bucket(member).name for member in members} == {bucket.name}


def test_a_row_is_of_all_its_candidates(population: Population) -> None:
    bucket, members = lanes.choose_candidates(population, 3, seed=7)["mlp"]
    row = lanes.measure_lanes(population, bucket, members, lanes=2, repeats=2)
    assert (row["lanes"], row["candidates"], len(row["seconds"]["all"])) == (2, 3, 2)
    assert row["candidates_per_minute"] == pytest.approx(180 / row["seconds"]["median"])
    assert row["gflops"] == pytest.approx(row["flops"] / row["run_seconds"]["median"] / 1e9)


def make_row(devices: int, seconds: list[float]) -> dict[str, Any]:
    """A made-up row of the benchmark."""
    figures = {"median": seconds[0], "all": seconds}
    return {
        "workload": "C", "bucket": "mlp", "devices": devices, "lanes": 16, "candidates": 16, "flops": 1e9,
        "seconds": figures, "run_seconds": figures, "candidates_per_minute": 960 / seconds[0], "gflops": 2.0,
        "compile_seconds": 1.0, "device_memory_mib": None,
    }  # fmt: skip


def test_devices_are_compared_process_by_process() -> None:
    speedups = lanes.compute_speedups([make_row(1, [4.0, 6.0]), make_row(2, [2.0, 4.0])])
    assert speedups == {"C mlp, 16 lanes, 2 to 1": {"median": 1.75, "all": [2.0, 1.5]}}


def test_a_table_of_lanes() -> None:
    lines = lanes.format_rows([make_row(1, [4.0])], peak=100.0).splitlines()
    assert lines[2] == "| C | mlp | 1 | 16 | 240 | 4.000 | 2 % | 1.0 | - |"
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("text", ["0", "4,0"])
def test_lanes_are_at_least_one(text: str) -> None:
    with pytest.raises(Exception, match="at least 1"):
        lanes.parse_integers(text)
