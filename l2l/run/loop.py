"""The search: ask, run, reward, tell. No algorithm is in here, and no concrete part is named."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import jax

from l2l.abilities import PlansPrograms, get_title
from l2l.run.early_stopping import EarlyStopping, require_staged
from l2l.run.finish import Ending, Ranking
from l2l.run.interrupts import SearchInterrupted, interruptible
from l2l.run.result import Result, count_trials
from l2l.run.run_folder import begin_run_folder, choose_run_folder, write_config
from l2l.run.session import Session
from l2l.run.setup import SearchSetup, prepare_search, with_rungs
from l2l.trackers.background import BackgroundTracker
from l2l.types import SearchEnd, SearchInfo, Status


def run_search(setup: SearchSetup) -> Result:
    """Runs the search of `setup`, or continues the one in its run folder; what `l2l.search` does.

    Raises: InputError for bad input, before anything is written. SearchError if no trial succeeds.
    """
    started = time.perf_counter()
    objective, reward, settings = prepare_search(setup)
    space, task = setup.space, setup.task
    if setup.final is not None:
        setup.final(objective=objective, directory=Path())  # checks its arguments before there is a folder
    directory = choose_run_folder(setup.out, f"{space.name}-{task.name}-{get_title(setup.searcher)}")
    objective = with_rungs(objective, setup.rungs, directory)
    final = setup.final(objective=objective, directory=directory.resolve() / "best") if setup.final else None
    early_stopping = EarlyStopping(setup.rungs, require_staged(objective)) if setup.rungs is not None else None
    ending = Ending(directory.resolve(), task, setup.seed, final)
    begin = functools.partial(begin_run_folder, directory, setup.config)
    length, name = reward.length, directory.name
    with setup.store.attach(directory, space, settings, objectives=length, name=name, begin=begin) as log:
        if isinstance(objective, PlansPrograms):
            objective.plan(log.recall("trials", setup.trials))
        trials = max(setup.trials, len(log.trials()))
        info = SearchInfo(name, setup.group or name, directory.resolve(), settings, space, trials, task.metric)
        trackers = [BackgroundTracker(tracker) for tracker in setup.tracker.values()]
        key = jax.random.key(setup.seed)
        session = Session(
            space, setup.searcher, objective, reward, setup.executor, trackers, log, key, started, early_stopping
        )
        end: SearchEnd | None = None
        try:
            if setup.config is not None and (
                setup.trials > log.count() or ending.read_record(count_trials(log.trials())) is None
            ):
                write_config(directory, setup.config)
            setup.executor.start(directory)
            for tracker in trackers:
                tracker.start(info, [trial for trial in log.trials() if trial.status is not Status.RUNNING])
            with interruptible():
                run_batches(session, setup.trials, setup.batch)
                ranking = Ranking.of_trials(log.trials(), length)
                record = ending.finish(session, ranking)
                end = record.describe_end()
        except KeyboardInterrupt as interrupt:
            raise SearchInterrupted(directory) from interrupt
        finally:
            setup.executor.close()
            for tracker in trackers:
                tracker.finish(end)
        return Result(directory, ranking.require_winner(), ranking.trials, record)


def run_batches(session: Session, trials: int, batch: int) -> None:
    """Runs batches until there are enough trials, from wherever the store says that the search stands."""
    state, log = session.replay(), session.log
    while log.count() < max(trials, len(log.trials())):
        session.run_batch(session.open_batch(state, min(batch, trials - log.count())))
        state = session.tell(state, log.batches()[-1])
    if session.early_stopping is not None:
        session.early_stopping.objective.retain(())
