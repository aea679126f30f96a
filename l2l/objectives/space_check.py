"""Checks before a search that the candidates of a space can be trained, and names the metrics that they will have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import jax

from l2l.engine.bucket import list_padded_sizes, make_lane_data, make_program_values, make_shared_bucket
from l2l.engine.evaluate import metric_dtypes
from l2l.engine.fit import make_rngs
from l2l.errors import InputError
from l2l.nn.moe import collect_measures
from l2l.space import SearchSpace
from l2l.types import Learner, Spec, Task

NEEDS_PLAIN_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
"""What JAX raises where a model treats a traced value as a plain number."""


def check_space(space: SearchSpace[Learner], task: Task, spec: Spec) -> None:
    """Builds candidates that cover every option of the space. Raises: InputError if one cannot be trained."""
    for candidate in space.cover():
        try:
            learner = space.build(candidate.values, spec)
            size, microbatch = learner.batch_size, learner.microbatch
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"space {space.name!r} cannot build the candidate {dict(candidate.values)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        _check_batches(size, microbatch, space, task, spec)


def _check_batches(size: Any, microbatch: Any, space: SearchSpace[Learner], task: Task, spec: Spec) -> None:
    """Checks a learner's batch size and microbatch. Raises: InputError."""
    if microbatch is not None:
        size = int(size)
        if type(microbatch) is not int or microbatch < 1 or size % microbatch:
            raise InputError(
                f"space {space.name!r}: a batch_size of {size} is no multiple of the microbatch {microbatch!r}; "
                "both must be integers, and a batch consists of full microbatches."
            )
    if type(size) is not int:
        raise InputError(
            f"space {space.name!r}: batch_size must be an integer that is not traced, got {size!r}; take it from a "
            "Categorical or an Integer."
        )
    if not 1 <= size <= spec.examples:
        raise InputError(
            f"space {space.name!r}: a batch_size of {size} cannot be taken from the {spec.examples} examples of the "
            f"training split of {task.name!r}; leave it out of the space."
        )


def list_metrics(space: SearchSpace[Learner], task: Task, spec: Spec) -> Collection[str]:
    """The metrics that the task defines, and those that models of the space measure while they train."""
    y = task.load("validation")[1][:1]
    return {*metric_dtypes(task, y), *_list_measures(space, spec), "train_loss", "parameters"}


def _list_measures(space: SearchSpace[Learner], spec: Spec) -> set[str]:
    """What models of the space measure while they train."""
    largest = {pad: sizes[-1:] for pad, sizes in list_padded_sizes(space).items()}
    buckets = {
        shared.name: (shared, candidate)
        for candidate in space.cover()
        for shared in [make_shared_bucket(space, candidate, largest)]
    }
    names = set[str]()

    def measure(values: Mapping[str, Any]) -> dict[str, jax.Array]:
        return collect_measures(space.build(values, spec).model(make_rngs(jax.random.key(0))))

    for shared, candidate in buckets.values():
        traced_values = dict(make_lane_data(space, candidate, shared))
        with suppress(Exception):  # a crash here will be reported by the trial that crashes
            try:
                names |= jax.eval_shape(
                    lambda traced_values, shared=shared: measure(make_program_values(space, shared, traced_values)),
                    traced_values,
                ).keys()
            except NEEDS_PLAIN_VALUES:
                names |= jax.eval_shape(lambda candidate=candidate: measure(candidate.values)).keys()
    return names
