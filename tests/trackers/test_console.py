"""The console's figures, its plain lines and its live display, with a clock that the test turns."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console as Screen

from l2l.space import Candidate, Categorical, SearchSpace
from l2l.trackers.console import Console, Progress
from l2l.types import Outcome, SearchEnd, SearchInfo, Status, Trial

END = SearchEnd({}, {}, {})
SPACE = SearchSpace({"x": Categorical(options=(1, 2))}, lambda values, spec: None)
LEDGER = {"trace": 0.5, "compile": 12.0, "train": 345.6, "evaluate": 3.0, "controller": 0.1, "store": 1.0, "idle": 2.0}


def run(trials: int = 20, name: str = "a-run") -> SearchInfo:
    return SearchInfo(name, "group", Path(), {}, SPACE, trials, "accuracy")


def good(number: int, accuracy: float, *rewards: float) -> Trial:
    reward = rewards or (accuracy,)
    outcome = Outcome({"accuracy": accuracy})
    return Trial(number, Candidate({"x": 1}), (0, 4), (number,), Status.COMPLETE, outcome, reward)


def bad(number: int, error: str) -> Trial:
    return Trial(number, Candidate({"x": 1}), (0, 4), (number,), Status.FAILED, Outcome(error=error))


def progress(*trials: Trial, total: int = 20) -> Progress:
    result = Progress("a-run", "accuracy", total)
    for trial in trials:
        result = result.count_trial(trial)
    return result


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(clock: Clock, **arguments: float) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(clock=clock, screen=Screen(file=file, width=80), **arguments), file


def draw_lines(shown: Progress, elapsed: float) -> list[str]:
    screen = Screen(file=io.StringIO(), width=80, record=True)
    screen.print(shown.draw(elapsed))
    return screen.export_text().splitlines()


def test_the_best_is_the_first_of_the_highest_reward() -> None:
    assert progress().describe_best() == "none yet"
    assert progress(good(0, 0.5), good(1, 0.9), good(2, 0.9)).describe_best() == "accuracy 0.9000 (trial 1)"
    # A reward that is not the metric itself is what the trial is the best by; one that is, or less of it, is not said.
    assert progress(good(0, 0.9, 0.1), good(1, 0.5, 0.4)).describe_best() == "reward 0.4000, accuracy 0.5000 (trial 1)"
    assert progress(good(3, 0.9, 0.9, -2.0)).describe_best() == "reward 0.9000 -2.000, accuracy 0.9000 (trial 3)"
    assert progress(good(4, 0.9, -0.9)).describe_best() == "accuracy 0.9000 (trial 4)"


def test_failures_that_differ_in_numbers_are_one_kind() -> None:
    steps = [bad(number, f"diverged at step {number}.") for number in range(3)]
    assert progress(*steps).describe_failures() == "3 (diverged at step 2)"
    assert progress(bad(9, "out of memory"), *steps).describe_failures() == "4 (3 of them: diverged at step 2)"
    assert progress(good(0, 0.5)).describe_failures() == "0"
    silent = Trial(0, Candidate({"x": 1}), (0, 4), (0,), Status.FAILED)
    assert progress(silent).describe_failures() == "1 (no reason given)"


def test_pruned_trials_are_counted_and_never_the_best() -> None:
    pruned = Trial(1, Candidate({"x": 1}), (0, 4), (0,), Status.PRUNED, Outcome({"accuracy": 0.9}), (0.9,))
    shown = progress(good(0, 0.5), pruned)
    assert (shown.finished, shown.failed, shown.pruned, shown.best) == (2, 0, 1, good(0, 0.5))
    assert shown.write_line(60).endswith(", pruned 1")
    assert [line.split() for line in draw_lines(shown, 60)][4] == ["pruned", "1", "stopped", "early"]


@pytest.mark.parametrize(("elapsed", "left"), [(10, "40 s left"), (60, "4 min 00 s left"), (3600, "4 h 00 min left")])
def test_the_time_left_is_in_words(elapsed: float, left: str) -> None:
    assert progress(*[good(number, 0.5) for number in range(4)]).describe_remainder(elapsed) == left


def test_plain_lines_come_every_few_seconds_and_at_the_end() -> None:
    clock = Clock()
    console, file = plain(clock, every=5.0)
    console.start(run(), [])
    for number in range(10):
        clock.now += 2
        console.tell(
            bad(number, "out of memory: asked for [64, 64]") if number == 3 else good(number, number / 10), LEDGER
        )
    console.tell_batch([], {"entropy": 1.0})
    clock.now += 50
    console.finish(END)
    assert file.getvalue().splitlines() == [
        "a-run: 20 candidates",
        "6 s: 3/20 done, best accuracy 0.2000 (trial 2), 30.0 candidates/min, 34 s left",
        "12 s: 6/20 done, best accuracy 0.5000 (trial 5), 30.0 candidates/min, 28 s left, "
        "failed 1 (out of memory: asked for [64, 64])",
        "18 s: 9/20 done, best accuracy 0.8000 (trial 8), 30.0 candidates/min, 22 s left, "
        "failed 1 (out of memory: asked for [64, 64])",
        "1 min 10 s: 10/20 done, best accuracy 0.9000 (trial 9), 8.6 candidates/min, finished with 10 to go, "
        "failed 1 (out of memory: asked for [64, 64])",
        "seconds: trace 0.5, compile 12.0, train 345.6, evaluate 3.0, controller 0.1, store 1.0, idle 2.0",
    ]


def test_a_resumed_search_counts_all_but_paces_by_its_own() -> None:
    clock = Clock()
    console, file = plain(clock, every=0.0)
    console.start(run(), [good(number, 0.1 * number) for number in range(8)])
    clock.now += 60
    console.tell(good(8, 0.3), {})
    console.finish(None)
    assert file.getvalue().splitlines() == [
        "a-run: 20 candidates, 8 of them finished earlier",
        "1 min 00 s: 9/20 done, best accuracy 0.7000 (trial 7), 1.0 candidates/min, 11 min 00 s left",
        "1 min 00 s: 9/20 done, best accuracy 0.7000 (trial 7), 1.0 candidates/min, interrupted with 11 to go",
    ]


def test_no_control_character_reaches_a_plain_output() -> None:
    clock = Clock()
    console, file = plain(clock, every=0.0)
    console.start(run(), [])
    console.tell(bad(0, "a\x1b[31m red\r\nline\x07 \u009b"), {})
    console.finish(END)
    assert all(character.isprintable() or character == "\n" for character in file.getvalue())


def test_the_display_fits_eighty_columns_and_says_everything() -> None:
    trials = [good(number, number / 1000) for number in range(211)] + [bad(211, "diverged at step 12: " + "x" * 90)]
    shown = progress(*trials, total=500)
    shown = Progress(**{**vars(shown), "seconds": LEDGER, "learned": {"mean reward": 0.81, "entropy": 2.5}})
    lines = draw_lines(shown, 724)
    assert max(map(len, lines)) <= 80
    assert len(lines) == 8
    assert lines[0].split() == ["a-run", "12", "min", "04", "s"]
    assert lines[1].rstrip().endswith("212/500")
    assert [line.split()[0] for line in lines[2:7]] == ["best", "pace", "failed", "learned", "seconds"]
    assert "accuracy 0.2100 (trial 210)" in lines[2]
    assert "17.6 candidates a minute, 16 min 24 s left" in lines[3]
    assert lines[4].rstrip().endswith("…")
    assert lines[6].split()[1:] == list(LEDGER)
    assert lines[7].split() == ["0.5", "12.0", "345.6", "3.0", "0.1", "1.0", "2.0"]


def test_an_empty_search_and_a_narrow_terminal_can_be_drawn() -> None:
    assert any("none yet" in line for line in draw_lines(progress(total=0), 0.0))
    screen = Screen(file=io.StringIO(), width=20)
    screen.print(progress(good(0, 0.5)).draw(1.0))


def test_a_terminal_gets_a_display_that_is_taken_down_again() -> None:
    file = io.StringIO()
    screen = Screen(
        file=file, width=80, height=24, force_terminal=True, legacy_windows=False, _environ={"TERM": "xterm"}
    )
    console = Console(clock=Clock(), screen=screen)
    console.start(run(2), [])
    console.tell(good(0, 0.75), LEDGER)
    console.finish(END)
    console.finish(None)
    text = file.getvalue()
    hide, show = "\x1b[?25l", "\x1b[?25h"
    assert text.count(hide) == text.count(show) == 1
    assert text.rstrip().endswith(show)
    assert "accuracy 0.7500 (trial 0)" in text


def test_a_dumb_terminal_gets_plain_lines() -> None:
    file = io.StringIO()
    screen = Screen(file=file, width=80, force_terminal=True, color_system=None, _environ={"TERM": "dumb"})
    console = Console(clock=Clock(), screen=screen)
    console.start(run(2), [])
    console.finish(END)
    assert "\x1b" not in file.getvalue()


def test_finishing_what_was_never_started_says_nothing() -> None:
    console, file = plain(Clock())
    console.finish(None)
    assert file.getvalue().count("\n") <= 1
