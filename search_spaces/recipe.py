"""The training recipe as choices of the space: optimizer, schedule, batch size and regularisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from l2l.errors import InputError, nearest
from l2l.space import Categorical, Choice, Real
from l2l.types import Learner, Spec

LEARNING_RATES = {"adamw": (3e-4, 1e-2), "sgd": (1e-2, 3e-1), "lion": (3e-5, 1e-3)}
"""Peak learning rates worth searching, by optimizer: they differ by two orders of magnitude."""


def known(what: str, given: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """`given` as a tuple. Raises: InputError if it is empty or one of them is not among `names`."""
    names = tuple(names)
    for each in (given := _some(what, given)):
        if each not in names:
            raise InputError(f"{what} {each!r} is unknown: {nearest(str(each), names)}")
    return given


def positive(what: str, given: Sequence[int]) -> tuple[int, ...]:
    """`given` as a tuple. Raises: InputError if it is empty or one of them is not a whole number above zero."""
    for each in (given := _some(what, given)):
        if type(each) is not int or each < 1:
            raise InputError(f"{what} must be whole numbers of at least 1, got {each!r}.")
    return given


def _some(what: str, given: Sequence[Any]) -> tuple[Any, ...]:
    if not given:
        raise InputError(f"{what}: expected at least one value, got an empty list.")
    return tuple(given)


def span(what: str, given: Sequence[int]) -> tuple[int, int]:
    """`given` as (low, high). Raises: InputError if it is not two whole numbers with 1 <= low <= high."""
    ends = positive(what, given)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InputError(f"{what} must be [low, high] with 1 <= low <= high, got {list(ends)}.")
    return ends[0], ends[1]


def choices(
    optimizers: Sequence[str] = ("adamw", "sgd", "lion"), batch_sizes: Sequence[int] = (32, 64, 128)
) -> dict[str, Choice]:
    """The choices that every built-in space ends with."""
    optimizers = known("optimizer", optimizers, LEARNING_RATES)
    rates: dict[str, Choice] = {}
    for name in optimizers:
        low, high = LEARNING_RATES[name]
        rates[f"{name}_learning_rate"] = Real(low=low, high=high, log=True, when={"optimizer": name})
    return {
        "optimizer": Categorical(options=optimizers),
        **rates,
        "weight_decay": Real(low=1e-5, high=1e-1, log=True),
        "schedule": Categorical(options=("constant", "linear", "cosine")),
        "warmup": Real(low=0.0, high=0.2),
        "batch_size": Categorical(options=positive("batch_sizes", batch_sizes)),
        "dropout": Real(low=0.0, high=0.5),
        "label_smoothing": Real(low=0.0, high=0.2),
    }


def learner(model: Callable[[nnx.Rngs], nnx.Module], values: Mapping[str, Any], spec: Spec) -> Learner:
    """The model with the recipe that `values` name."""
    return Learner(
        model=model,
        optimizer=_optimizer(values, spec.steps(values["batch_size"])),
        batch_size=values["batch_size"],
        label_smoothing=values["label_smoothing"],
    )


def _optimizer(values: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Decoupled weight decay on matrices, whatever the rule, with the scheduled learning rate."""
    name = values["optimizer"]
    # Adam's epsilon lies above the rounding noise of a gradient that is zero in theory, so that noise stays noise.
    rule = {
        "adamw": lambda: optax.scale_by_adam(eps=1e-5),
        "lion": optax.scale_by_lion,
        "sgd": lambda: optax.trace(decay=0.9, nesterov=True),
    }[name]()
    decay = optax.add_decayed_weights(values["weight_decay"], mask=_matrices)
    rate = _schedule(values, values[f"{name}_learning_rate"], steps)
    return optax.chain(rule, decay, optax.scale_by_learning_rate(rate))


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _schedule(values: Mapping[str, Any], peak: Any, steps: int) -> Callable[[Any], Any]:
    """Linear warm-up over the share `warmup` of the steps, then the named decay towards zero."""
    decay = {
        "constant": lambda share: jnp.ones_like(share),
        "linear": lambda share: 1.0 - share,
        "cosine": lambda share: 0.5 * (1.0 + jnp.cos(jnp.pi * share)),
    }[values["schedule"]]
    warm = values["warmup"] * steps

    def rate(count: Any) -> Any:
        done = jnp.asarray(count, jnp.float32)
        rising = jnp.minimum((done + 1.0) / jnp.maximum(warm, 1.0), 1.0)
        return peak * rising * decay(jnp.clip((done - warm) / jnp.maximum(steps - warm, 1.0), 0.0, 1.0))

    return rate
