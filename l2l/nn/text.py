"""Models of text: symbols in, and text out."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from l2l.nn.blocks import Statistic


class Spelled(nnx.Module):
    """A model that takes raw symbols: each becomes its place in the alphabet that is carried along.

    One that the alphabet has not is taken for the next in it. `context` is how many the model was made for.
    """

    def __init__(self, model: nnx.Module, symbols: Any, context: int) -> None:
        self.symbols = Statistic(jnp.asarray(symbols, jnp.int32))
        self.context = context
        self.model = model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Symbols `[B, L]` (code points, or bytes) to the model's logits."""
        symbols = self.symbols[...]
        places = jnp.searchsorted(symbols, jnp.asarray(x).astype(jnp.int32), method="compare_all")
        return self.model(jnp.minimum(places, len(symbols) - 1))  # pyright: ignore

    @property
    def unit(self) -> str:
        """What its symbols are: `character`, or `byte` of UTF-8."""
        return "byte" if [int(each) for each in self.symbols[...]] == list(range(256)) else "character"

    def spelled(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as a model of classes takes them, `[N, context]` int32. Raises: ValueError if it is one text alone."""
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of them, got {texts!r:.80}; write [text] for one")
        return spelled(texts, self.context, self.unit)


def spelled(texts: Sequence[str], context: int, unit: str) -> np.ndarray:
    """Texts as symbols, `[N, context]` int32: code points, or of the unit `byte` the bytes of UTF-8.

    A longer text is cut, a shorter one is filled up with 0.
    """
    found = np.zeros((len(texts), context), np.int32)
    for row, text in zip(found, texts, strict=True):
        own = text.encode("utf-8", "surrogateescape") if unit == "byte" else [ord(each) for each in text[:context]]
        row[: len(own)] = list(own[:context])
    return found


def generate(model: Any, prompt: str, length: int, key: jax.Array, temperature: float = 1.0) -> str:
    """What follows the prompt: `length` symbols, drawn one by one from a found model of the next symbol.

    Each is drawn given the last `model.context` ones; at `temperature` 0 the likeliest is taken.

    Raises: ValueError if the model is not one of the next symbol, the prompt is no text, empty, or has a symbol that
        the model does not know, or a number is below 0, not finite, or (`length`) not whole.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt must be a text, got {prompt!r:.80}")
    if not isinstance(model, Spelled):
        raise ValueError(f"a model of the next symbol is needed, got a {type(model).__name__}; search with task=text")
    shape = jax.eval_shape(model, jax.ShapeDtypeStruct((1, model.context), jnp.int32)).shape
    if shape[:-1] != (1, model.context):
        raise ValueError("the model tells classes of texts apart; a model of the next symbol is needed")
    alphabet = [int(each) for each in model.symbols[...]]
    bytewise = model.unit == "byte"
    asked = list(prompt.encode()) if bytewise else [ord(each) for each in prompt]
    if not asked:
        raise ValueError("the prompt is empty; give at least one symbol to go on from")
    if strange := [each for each in asked if each not in alphabet]:
        raise ValueError(f"the prompt has {chr(strange[0])!r}, which the model does not know; leave it out")
    if not isinstance(length, Integral) or length < 0:
        raise ValueError(f"length must be a whole number of at least 0, got {length!r}")
    if not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number of at least 0, got {temperature!r}")
    seen = asked[-model.context :]
    tokens = jnp.asarray(seen + [alphabet[0]] * (model.context - len(seen)), jnp.int32)
    drawn = _drawn(*nnx.split(model), tokens, len(seen), jax.random.split(key, length), jnp.float32(temperature))
    found = [int(each) for each in drawn]
    return bytes(found).decode(errors="replace") if bytewise else "".join(map(chr, found))


@functools.partial(jax.jit, static_argnums=0)
def _drawn(graph: Any, state: Any, tokens: jax.Array, count: Any, keys: jax.Array, temperature: Any) -> jax.Array:
    """The symbols, one for each key: `tokens` `[context]` begin with `count` known ones, and go on at their end."""
    model: Any = nnx.merge(graph, state)

    def step(carry: tuple[jax.Array, Any], key: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        tokens, count = carry
        logits = model(tokens[None])[0, count - 1]
        drawn = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6))
        symbol = model.symbols[...][jnp.where(temperature > 0, drawn, jnp.argmax(logits))]
        full = count == len(tokens)
        tokens = jnp.where(full, jnp.roll(tokens, -1), tokens).at[jnp.where(full, count - 1, count)].set(symbol)
        return (tokens, jnp.minimum(count + 1, len(tokens))), symbol

    return jax.lax.scan(step, (tokens, count), keys)[1]
