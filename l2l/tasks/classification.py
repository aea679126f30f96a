"""Classification: the loss, the score and the check of labels that every task with classes shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from l2l.errors import InputError, suggest_names
from l2l.types import Array


class Classification:
    """The part of a `Task` that follows from its targets being classes 0 to C-1.

    An example may have one target or several, `[B]` or `[B, *targets]`; what is said of it is then their mean.
    """

    maximise: bool = True

    @property
    def symbols(self) -> Sequence[int]:
        """None: inputs are measurements."""
        return ()

    def loss(self, logits: Array, targets: Array, label_smoothing: Any = 0.0) -> Array:
        """Softmax cross-entropy in float32: logits `[B, *targets, C]`, targets `[B, *targets]`, result `[B]` in nats.

        `label_smoothing` (0 to 1, may be traced) is the share of the target spread evenly over all C classes.

        Source: Szegedy et al., Rethinking the Inception Architecture, arXiv:1512.00567, section 7.
        """
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        share = jnp.asarray(label_smoothing, jnp.float32)
        chosen = jnp.take_along_axis(logs, targets[..., None].astype(jnp.int32), -1)[..., 0]
        return _by_example(-(1 - share) * chosen - share * logs.mean(-1))

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Accuracy (0 to 1) and unsmoothed cross-entropy in nats, each `[B]`; arguments as those of `loss`."""
        right = jnp.argmax(logits, -1) == targets
        return {"accuracy": _by_example(right.astype(jnp.float32)), "loss": self.loss(logits, targets)}


def _by_example(each: Array) -> Array:
    """The mean over an example's targets: `[B, *targets]` to `[B]`."""
    return each if each.ndim == 1 else each.reshape(len(each), -1).mean(-1)


def pick(splits: Mapping[str, Any], split: str, name: str) -> Any:
    """The split of that name. Raises: InputError if there is none."""
    if split not in splits:
        raise InputError(f"{name}: there is no split {split!r}: {suggest_names(split, splits)}")
    return splits[split]


def frozen(array: np.ndarray) -> np.ndarray:
    """The array, which nobody may write to: everybody who loads the split shares it."""
    array.flags.writeable = False
    return array


def check_labels(labels: np.ndarray, classes: int, source: object) -> None:
    """Refuses labels `[N]` that are not integers from 0 to `classes` - 1. Raises: InputError."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{source}: expected one integer per example as label, "
            f"got {labels.dtype} of shape {list(labels.shape)}; convert the classes to 0 to {classes - 1}."
        )
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= classes:
        raise InputError(
            f"{source}: expected labels from 0 to {classes - 1}, got {low if low < 0 else high}; "
            f"correct the file or the task's number of classes (outputs={classes})."
        )


def check_shares(name: str, validation: object, test: object) -> None:
    """Refuses shares of the examples that are none, or leave nothing to train on. Raises: InputError."""
    shares = [each for each in (validation, test) if isinstance(each, int | float) and 0 < each < 1]
    if len(shares) < 2 or sum(shares) >= 1:
        raise InputError(
            f"{name}: validation and test must be shares above 0 whose sum is below 1, got {validation!r} and {test!r}."
        )
