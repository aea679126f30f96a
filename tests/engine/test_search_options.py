"""Results are exact in programs compiled with a search's own options, too; all other tests compile more quickly."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
CHOSEN = (
    "engine/test_population.py::test_a_lane_does_not_depend_on_its_index_or_its_neighbours[0-mlp]",
    "engine/test_population.py::test_a_lane_does_not_depend_on_its_index_or_its_neighbours[0-cnn]",
    "engine/test_population.py::test_the_number_of_lanes_changes_the_last_digit_only[0-mlp]",
    "engine/test_population.py::test_threads_do_not_change_a_bit[mlp]",
    "engine/test_population.py::test_a_fresh_population_gives_the_same_bits",
    "engine/test_training_parts.py::test_a_training_goes_on_from_a_file",
    "objectives/test_final.py::test_the_winners_run_repeats_bit_for_bit[2]",
    "export/test_module.py::test_a_new_process_elsewhere_scores_to_the_last_digit_and_imports_nothing_that_a_file_names",
)
"""One or more for each rule that CONTRIBUTING.md names, from files that collect and compile quickly."""


def run_exact(*tests: str) -> str:
    """Runs those of the tests that are marked `exact` with a search's own options: what pytest prints."""
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "exact", *tests]
    environment = {**os.environ, "XLA_FLAGS": ""}
    ended = subprocess.run(command, env=environment, cwd=TESTS, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_few_exact_tests_pass_with_the_options_of_a_search() -> None:
    assert f"\n{len(CHOSEN)} passed in " in run_exact(*CHOSEN)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_exact_tests_pass_with_the_options_of_a_search() -> None:
    run_exact(str(TESTS))
