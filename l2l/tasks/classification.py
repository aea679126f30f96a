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

    An example may have one target or several, `[B]` or `[B, *targets]`; its loss and scores are means over them.
    """

    maximise: bool = True

    @property
    def vocabulary(self) -> Sequence[int]:
        """Empty: inputs are measurements, not tokens."""
        return ()

    def loss(self, logits: Array, targets: Array, label_smoothing: Any = 0.0) -> Array:
        """Softmax cross-entropy in float32: logits `[B, *targets, C]`, targets `[B, *targets]`, result `[B]` in nats.

        `label_smoothing` (0 to 1, may be traced) is the share of the target spread evenly over all C classes.

        Source: Szegedy et al., Rethinking the Inception Architecture, arXiv:1512.00567, section 7.
        """
        logs = jax.nn.log_softmax(logits.astype(jnp.float32))
        share = jnp.asarray(label_smoothing, jnp.float32)
        chosen = jnp.take_along_axis(logs, targets[..., None].astype(jnp.int32), -1)[..., 0]
        return _average_targets(-(1 - share) * chosen - share * logs.mean(-1))

    def score(self, logits: Array, targets: Array) -> Mapping[str, Array]:
        """Accuracy (0 to 1) and unsmoothed cross-entropy in nats, each `[B]`; arguments as those of `loss`."""
        right = jnp.argmax(logits, -1) == targets
        return {"accuracy": _average_targets(right.astype(jnp.float32)), "loss": self.loss(logits, targets)}


def _average_targets(values: Array) -> Array:
    """The mean over an example's targets: `[B, *targets]` to `[B]`."""
    return values if values.ndim == 1 else values.reshape(len(values), -1).mean(-1)


def pick_split(splits: Mapping[str, Any], split: str, name: str) -> Any:
    """Picks the split of that name. Raises: InputError if the name is unknown."""
    if split not in splits:
        raise InputError(f"{name}: there is no split {split!r}: {suggest_names(split, splits)}")
    return splits[split]


def hold_out(x: np.ndarray, y: np.ndarray, validation: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Splits N examples into `validation` of them and those to train on, by a permutation that never changes."""
    # RandomState, whose stream NumPy has promised never to change; a Generator's may.
    order = np.random.RandomState(0).permutation(len(y))
    indices = {"validation": np.sort(order[:validation]), "train": np.sort(order[validation:])}
    return {split: (make_read_only(x[index]), make_read_only(y[index])) for split, index in indices.items()}


def make_read_only(array: np.ndarray) -> np.ndarray:
    """Makes an array read-only and returns it: all who load the split share it."""
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
    """Refuses invalid shares of the examples, and shares that leave nothing to train on. Raises: InputError."""
    shares = [share for share in (validation, test) if isinstance(share, int | float) and 0 < share < 1]
    if len(shares) < 2 or sum(shares) >= 1:
        raise InputError(
            f"{name}: validation and test must be shares above 0 whose sum is below 1, got {validation!r} and {test!r}."
        )
