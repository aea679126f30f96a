"""A search seen live: a display that stays in place in a terminal, plain lines anywhere else."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import rich.console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from l2l.types import SearchEnd, SearchInfo, Status, Trial


@dataclass(frozen=True)
class Progress:
    """What the display shows. It is a value, since the display's own thread reads it while the search goes on."""

    name: str
    metric: str
    total: int
    finished: int = 0
    finished_earlier: int = 0
    """Trials that had finished before this session."""
    best: Trial | None = None
    failed: int = 0
    pruned: int = 0
    reasons: Mapping[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    """How often each kind of failure occurred, and the last text of it."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    learned: Mapping[str, float] = field(default_factory=dict[str, float])
    end: str = ""
    """What ended it; empty while it goes on."""

    def count_trial(self, trial: Trial) -> Progress:
        """The progress once `trial` has finished."""
        progress = replace(self, finished=self.finished + 1)
        if trial.status is Status.FAILED:
            text = _clean_text((trial.outcome and trial.outcome.error) or "no reason given")
            # Failures that differ in their numbers only (a step, a size) are of one kind.
            kind = re.sub(r"\d+", "#", text)
            count, _ = self.reasons.get(kind, (0, ""))
            return replace(progress, failed=self.failed + 1, reasons={**self.reasons, kind: (count + 1, text)})
        if trial.status is Status.PRUNED:
            return replace(progress, pruned=self.pruned + 1)
        if trial.reward is not None and (self.best is None or trial.reward > (self.best.reward or ())):
            return replace(progress, best=trial)
        return progress

    def compute_pace(self, elapsed: float) -> float:
        """Candidates a minute in this session of `elapsed` seconds."""
        return 60 * (self.finished - self.finished_earlier) / elapsed if elapsed > 0 else 0.0

    def describe_remainder(self, elapsed: float) -> str:
        """What is left, in words."""
        left, pace = self.total - self.finished, self.compute_pace(elapsed)
        if self.end:
            return self.end if not left else f"{self.end} with {left} to go"
        return f"{_format_duration(60 * left / pace)} left" if pace else "no candidate finished yet"

    def describe_best(self) -> str:
        """The best trial so far, in words."""
        if self.best is None or not self.best.reward:
            return "none yet"
        reward, metrics = self.best.reward, self.best.outcome.metrics if self.best.outcome else {}
        value = metrics.get(self.metric)
        figures = [f"{self.metric} {value:#.4g}"] if value is not None else []
        # A reward that equals the metric is not printed twice.
        if value is None or reward not in ((value,), (-value,)):
            figures.insert(0, f"reward {' '.join(f'{number:#.4g}' for number in reward)}")
        return f"{', '.join(figures)} (trial {self.best.number})"

    def describe_failures(self) -> str:
        """How many failed and the most common reason."""
        if not self.failed:
            return "0"
        count, text = max(self.reasons.values(), key=lambda reason: reason[0])
        return f"{self.failed} ({text if count == self.failed else f'{count} of them: {text}'})"

    def write_line(self, elapsed: float) -> str:
        """The progress as one plain line."""
        parts = [
            f"{_format_duration(elapsed)}: {self.finished}/{self.total} done",
            f"best {self.describe_best()}",
            f"{_format_pace(self.compute_pace(elapsed))} candidates/min",
            self.describe_remainder(elapsed),
        ]
        stopped = [f"pruned {self.pruned}"] if self.pruned else []
        return ", ".join(parts + stopped + ([f"failed {self.describe_failures()}"] if self.failed else []))

    def draw(self, elapsed: float) -> rich.console.RenderableType:
        """The progress as eight lines that fit a terminal of 80 columns; nine where candidates are pruned."""
        head = Table.grid(padding=(0, 2, 0, 0), expand=True)
        head.add_column(ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(Text(self.name, "bold", no_wrap=True, overflow="ellipsis"), Text(_format_duration(elapsed)))
        head.add_row(
            ProgressBar(total=max(self.total, 1), completed=self.finished),
            Text(f"{self.finished}/{self.total}", "bold"),
        )
        body = Table.grid(padding=(0, 2, 0, 0), expand=True)
        body.add_column(width=7)
        body.add_column(ratio=1)
        pace = _format_pace(self.compute_pace(elapsed))
        for label, value in {
            "best": self.describe_best(),
            "pace": f"{pace} candidates a minute, {self.describe_remainder(elapsed)}",
            "pruned": f"{self.pruned} stopped early" if self.pruned else "",
            "failed": self.describe_failures(),
            "learned": "  ".join(f"{name} {value:#.4g}" for name, value in self.learned.items()),
        }.items():
            if value:
                body.add_row(Text(label, "dim"), Text(value, no_wrap=True, overflow="ellipsis"))
        if self.seconds:
            body.add_row(Text("seconds", "dim"), _draw_ledger(self.seconds))
        return rich.console.Group(head, body)


class Console:
    """A `Tracker` for the terminal it runs in.

    A terminal gets a display that stays in place; anything else gets a plain line at most every `every` seconds.
    `clock` counts seconds; `screen` is where to write (standard output).
    """

    def __init__(
        self,
        every: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        screen: rich.console.Console | None = None,
    ) -> None:
        self._every = every
        self._clock = clock
        self._screen = screen
        self._live: Live | None = None
        self._progress = Progress("", "", 0)
        self._start_time = self._last_line = 0.0

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        """Puts the display up, or says what begins."""
        self._screen = screen = self._screen or rich.console.Console()
        self._start_time = self._last_line = self._clock()
        progress = Progress(info.name, info.metric, info.trials)
        for trial in finished:
            progress = progress.count_trial(trial)
        self._progress = replace(progress, finished_earlier=progress.finished)
        if screen.is_terminal and not screen.is_dumb_terminal:
            self._live = Live(get_renderable=self._draw, console=screen, refresh_per_second=4)
            self._live.start()
            return
        earlier = f", {progress.finished} of them finished earlier" if progress.finished else ""
        self._print(f"{info.name}: {info.trials} candidates{earlier}")

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        """Counts a finished trial."""
        self._progress = replace(self._progress.count_trial(trial), seconds=dict(seconds))
        if self._live is None and self._clock() - self._last_line >= self._every:
            self._print(self._progress.write_line(self._measure_elapsed()))

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        """Shows the searcher's latest figures."""
        self._progress = replace(self._progress, learned=dict(summary))

    def finish(self, end: SearchEnd | None) -> None:
        """Leaves the final figures standing."""
        if self._progress.end:
            return
        self._progress = replace(self._progress, end="interrupted" if end is None else "finished")
        if end is not None:  # the end of a search takes its time too
            self._progress = replace(self._progress, seconds=dict(end.seconds or self._progress.seconds))
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._screen is not None:
            self._print(self._progress.write_line(self._measure_elapsed()))
            ledger = ", ".join(f"{name} {value:.1f}" for name, value in self._progress.seconds.items())
            self._print(f"seconds: {ledger}" if ledger else "")

    def _measure_elapsed(self) -> float:
        return self._clock() - self._start_time

    def _draw(self) -> rich.console.RenderableType:
        return self._progress.draw(self._measure_elapsed())

    def _print(self, line: str) -> None:
        self._last_line = self._clock()
        if line and self._screen is not None:
            self._screen.print(Text(line), soft_wrap=True)


def _draw_ledger(seconds: Mapping[str, float]) -> Table:
    """Where the time went: the names above their seconds."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in seconds:
        table.add_column(justify="right")
    table.add_row(*(Text(name, "dim") for name in seconds))
    table.add_row(*(Text(f"{value:.1f}") for value in seconds.values()))
    return table


def _clean_text(text: str) -> str:
    """The text on one line and without control characters, which a terminal would obey."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split()).rstrip(".")


def _format_pace(pace: float) -> str:
    return f"{pace:,.0f}" if pace >= 100 else f"{pace:.1f}"


def _format_duration(seconds: float) -> str:
    """Seconds as people say them: 45 s, 12 min 04 s, 3 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
