"""Codes in, text out."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.nn.text import TextModel, encode_texts, generate

LETTERS = sorted(map(ord, "abcd"))


class Next(nnx.Module):
    """Says that after each letter comes the next one."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return 20.0 * jax.nn.one_hot((x + 1) % 4, 4)


class Count(nnx.Module):
    """Says how many letters there are before, modulo 4."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return 20.0 * jax.nn.one_hot(jnp.broadcast_to(jnp.arange(x.shape[1]) % 4, x.shape), 4)


def make_model(model: Any, context: int = 6) -> Any:
    return TextModel(model, LETTERS, context)


def test_codes_become_tokens() -> None:
    model = make_model(lambda x: x)
    np.testing.assert_array_equal(model(np.array([[ord(letter) for letter in "dcba"]])), [[3, 2, 1, 0]])
    # A character outside the vocabulary becomes the token of the next larger one.
    np.testing.assert_array_equal(model(np.array([[0, 10_000]])), [[0, 3]])


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_text_goes_on_from_the_prompt(temperature: float) -> None:
    assert generate(make_model(Next()), "ab", np.int64(2), jax.random.key(0), np.float32(temperature)) == "cd"
    assert generate(make_model(Next()), "ab", 9, jax.random.key(0), temperature) == "cdabcdabc"
    assert generate(make_model(Next()), "ab" * 20 + "d", 3, jax.random.key(0), temperature) == "abc"


def test_a_model_sees_its_context_from_the_first_position_on() -> None:
    assert generate(make_model(Count()), "a", 8, jax.random.key(0), 0.0) == "abcdabbb"
    assert generate(make_model(Count()), "abcdabcd", 2, jax.random.key(0), 0.0) == "bb"


def test_a_key_is_a_text() -> None:
    model = make_model(Next())
    texts = [generate(model, "a", 40, jax.random.key(seed), 1000.0) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert set(texts[0]) == set("abcd")
    assert generate(model, "a", 0, jax.random.key(0)) == ""


def test_bytes_are_decoded() -> None:
    class After(nnx.Module):
        def __call__(self, x: jax.Array) -> jax.Array:
            return 20.0 * jax.nn.one_hot(jnp.where(x == 0xC3, 0xA4, 0xC3), 256)

    model = TextModel(After(), range(256), 8)
    assert generate(model, "ä", 4, jax.random.key(0), 0.0) == "ää"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", 3), "the prompt is empty"),
        (("abz", 3), "the prompt has 'z', which the model does not know"),
        (("a", -1), "length must be an integer of at least 0, got -1"),
        (("a", 2.5), "length must be an integer of at least 0, got 2.5"),
        (("a", 1, jax.random.key(0), -1.0), "temperature must be a number of at least 0, got -1.0"),
        (("a", 1, jax.random.key(0), float("nan")), "temperature must be a number of at least 0, got nan"),
        (("a", 1, jax.random.key(0), float("inf")), "temperature must be a number of at least 0, got inf"),
        (("a", 1, jax.random.key(0), "0.5"), "temperature must be a number of at least 0, got '0.5'"),
        ((b"a", 1), "the prompt must be a text, got b'a'"),
    ],
)
def test_what_cannot_be_gone_on_from_is_one_sentence(arguments: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        generate(make_model(Next()), *(*arguments, jax.random.key(0), 1.0)[: max(len(arguments), 3)])


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="expected a next-token model, got a Next"):
        generate(Next(), "a", 3, jax.random.key(0))


def test_texts_are_encoded() -> None:
    np.testing.assert_array_equal(
        encode_texts(["ab", "", "abcd"], 3, "character"), [[97, 98, 0], [0, 0, 0], [97, 98, 99]]
    )
    np.testing.assert_array_equal(encode_texts(["\u20ac"], 4, "byte"), [[0xE2, 0x82, 0xAC, 0]])


def test_a_model_encodes_texts_as_it_takes_them() -> None:
    np.testing.assert_array_equal(make_model(Next(), 3).encode(["ab", "\u20ac"]), [[97, 98, 0], [0x20AC, 0, 0]])
    bytewise = TextModel(Next(), range(256), 3)
    assert (make_model(Next()).unit, bytewise.unit) == ("character", "byte")
    np.testing.assert_array_equal(bytewise.encode(["ab", "\u20ac"]), [[97, 98, 0], [0xE2, 0x82, 0xAC]])
    with pytest.raises(ValueError, match=r"^texts must be a list of them, got 'ab'; write \[text\] for one$"):
        bytewise.encode("ab")
