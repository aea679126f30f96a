"""The training recipe as choices of the space: optimizer, schedule, batch size and regularisation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from l2l.errors import InputError, suggest_names
from l2l.nn.optimizer import make_block_optimizer
from l2l.nn.option import Option
from l2l.nn.stack import STACKED
from l2l.space import Categorical, Choice, Real
from l2l.types import Learner, Spec

LEARNING_RATES = {"adamw": (3e-4, 1e-2), "sgd": (1e-2, 3e-1), "lion": (3e-5, 1e-3)}
"""Peak learning rates worth searching, by optimizer: they differ by two orders of magnitude."""
RULES: dict[str, Callable[[], Any]] = {
    # Adam's epsilon lies above the rounding noise of a gradient that is zero in theory, so that noise stays noise.
    "adamw": lambda: optax.scale_by_adam(eps=1e-5),
    "lion": optax.scale_by_lion,
    "sgd": lambda: optax.trace(decay=0.9, nesterov=True),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "constant": jnp.ones_like,
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1.0 + jnp.cos(jnp.pi * share)),
}
"""What is left of the learning rate after a share of the steps that follow the warm-up."""


def read_options(what: str, options: Sequence[Any]) -> tuple[Any, ...]:
    """The options as a tuple. Raises: InputError if they are no list, empty, or one stands twice."""
    if not isinstance(options, Sequence) or isinstance(options, str) or not options:
        raise InputError(f"{what}: expected at least one value in a list, got {options!r}.")
    if twice := [option for index, option in enumerate(options) if option in options[:index]]:
        raise InputError(f"{what} must differ, {twice[0]!r} stands twice.")
    return tuple(options)


def read_names(what: str, options: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """The options as a tuple. Raises: InputError if there is none, one stands twice or is not among `names`."""
    names = tuple(names)
    for option in (options := read_options(what, options)):
        if option not in names:
            raise InputError(f"{what} {option!r} is unknown: {suggest_names(str(option), names)}")
    return options


def read_sizes(what: str, options: Sequence[int]) -> tuple[int, ...]:
    """The options as a tuple. Raises: InputError if there is none, one stands twice or is no positive integer."""
    return _check_integers(what, read_options(what, options))


def _check_integers(what: str, numbers: Sequence[int]) -> tuple[int, ...]:
    for number in numbers:
        if type(number) is not int or number < 1:
            raise InputError(f"{what} must be integers of at least 1, got {number!r}.")
    return tuple(numbers)


def read_range(what: str, ends: Sequence[int]) -> tuple[int, int]:
    """The ends as (low, high). Raises: InputError if they are not two integers with 1 <= low <= high."""
    if not isinstance(ends, Sequence):
        raise InputError(f"{what} must be [low, high] with 1 <= low <= high, got {ends!r}.")
    ends = _check_integers(what, ends)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InputError(f"{what} must be [low, high] with 1 <= low <= high, got {list(ends)}.")
    return ends[0], ends[1]


def check_one_target(spec: Spec) -> None:
    """Raises: InputError if each token of the task has a target."""
    if spec.targets:
        raise InputError(
            "a perceptron or convolutional network has one answer for an example, and the task asks for one for each "
            "token: take space=transformer, attention or moe."
        )


def check_images(spec: Spec) -> None:
    """Raises: InputError if the inputs of the task are no images."""
    check_one_target(spec)
    if len(spec.inputs) != 3:
        raise InputError(
            f"a convolutional network needs images [H, W, C], and the task has inputs {list(spec.inputs)}: take "
            "space=mlp, transformer, attention or moe."
        )


def make_choices(
    optimizers: Sequence[str] = ("adamw", "sgd", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
    microbatch: int | None = None,
    learning_rates: Mapping[str, tuple[float, float]] = LEARNING_RATES,
) -> dict[str, Choice]:
    """The choices at the end of every built-in space; `learning_rates` are each optimizer's lowest and highest peak.

    Raises: InputError if one is empty or unknown, or a batch size is no multiple of the microbatch.
    """
    optimizers = read_names("optimizer", optimizers, learning_rates)
    rates: dict[str, Choice] = {}
    for name in optimizers:
        low, high = learning_rates[name]
        rates[f"{name}_learning_rate"] = Real(low=low, high=high, log=True, when={"optimizer": name})
    for size in (batch_sizes := read_sizes("batch_sizes", batch_sizes)):
        if microbatch and size % microbatch:
            raise InputError(f"batch_sizes must be multiples of {microbatch} in this space, got {size}.")
    return {
        "optimizer": Categorical(options=optimizers, traced=True),
        **rates,
        "weight_decay": Real(low=1e-5, high=1e-1, log=True),
        "schedule": Categorical(options=tuple(SCHEDULES), traced=True),
        "warmup": Real(low=0.0, high=0.2),
        "batch_size": Categorical(options=batch_sizes, traced=microbatch is not None),
        "dropout": Real(low=0.0, high=0.5),
        "label_smoothing": Real(low=0.0, high=0.2),
    }


def make_learner(
    model: Callable[[nnx.Rngs], nnx.Module], values: Mapping[str, Any], spec: Spec, microbatch: int | None = None
) -> Learner:
    """The model with the recipe of these values; a batch averages over gradients of `microbatch` examples."""
    batch_size = Option.of(values["batch_size"]).value
    return Learner(
        model=model,
        optimizer=_make_optimizer(values, spec.steps(batch_size)),
        batch_size=batch_size,
        label_smoothing=values["label_smoothing"],
        microbatch=microbatch,
    )


def _make_optimizer(values: Mapping[str, Any], steps: Any) -> Any:
    """Decoupled weight decay on matrices, whatever the rule, with the scheduled learning rate."""
    name = Option.of(values["optimizer"])
    peak = name.select(lambda option: values[f"{option}_learning_rate"])
    rate, decay = _make_schedule(values, peak, steps), values["weight_decay"]
    if name.is_plain:
        weight_decay = optax.add_decayed_weights(decay, mask=_select_matrices)
        return optax.chain(RULES[name.value](), weight_decay, optax.scale_by_learning_rate(rate))
    rules = [functools.partial(_apply_rule, option) for option in name.options]
    return make_block_optimizer(rules, name.index, rate, decay, _select_matrices)


def _apply_rule(option: str, gradient: Any, mean: Any, square: Any, count: Any) -> tuple[Any, Any, Any]:
    """A rule with its moments in two arrays, of which some rules need one."""
    if option == "adamw":
        state = optax.ScaleByAdamState(count, mean, square)
        updates, state = RULES[option]().update(gradient, state)
        return updates, state.mu, state.nu
    if option == "lion":
        updates, state = RULES[option]().update(gradient, optax.ScaleByLionState(count, mean))
        return updates, state.mu, square
    updates, state = RULES[option]().update(gradient, optax.TraceState(mean))
    return updates, state.trace, square


def _select_matrices(params: Any) -> Any:
    """Which arrays are matrices, in each layer by itself."""

    def is_matrix(path: Any, leaf: Any) -> bool:
        return leaf.ndim - any(getattr(key, "key", None) == STACKED for key in path) > 1

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def _make_schedule(values: Mapping[str, Any], peak: Any, steps: Any) -> Callable[[Any], Any]:
    """Linear warm-up over the share `warmup` of the steps, then the named decay towards zero."""
    name = Option.of(values["schedule"])
    warm = values["warmup"] * steps

    def rate(count: Any) -> Any:
        step = jnp.asarray(count, jnp.float32)
        rising = jnp.minimum((step + 1.0) / jnp.maximum(warm, 1.0), 1.0)
        share = jnp.clip((step - warm) / jnp.maximum(steps - warm, 1.0), 0.0, 1.0)
        return peak * rising * name.select(lambda option: SCHEDULES[option](share))

    return rate
