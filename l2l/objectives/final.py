"""The final run: trains the winner again, scores it on the test split and exports it as a module."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
from flax import nnx

from l2l.abilities import NamesClasses
from l2l.engine.cohort import group_cohorts
from l2l.engine.evaluate import evaluate
from l2l.engine.fit import Fit
from l2l.errors import InputError, check_integer
from l2l.export.module import load, read_verified, save
from l2l.objectives.trained import Trained
from l2l.run.result import FinalScores, summarise_test
from l2l.store.builtin_spaces import is_built_in
from l2l.types import Key, Outcome, Trial

FIRST_SEED = 1 << 16
"""Folded into a trial's key for the first further seed; the trial's own streams fold in smaller numbers."""


@dataclass
class Final:
    """Trains the winner again under its own key and under `seeds` others, and writes `directory`.

    The run under its own key repeats the trial bit for bit, in a program of the same shape, so the weights of trials
    are never stored. Nothing else opens the test split.

    Raises: InputError if `seeds` is negative, or the objective does not train.
    """

    objective: Trained
    directory: Path
    seeds: int = 3
    _numbered: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Trained):
            raise InputError(
                "final=retrained trains the winner again, which this objective does not do; give final=null."
            )
        check_integer("final.seeds", self.seeds, 0)

    def check(self) -> None:
        """The objective has been checked before."""

    def is_done(self, seeds: int) -> bool:
        """Whether the winner's export is intact, and it is trained under `seeds` further seeds."""
        return seeds == self.seeds and self.is_intact(self.directory)

    def is_intact(self, folder: Path) -> bool:
        """Whether the export in `folder` is complete and unchanged."""
        try:
            read_verified(folder)
        except InputError:
            return False
        return True

    def for_front(self, folder: Path) -> Final:
        """The final run of members: each is exported to a folder of its number in `folder`, without further seeds."""
        final = replace(self, directory=folder, seeds=0)
        final._numbered = True
        return final

    def __call__(self, trials: Sequence[Trial]) -> Iterator[Trial]:
        """Each trial with the scores of its final run; `directory` then holds the module of the last one."""
        for trial in trials:
            yield replace(trial, outcome=self._finish(trial))

    def _finish(self, trial: Trial) -> Outcome:
        key = self.objective.key(trial.number)
        keys = [key, *(jax.random.fold_in(key, FIRST_SEED + seed) for seed in range(self.seeds))]
        fits, modules, seconds = self._train(trial, keys)
        started = time.perf_counter()
        task, metric = self.objective.task, self.objective.task.metric
        tests = [evaluate(module, task, "test")[metric] for module in modules]
        validation = self.objective.make_outcome(fits[0], {}).metrics[metric]
        scores = FinalScores(validation, tests[0], test_seeds=tuple(tests[1:]))
        spec = self.objective.population.spec
        space = self.objective.space
        directory = self.directory / f"{trial.number:04d}" if self._numbered else self.directory
        save(directory, space, trial.candidate.values, spec, modules[0], self._write_card(trial, scores, directory))
        loaded = evaluate(load(directory, space=space), task, "validation")[metric]
        metrics = scores._replace(loaded=loaded).to_metrics()
        return Outcome(metrics=metrics, seconds={**seconds, "evaluate": time.perf_counter() - started})

    def _train(self, trial: Trial, keys: Sequence[Key]) -> tuple[list[Fit], list[nnx.Module], dict[str, float]]:
        """One fit and its module for each key, in programs of the shape that the trial ran in."""
        (cohort,) = group_cohorts([trial], self.objective.max_lanes)
        fits: list[Fit] = []
        seconds: dict[str, float] = {}
        for start in range(0, len(keys), cohort.lanes):
            members = [(trial.candidate, key) for key in keys[start : start + cohort.lanes]]
            for part, ledger in self.objective.fit(members, cohort.lanes):
                fits += part
                seconds = {name: seconds.get(name, 0.0) + value for name, value in ledger.items()}
        population = self.objective.population
        return fits, [population.restore_module(trial.candidate, fit) for fit in fits], seconds

    def _write_card(self, trial: Trial, scores: FinalScores, directory: Path) -> str:
        task, spec = self.objective.task, self.objective.population.spec
        test = summarise_test(task.metric, trial, scores)
        further = f"{test.mean:.4f} ± {test.std:.4f}" if test.seeds else "not measured"
        values = "\n".join(f"| {name} | {value} |" for name, value in trial.candidate.values.items())
        argument = "" if is_built_in(self.objective.space) else ", space=my_space.space()"
        inputs, logits = (", ".join(map(str, shape)) for shape in (spec.inputs, (*spec.targets, spec.outputs)))
        classes = task.classes if isinstance(task, NamesClasses) else ()
        names = ", ".join(map(repr, classes))
        class_names = f"The classes, in the order of their logits: {names}.\n\n" if classes else ""
        preparation = "The vocabulary of" if spec.tokens else "The normalisation learnt on"
        return f"""# {self.objective.space.name} for {task.name}

Found by l2l as trial {trial.number} of a search with seed {self.objective.seed}.

| {task.metric} | |
|---|---|
| validation, this model | {scores.validation:.4f} |
| test, this model | {scores.test:.4f} |
| test, retrained under {test.seeds} other seeds | {further} |

## Load it

```python
import l2l
model = l2l.load("{directory.name}"{argument})  # a flax.nnx.Module in evaluation mode
logits = model(x)  # x: raw inputs [B, {inputs}]; logits [B, {logits}]
```

{class_names}{preparation} the training split is inside the module. `SHA256SUMS` is checked at each load, and no
file here is ever executed. `l2l.load(path, weights=False, rngs=nnx.Rngs(0))` gives the same architecture untrained.

## The candidate

It was trained on {spec.examples} examples for {spec.epochs} epochs.

| choice | value |
|---|---|
{values}
"""
