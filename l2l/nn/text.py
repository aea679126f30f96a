"""Models of text: characters or bytes in, and text out."""

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


class TextModel(nnx.Module):
    """A model that takes raw text: it carries a vocabulary and turns each character or byte into its token id.

    A character outside the vocabulary becomes the token of the next larger one. `context` is how many tokens the model
    was made for.
    """

    def __init__(self, model: nnx.Module, vocabulary: Any, context: int) -> None:
        # The sorted codes of the vocabulary; weights files hold them under this name.
        self.symbols = Statistic(jnp.asarray(vocabulary, jnp.int32))
        self.context = context
        self.model = model

    def __call__(self, x: jax.Array) -> jax.Array:
        """Codes `[B, L]` (code points, or bytes) to the model's logits."""
        vocabulary = self.symbols[...]
        tokens = jnp.searchsorted(vocabulary, jnp.asarray(x).astype(jnp.int32), method="compare_all")
        return self.model(jnp.minimum(tokens, len(vocabulary) - 1))  # pyright: ignore

    @property
    def unit(self) -> str:
        """What a token stands for: `character`, or `byte` of UTF-8."""
        return "byte" if [int(code) for code in self.symbols[...]] == list(range(256)) else "character"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as a text classifier takes them, `[N, context]` int32. Raises: ValueError if it is a single text."""
        if isinstance(texts, str):
            raise ValueError(f"texts must be a list of them, got {texts!r:.80}; write [text] for one")
        return encode_texts(texts, self.context, self.unit)


def encode_texts(texts: Sequence[str], context: int, unit: str) -> np.ndarray:
    """Texts as codes, `[N, context]` int32: code points, or bytes of UTF-8 if the unit is `byte`.

    A longer text is cut, a shorter one is padded with 0.
    """
    rows = np.zeros((len(texts), context), np.int32)
    for row, text in zip(rows, texts, strict=True):
        codes = (
            text.encode("utf-8", "surrogateescape") if unit == "byte" else [ord(letter) for letter in text[:context]]
        )
        row[: len(codes)] = list(codes[:context])
    return rows


def generate(model: Any, prompt: str, length: int, key: jax.Array, temperature: float = 1.0) -> str:
    """The text that follows the prompt: `length` tokens, sampled one by one from a found next-token model.

    Each token depends on the last `model.context` ones; at `temperature` 0 the likeliest is taken.

    Raises: ValueError if the model is no next-token model, the prompt is no text, empty, or has a character outside the
        vocabulary, or a number is below 0, not finite, or (`length`) no integer.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt must be a text, got {prompt!r:.80}")
    if not isinstance(model, TextModel):
        raise ValueError(f"expected a next-token model, got a {type(model).__name__}; search with task=text")
    shape = jax.eval_shape(model, jax.ShapeDtypeStruct((1, model.context), jnp.int32)).shape
    if shape[:-1] != (1, model.context):
        raise ValueError("expected a next-token model, got a text classifier; search with task=text")
    vocabulary = [int(code) for code in model.symbols[...]]
    bytewise = model.unit == "byte"
    codes = list(prompt.encode()) if bytewise else [ord(letter) for letter in prompt]
    if not codes:
        raise ValueError("the prompt is empty; give at least one character to continue")
    if unknown := [code for code in codes if code not in vocabulary]:
        raise ValueError(f"the prompt has {chr(unknown[0])!r}, which the model does not know; leave it out")
    if not isinstance(length, Integral) or length < 0:
        raise ValueError(f"length must be an integer of at least 0, got {length!r}")
    if not isinstance(temperature, Real) or not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be a number of at least 0, got {temperature!r}")
    recent = codes[-model.context :]
    window = jnp.asarray(recent + [vocabulary[0]] * (model.context - len(recent)), jnp.int32)
    keys = jax.random.split(key, length)
    samples = _sample_codes(*nnx.split(model), window, len(recent), keys, jnp.float32(temperature))
    new_codes = [int(code) for code in samples]
    return bytes(new_codes).decode(errors="replace") if bytewise else "".join(map(chr, new_codes))


@functools.partial(jax.jit, static_argnums=0)
def _sample_codes(
    graph: Any, state: Any, window: jax.Array, count: Any, keys: jax.Array, temperature: Any
) -> jax.Array:
    """New codes, one for each key; `window` `[context]` begins with the `count` codes that are known."""
    model: Any = nnx.merge(graph, state)

    def step(carry: tuple[jax.Array, Any], key: jax.Array) -> tuple[tuple[jax.Array, Any], jax.Array]:
        window, count = carry
        logits = model(window[None])[0, count - 1]
        sample = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6))
        code = model.symbols[...][jnp.where(temperature > 0, sample, jnp.argmax(logits))]
        full = count == len(window)
        window = jnp.where(full, jnp.roll(window, -1), window).at[jnp.where(full, count - 1, count)].set(code)
        return (window, jnp.minimum(count + 1, len(window))), code

    return jax.lax.scan(step, (window, count), keys)[1]
