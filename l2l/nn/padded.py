"""Sizes that are an upper bound and options chosen by data: how different models share one program.

A padded array holds a model's own values first and zeros behind them. Linear maps, convolutions, batch
normalisation, dropout that is drawn channel-major and activations with f(0) = 0 keep those zeros, and their
gradients, at zero without knowing it; what divides by a size must be told the true one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx


@dataclass(frozen=True)
class Padded:
    """A size: `size` is fixed in the program, and how much of it is `active` is data (`[]`, whole)."""

    size: int
    active: Any

    def __mul__(self, times: int | Padded) -> Padded:
        """That many times as long; the active part still stands first."""
        return Padded(self.size * size(times), self.active * active(times))

    __rmul__ = __mul__


@dataclass(frozen=True)
class Picked:
    """One of a few options, chosen by data: `index` is `[]`, whole."""

    options: tuple[Any, ...]
    index: Any

    @property
    def number(self) -> jax.Array:
        """The option itself, `[]`, where all options are numbers."""
        return jnp.asarray(self.options)[self.index]

    def named(self, option: Any) -> jax.Array:
        """Whether it is this option: `[]`, Boolean."""
        return self.index == self.options.index(option) if option in self.options else jnp.zeros((), bool)


class Bound(nnx.Variable[Any]):
    """Data of a `Padded` or a `Picked` inside a module: no weight, and no part of a found model."""


def bound(length: int | Padded) -> int | Bound:
    """What a module keeps of a length: the number, or how much is in use as data."""
    return Bound(jnp.asarray(length.active, jnp.int32)) if isinstance(length, Padded) else length


class Selector(nnx.Module):
    """A `Picked` inside a module."""

    def __init__(self, picked: Picked) -> None:
        self.options = picked.options
        self.index = Bound(jnp.asarray(picked.index, jnp.int32))

    def named(self, option: Any) -> jax.Array:
        """Whether it is this option: `[]`."""
        return Picked(self.options, self.index[...]).named(option)


def kept(given: Any) -> Any:
    """What a module keeps of a number: itself if it is plain or None, else data."""
    return given if given is None or isinstance(given, int | float) else Bound(jnp.asarray(given))


def number(held: int | float | Bound | Selector) -> Any:
    """What a module kept of a length, of a number or of one of a few: a plain number, or data `[]`."""
    if isinstance(held, Selector):
        return Picked(held.options, held.index[...]).number
    return held[...] if isinstance(held, Bound) else held


def named(option: Any, wanted: Any) -> Any:
    """Whether what a module kept of an option is this one: plain, or data `[]`."""
    return option.named(wanted) if isinstance(option, Selector) else option == wanted


def either(flag: Any, yes: Callable[[], jax.Array], no: Callable[[], jax.Array]) -> jax.Array:
    """One of two results, by a flag that is plain or `[]`; the other is not computed (but where lanes differ)."""
    if isinstance(flag, bool):
        return yes() if flag else no()
    return jax.lax.cond(flag, yes, no)


def size(length: int | Padded) -> int:
    """The size that an array must have."""
    return length.size if isinstance(length, Padded) else length


def active(length: int | Padded) -> Any:
    """How much of it is in use: a whole number, or `[]` that is data."""
    return length.active if isinstance(length, Padded) else length


def resized(x: jax.Array, features: int) -> jax.Array:
    """The last axis cut, or filled with zeros, to `features`."""
    if x.shape[-1] >= features:
        return x[..., :features]
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, features - x.shape[-1])])


def elementwise(functions: Sequence[Callable[[jax.Array], jax.Array]], index: Any, x: jax.Array) -> jax.Array:
    """`functions[index](x)`; backwards, too, no other function is computed or remembered (but where lanes differ)."""

    @jax.custom_vjp
    def run(index: Any, x: jax.Array) -> jax.Array:
        return jax.lax.switch(index, functions, x)

    def forward(index: Any, x: jax.Array) -> Any:
        return run(index, x), (index, x)

    def backward(kept: Any, gradient: jax.Array) -> Any:
        index, x = kept
        pulls = [lambda x, g, f=f: jax.vjp(f, x)[1](g)[0] for f in functions]
        return None, jax.lax.switch(index, pulls, x, gradient)

    run.defvjp(forward, backward)
    return run(index, x)


def if_reached(n: int, length: int | Bound, part: Any, x: jax.Array) -> jax.Array:
    """`x` through the modules of `part` one by one if the n-th part is in use, else `x`."""
    if isinstance(length, int):
        return functools.reduce(lambda x, module: module(x), part, x)
    graph, leaves, tree = _split(part)
    used, changed = _use(graph, tree)
    after, y = jax.lax.cond(n <= length[...], used, lambda leaves, x: ([leaves[at] for at in changed], x), leaves, x)
    _remember(part, tree, leaves, dict(zip(changed, after, strict=True)))
    return y


def only_if(flag: Any, part: Any, x: jax.Array, *given: Any) -> jax.Array:
    """`x` through the module `part` if `flag` (plain, or `[]`), else `x`, for the cost of what is done.

    The part keeps the shape of `x`, and what is `given` besides has no slope; what it remembers changes only where it
    is used. Backwards it is computed again: what several such parts would keep for that takes longer to lay out, most
    of it zeros, than it does to compute.
    """
    if isinstance(flag, bool):
        return part(x, *given) if flag else x
    graph, leaves, tree = _split((part,))
    use, changed = _use(graph, tree)
    used = jax.jit(use)  # traced once
    jax.eval_shape(used, leaves, x, *given)  # then it is known what changes
    floats = [at for at, leaf in enumerate(leaves) if jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.inexact)]

    @jax.custom_vjp
    def run(flag: Any, leaves: Any, x: jax.Array, given: Any) -> Any:
        past = lambda leaves, x, *given: ([leaves[at] for at in changed], x)  # noqa: E731
        return jax.lax.cond(flag, used, past, leaves, x, *given)

    def forward(flag: Any, leaves: Any, x: jax.Array, given: Any) -> Any:
        return run(flag, leaves, x, given), (flag, leaves, x, given)

    def backward(kept: Any, slopes: Any) -> Any:
        flag, leaves, x, given = kept

        def moved(moving: Any, x: jax.Array) -> Any:
            every = list(leaves)
            for at, leaf in zip(floats, moving, strict=True):
                every[at] = leaf
            after, y = used(every, x, *given)
            return [each for at, each in zip(changed, after, strict=True) if at in floats], y

        moving = [leaves[at] for at in floats]
        above = [slope for at, slope in zip(changed, slopes[0], strict=True) if at in floats], slopes[1]

        def done(moving: Any, x: jax.Array, above: Any) -> Any:
            return jax.vjp(moved, moving, x)[1](above)

        def past(moving: Any, x: jax.Array, above: Any) -> Any:
            found = dict(zip([at for at in changed if at in floats], above[0], strict=True))
            return [found.get(at, jnp.zeros_like(leaf)) for at, leaf in zip(floats, moving, strict=True)], above[1]

        by_leaves, by_x = jax.lax.cond(flag, done, past, moving, x, above)
        found = dict(zip(floats, by_leaves, strict=True))
        return None, [found.get(at) for at in range(len(leaves))], by_x, None

    run.defvjp(forward, backward)
    after, y = run(flag, leaves, x, given)
    _remember((part,), tree, leaves, dict(zip(changed, after, strict=True)))
    return y


def _split(part: Any) -> tuple[Any, list[Any], Any]:
    graph, state = nnx.split(tuple(part))
    leaves, tree = jax.tree.flatten(state)
    return graph, leaves, tree


def _use(graph: Any, tree: Any) -> tuple[Callable[..., Any], list[int]]:
    """The modules of a graph as a function to the leaves that they change and the result; and which those are, known
    once it has been traced."""
    changed: list[int] = []

    def used(leaves: Any, x: jax.Array, *given: Any) -> Any:
        merged: Any = nnx.merge(graph, jax.tree.unflatten(tree, leaves), copy=True)
        y = functools.reduce(lambda x, module: module(x, *given), merged, x)
        after = jax.tree.leaves(nnx.state(merged))
        changed[:] = [at for at, (old, new) in enumerate(zip(leaves, after, strict=True)) if old is not new]
        return [after[at] for at in changed], y

    return used, changed


def _remember(part: Any, tree: Any, leaves: list[Any], after: Mapping[int, Any]) -> None:
    if after:
        nnx.update(tuple(part), jax.tree.unflatten(tree, [after.get(at, leaf) for at, leaf in enumerate(leaves)]))


class PaddedNorm(nnx.Module):
    """The normalisations by name, over features of which some are padding, chosen by data if `kind` is `Picked`.

    Equal to the stock `nnx.BatchNorm`, `nnx.LayerNorm` and `nnx.RMSNorm` on the active features; the others stay zero.
    """

    def __init__(self, kind: str | Picked, features: int | Padded) -> None:
        shape = (size(features),)
        self.scale, self.bias = nnx.Param(jnp.ones(shape)), nnx.Param(jnp.zeros(shape))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(shape)), nnx.BatchStat(jnp.ones(shape))
        self.kind = kind if isinstance(kind, str) else Selector(kind)
        self.count = Bound(jnp.asarray(active(features), jnp.float32))
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, ..., C]` to the same shape."""
        kinds: dict[str, Any] = {"none": self._none, "batch": self._batch, "layer": self._layer, "rms": self._rms}
        before = (self.mean[...], self.var[...])
        if isinstance(self.kind, str):
            y, after = kinds[self.kind](x, before)
        elif "batch" not in self.kind.options and "none" not in self.kind.options:
            y, after = self._tokenwise(x), before
        else:
            options = [kinds[name] for name in self.kind.options]
            y, after = jax.lax.switch(self.kind.index[...], options, x, before)
        if not self.use_running_average and "batch" in (self.kind if isinstance(self.kind, str) else self.kind.options):
            self.mean[...], self.var[...] = after
        return y

    def _none(self, x: jax.Array, before: Any) -> Any:
        return x, before

    def _layer(self, x: jax.Array, before: Any) -> Any:
        count = self.count[...]
        # Zeros that stay zeros backwards: the mean passes a gradient on to everything it was taken over.
        x = jnp.where(jnp.arange(x.shape[-1]) < count, x, 0.0)
        mean = jnp.sum(x, -1, keepdims=True) / count
        variance = jnp.maximum(jnp.sum(x * x, -1, keepdims=True) / count - mean * mean, 0.0)
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-6) * self.scale[...]) + self.bias[...], before

    def _tokenwise(self, x: jax.Array) -> jax.Array:
        """`_layer` or `_rms`, as data say, in one formula: the latter has no centre and no bias."""
        assert isinstance(self.kind, Selector)
        count, centred = self.count[...], self.kind.named("layer").astype(x.dtype)
        used = jnp.arange(x.shape[-1]) < count
        centre = centred * jnp.sum(jnp.where(used, x, 0.0), -1, keepdims=True) / count
        apart = jnp.where(used, x - centre, 0.0)
        square = jnp.sum(apart * apart, -1, keepdims=True) / count
        return apart * (jax.lax.rsqrt(square + 1e-6) * self.scale[...]) + centred * self.bias[...]

    def _rms(self, x: jax.Array, before: Any) -> Any:
        square = jnp.sum(x * x, -1, keepdims=True) / self.count[...]
        return x * (jax.lax.rsqrt(square + 1e-6) * self.scale[...]), before

    def _batch(self, x: jax.Array, before: Any) -> Any:
        after = before
        mean, variance = before
        if not self.use_running_average:
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axes)
            variance = jnp.maximum(jnp.mean(x * x, axes) - mean * mean, 0.0)
            after = tuple(0.99 * old + 0.01 * new for old, new in zip(before, (mean, variance), strict=True))
        return (x - mean) * (jax.lax.rsqrt(variance + 1e-5) * self.scale[...]) + self.bias[...], after
