"""The end of a search: its winner and front are chosen, exported and written to `trials.csv` and `result.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from l2l.abilities import ChecksExport, ExportsFront, get_title
from l2l.errors import SearchError
from l2l.files import write_atomically
from l2l.reward import find_best
from l2l.run import front
from l2l.run.result import (
    BestTrial,
    FinalScores,
    FrontRecord,
    SearchRecord,
    TestScores,
    TrialCounts,
    count_trials,
    describe_environment,
    find_common_reason,
    summarise_test,
)
from l2l.run.run_folder import RESULT, TRIALS, delete_other_folders
from l2l.run.session import Session
from l2l.run.trials_csv import write_csv
from l2l.types import Objective, Outcome, Status, Task, Trial


@dataclass(frozen=True)
class Ranking:
    """The trials of a search that has run, and which of them are the best."""

    trials: Sequence[Trial]
    counts: TrialCounts
    winner: Trial | None
    """The best trial, of several objectives by the first; None if none was completed."""
    members: Sequence[Trial]
    """The front, the winner first; empty for a single objective."""

    @classmethod
    def of_trials(cls, trials: Sequence[Trial], objectives: int) -> Ranking:
        """Ranks trials by rewards of so many objectives."""
        members = front.select_members(trials) if objectives > 1 else []
        return cls(trials, count_trials(trials), members[0] if members else find_best(trials), members)

    def require_winner(self) -> Trial:
        """The winner. Raises: SearchError that says why there is none."""
        if self.winner is not None:
            return self.winner
        failed = [trial for trial in self.trials if trial.status is Status.FAILED]
        why = find_common_reason((trial.outcome or Outcome()).error for trial in failed or self.trials)
        if len(failed) == len(self.trials) == 1:
            raise SearchError(f"the only trial failed: {why}")
        if len(failed) == len(self.trials):
            raise SearchError(f"all {len(failed)} trials failed, most often because: {why}")
        raise SearchError(
            f"none of {len(self.trials)} trials was completed, {len(failed)} failed and the others were pruned, "
            f"most often because: {why}"
        )


@dataclass(frozen=True)
class Ending:
    """What turns a search that has run into its results."""

    directory: Path
    task: Task
    seed: int
    final: Objective | None
    """Exports trials and scores them on the test split; None: nothing is exported."""

    def read_record(self, counts: TrialCounts) -> SearchRecord | None:
        """The record of an earlier call that ended with equally many trials; None if none, or its files are damaged."""
        try:
            record = SearchRecord.from_json(json.loads((self.directory / RESULT).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if record.trials != counts or not (self.directory / TRIALS).is_file():
            return None
        return record if self._is_exported(record) else None

    def _is_exported(self, record: SearchRecord) -> bool:
        checker = self.final if isinstance(self.final, ChecksExport) else None
        if self.final is not None and record.test is None:
            return False
        if checker is not None and record.test is not None and not checker.is_done(record.test.seeds):
            return False
        members = record.front.members if record.front is not None else []
        if members and not (self.directory / front.FIGURE).is_file():
            return False
        folders = [self.directory / member.folder for member in members if member.folder is not None]
        return all(map(checker.is_intact if checker is not None else Path.is_dir, folders))

    def finish(self, session: Session, ranking: Ranking) -> SearchRecord:
        """Exports the winner and writes `trials.csv` and `result.json`, the latter last; an intact end is left alone.

        Raises: SearchError if an export fails.
        """
        if (record := self.read_record(ranking.counts)) is not None:
            return record
        write_atomically(self.directory / TRIALS, write_csv(ranking.trials, session.space))
        test = None
        if ranking.winner is not None and self.final is not None:
            (test,) = self._export(session, self.final, [ranking.winner])
        record = SearchRecord(
            space=session.space.name,
            task=self.task.name,
            searcher=get_title(session.searcher),
            seed=self.seed,
            trials=ranking.counts,
            best=None if ranking.winner is None else BestTrial.from_trial(ranking.winner),
            test=test,
            front=self._finish_front(session, ranking) if ranking.members else None,
            seconds=session.read_ledger(),
            environment=describe_environment(session.executor),
        )
        text = json.dumps(record.to_json(), indent=2, allow_nan=False)
        write_atomically(self.directory / RESULT, text + "\n")
        return record

    def _finish_front(self, session: Session, ranking: Ranking) -> FrontRecord:
        """Draws the front and exports its members if the final run can. Raises: SearchError if an export fails."""
        members = ranking.members
        write_atomically(self.directory / front.FIGURE, front.draw_front(ranking.trials, members, session.reward))
        folder = (self.directory / front.FOLDER).resolve()
        delete_other_folders(folder, {Path(front.member_folder(trial)).name for trial in members})
        tests: list[TestScores] = []
        if isinstance(self.final, ExportsFront):
            tests = self._export(session, self.final.for_front(folder), members)
        return front.describe_front(ranking.trials, members, tests)

    def _export(self, session: Session, final: Objective, trials: Sequence[Trial]) -> list[TestScores]:
        """The test scores of trials after their final run. Raises: SearchError if one failed."""
        ended = {trial.number: trial for trial in session.executor.run(final, trials)}
        return [self._score(session, trial, ended[trial.number].outcome) for trial in trials]

    def _score(self, session: Session, trial: Trial, outcome: Outcome | None) -> TestScores:
        session.charge(outcome)
        if outcome is None or outcome.error is not None:
            reason = "its final run has no outcome" if outcome is None else outcome.error
            raise SearchError(f"trial {trial.number} could not be exported: {reason}; the trials are safe.")
        return summarise_test(self.task.metric, trial, FinalScores.from_metrics(outcome.metrics))
