"""The training recipe as choices of the space: optimizer, schedule, batch size and regularisation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.flatten_util import ravel_pytree

from l2l.errors import InputError, suggest_names
from l2l.nn.padded import Picked
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


def options(what: str, given: Sequence[Any]) -> tuple[Any, ...]:
    """`given` as a tuple. Raises: InputError if it is no list, empty, or one stands twice."""
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise InputError(f"{what}: expected at least one value in a list, got {given!r}.")
    if twice := [each for at, each in enumerate(given) if each in given[:at]]:
        raise InputError(f"{what} must differ, {twice[0]!r} stands twice.")
    return tuple(given)


def known(what: str, given: Sequence[str], names: Iterable[str]) -> tuple[str, ...]:
    """`given` as a tuple. Raises: InputError if it is empty, one stands twice or is not among `names`."""
    names = tuple(names)
    for each in (given := options(what, given)):
        if each not in names:
            raise InputError(f"{what} {each!r} is unknown: {suggest_names(str(each), names)}")
    return given


def positive(what: str, given: Sequence[int]) -> tuple[int, ...]:
    """`given` as a tuple. Raises: InputError if it is empty, one stands twice or is no whole number above zero."""
    return _whole(what, options(what, given))


def _whole(what: str, given: Sequence[int]) -> tuple[int, ...]:
    for each in given:
        if type(each) is not int or each < 1:
            raise InputError(f"{what} must be whole numbers of at least 1, got {each!r}.")
    return tuple(given)


def span(what: str, given: Sequence[int]) -> tuple[int, int]:
    """`given` as (low, high). Raises: InputError if it is not two whole numbers with 1 <= low <= high."""
    if not isinstance(given, Sequence):
        raise InputError(f"{what} must be [low, high] with 1 <= low <= high, got {given!r}.")
    ends = _whole(what, given)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise InputError(f"{what} must be [low, high] with 1 <= low <= high, got {list(ends)}.")
    return ends[0], ends[1]


def needs_one_target(spec: Spec) -> None:
    """Refuses a task whose every token has a target. Raises: InputError."""
    if spec.targets:
        raise InputError(
            "a perceptron or convolutional network has one answer for an example, and the task asks for one for each "
            "token: take space=transformer, attention or moe."
        )


def needs_images(spec: Spec) -> None:
    """Refuses a task whose inputs are no images. Raises: InputError."""
    needs_one_target(spec)
    if len(spec.inputs) != 3:
        raise InputError(
            f"a convolutional network needs images [H, W, C], and the task has inputs {list(spec.inputs)}: take "
            "space=mlp, transformer, attention or moe."
        )


def choices(
    optimizers: Sequence[str] = ("adamw", "sgd", "lion"),
    batch_sizes: Sequence[int] = (32, 64, 128),
    microbatch: int | None = None,
    learning_rates: Mapping[str, tuple[float, float]] = LEARNING_RATES,
) -> dict[str, Choice]:
    """The choices that every built-in space ends with; peak `learning_rates` from the lowest to the highest.

    Raises: InputError if one is empty or unknown, or a batch size is no multiple of the microbatch.
    """
    optimizers = known("optimizer", optimizers, learning_rates)
    rates: dict[str, Choice] = {}
    for name in optimizers:
        low, high = learning_rates[name]
        rates[f"{name}_learning_rate"] = Real(low=low, high=high, log=True, when={"optimizer": name})
    for each in (batch_sizes := positive("batch_sizes", batch_sizes)):
        if microbatch and each % microbatch:
            raise InputError(f"batch_sizes must be multiples of {microbatch} in this space, got {each}.")
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


def learner(
    model: Callable[[nnx.Rngs], nnx.Module], values: Mapping[str, Any], spec: Spec, microbatch: int | None = None
) -> Learner:
    """The model with the recipe that `values` name; batches are averaged over gradients of `microbatch` examples."""
    size = values["batch_size"]
    size = size.number if isinstance(size, Picked) else size
    return Learner(
        model=model,
        optimizer=_optimizer(values, spec.steps(size)),
        batch_size=size,
        label_smoothing=values["label_smoothing"],
        microbatch=microbatch,
    )


def _optimizer(values: Mapping[str, Any], steps: Any) -> optax.GradientTransformation:
    """Decoupled weight decay on matrices, whatever the rule, with the scheduled learning rate."""
    name = values["optimizer"]
    if isinstance(name, Picked):
        peak = jax.lax.select_n(name.index, *(values[f"{each}_learning_rate"] for each in name.options))
        rule = _picked_rule(name)
    else:
        peak, rule = values[f"{name}_learning_rate"], RULES[name]()
    decay = optax.add_decayed_weights(values["weight_decay"], mask=_matrices)
    return optax.chain(rule, decay, optax.scale_by_learning_rate(_schedule(values, peak, steps)))


def _picked_rule(name: Picked) -> optax.GradientTransformation:
    """The rule that data choose, in the state of the largest one: two moments and a count.

    All weights are one vector here: every rule is then compiled once, not once for each array.
    """

    def init(params: Any) -> Any:
        moment = ravel_pytree(jax.tree.map(jnp.zeros_like, params))[0]
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), moment, moment)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        def by(option: str) -> Callable[..., Any]:
            def run(updates: Any, state: Any) -> Any:
                if option == "adamw":
                    return RULES[option]().update(updates, state)
                fields: dict[str, Any] = (
                    {"trace": state.mu} if option == "sgd" else {"count": state.count, "mu": state.mu}
                )
                own = {"sgd": optax.TraceState, "lion": optax.ScaleByLionState}[option](**fields)
                updates, own = RULES[option]().update(updates, own)
                return updates, state._replace(mu=own.trace if option == "sgd" else own.mu)

            return run

        flat, unravel = ravel_pytree(updates)
        flat, state = jax.lax.switch(name.index, [by(option) for option in name.options], flat, state)
        return unravel(flat), state

    return optax.GradientTransformation(init, update)


def _matrices(params: Any) -> Any:
    """Which arrays are matrices, in each layer by itself."""

    def matrix(path: Any, leaf: Any) -> bool:
        return leaf.ndim - any(getattr(key, "key", None) == STACKED for key in path) > 1

    return jax.tree_util.tree_map_with_path(matrix, params)


def _schedule(values: Mapping[str, Any], peak: Any, steps: Any) -> Callable[[Any], Any]:
    """Linear warm-up over the share `warmup` of the steps, then the named decay towards zero."""
    name = values["schedule"]
    warm = values["warmup"] * steps

    def rate(count: Any) -> Any:
        done = jnp.asarray(count, jnp.float32)
        rising = jnp.minimum((done + 1.0) / jnp.maximum(warm, 1.0), 1.0)
        share = jnp.clip((done - warm) / jnp.maximum(steps - warm, 1.0), 0.0, 1.0)
        if isinstance(name, Picked):
            left = jax.lax.select_n(name.index, *(SCHEDULES[each](share) for each in name.options))
        else:
            left = SCHEDULES[name](share)
        return peak * rising * left

    return rate
