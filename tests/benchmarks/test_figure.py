"""What the throughput experiment makes of records: merged, drawn and written into its README."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import figure
import pytest
from table import NAMES, Result, summarise_runs


def record(workload: str, count: int, seconds: float) -> dict[str, Any]:
    """A made-up record of the benchmark."""
    factors = {"flax cold": 4.0, "flax warm": 3.0, "torch": 2.0, "l2l cold": 1.5, "l2l warm": 1.0}
    runs = {
        name: [Result(factor * seconds, 100.0, {0: 0.5}, {"total": seconds} if "l2l" in name else {})]
        for name, factor in factors.items()
    }
    about = {"machine": "a processor, 2 cores", "jax": "1.0"}
    record = {"about": about, "workload": workload, "candidates": count, "peak": {"by": "numpy, 64 x 64"}}
    record["command"] = f"l2l search trials={count}"
    return record | summarise_runs(runs, count, flops=1e9, peak=10.0)


def test_a_record_replaces_its_like() -> None:
    new = record("A", 20, 5.0)
    assert figure.merge_records([record("C", 9, 1.0), record("A", 200, 1.0), record("A", 20, 1.0)], [new]) == [
        new,
        record("A", 200, 1.0),
        record("C", 9, 1.0),
    ]


def test_files_become_results_figure_and_tables(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text((figure.HERE / "README.md").read_text())
    files = [tmp_path / f"{name}.json" for name in "ab"]
    files[0].write_text(json.dumps(record("A", 20, 5.0)))
    files[1].write_text(json.dumps(record("A", 200, 30.0)))
    figure.main([str(file) for file in files], tmp_path)
    first = {path.name: path.read_bytes() for path in (readme, tmp_path / "figure.svg", tmp_path / "results.json")}
    text = readme.read_text()
    assert "### Workload A, 200 candidates\n\na processor, 2 cores, jax 1.0. 1 repeat;" in text
    assert "| **l2l, programs cached** | 1 | 30.0 | 400 | 0.5000 | 100 | 0.33 % | - |" in text
    assert "What l2l ran: `l2l search trials=200`" in text
    assert text.startswith("# How many candidates a minute?")
    assert text.rstrip().endswith(figure.END)
    figure.main([], tmp_path)  # again from results.json alone: the same bytes
    assert first == {name: (tmp_path / name).read_bytes() for name in first}


def test_a_readme_without_its_place_is_left_alone() -> None:
    with pytest.raises(ValueError, match="put them where the tables belong"):
        figure.replace_tables("# Nothing here", "tables")
    with pytest.raises(ValueError, match="put them where the tables belong"):
        figure.replace_tables(f"{figure.END} {figure.BEGIN}", "tables")


def test_every_row_of_a_table_has_its_look() -> None:
    assert set(figure.LOOKS) == set(NAMES)
    for name, look in figure.LOOKS.items():
        assert (look.get("linestyle") == "--") is name.endswith("cold")


def test_records_of_an_older_benchmark_are_refused(tmp_path: Path) -> None:
    old = {name: value for name, value in record("A", 20, 5.0).items() if name != "command"}
    (tmp_path / "results.json").write_text(json.dumps({"records": [old, record("A", 200, 5.0)]}))
    with pytest.raises(SystemExit, match=r"older benchmark \(A, 20\): measure them anew"):
        figure.main([], tmp_path)


def test_no_record_yet(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no record yet"):
        figure.main([], tmp_path)
    assert list(tmp_path.iterdir()) == []
