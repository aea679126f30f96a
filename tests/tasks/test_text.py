"""Text as a task: pieces that follow each other, and files that cannot be learnt from."""

from __future__ import annotations

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from l2l.errors import InputError
from l2l.tasks.labelled_text import LabelledText
from l2l.tasks.text import Text, TextFile, TinyShakespeare

ALPHABET = "abcdefghij\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "story.txt"
    path.write_text("".join(ALPHABET[n * n % 11] for n in range(1000)), encoding="utf-8")
    return path


def test_targets_are_what_follows(file: Path) -> None:
    task = Text(file, context=16)
    task.check()
    text = file.read_text(encoding="utf-8")
    alphabet = sorted(map(ord, set(text)))
    assert (task.name, task.outputs, list(task.vocabulary)) == ("story", len(alphabet), alphabet)
    joined = ""
    for split, share in (("train", 900), ("validation", 50), ("test", 50)):
        x, y = task.load(split)  # pyright: ignore[reportArgumentType]
        assert x.shape == y.shape == ((share - 1) // 16, 16)
        assert (x.dtype, y.dtype) == (np.int32, np.int32)
        np.testing.assert_array_equal(np.asarray(alphabet)[y].reshape(-1)[:-1], x.reshape(-1)[1:])
        joined += "".join(map(chr, x.reshape(-1)))
        assert task.load(split)[0] is x  # pyright: ignore[reportArgumentType]
        assert not x.flags.writeable
    assert text.startswith(joined[:896])


def test_splits_do_not_overlap(file: Path) -> None:
    file.write_text("".join(map(chr, range(1000, 2000))), encoding="utf-8")
    task = Text(file, context=7)
    parts = [set(task.load(split)[0].reshape(-1).tolist()) for split in ("train", "validation", "test")]
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert max(parts[0]) < min(parts[1]) < max(parts[1]) < min(parts[2])


def test_bytes_have_an_alphabet_of_all(tmp_path: Path) -> None:
    file = tmp_path / "any.bin"
    file.write_bytes(bytes(range(256)) * 4)
    task = Text(file, context=8, unit="byte")
    x, y = task.load("train")
    assert task.outputs == 256
    assert x[0].tolist() == list(range(8))
    assert y[0].tolist() == list(range(1, 9))


def test_several_bytes_are_one_character(tmp_path: Path) -> None:
    file = tmp_path / "umlaut.txt"
    file.write_text("äöü€𝄞" * 100, encoding="utf-8")
    task = Text(file, context=5)
    assert "".join(map(chr, task.load("train")[0][0])) == "äöü€𝄞"
    assert task.outputs == 5
    assert Text(file, context=5, unit="byte").load("train")[0].shape[0] > 2 * len(task.load("train")[0])


def test_scores_are_means_over_an_example(file: Path) -> None:
    task = Text(file, context=4)
    logits = jnp.zeros((3, 4, task.outputs)).at[0, :, 1].set(50.0)
    targets = jnp.ones((3, 4), jnp.int32)
    scores = task.score(logits, targets)
    np.testing.assert_allclose(scores["bits"], [0.0, *[math.log2(task.outputs)] * 2], atol=1e-5)
    np.testing.assert_allclose(scores["loss"], [0.0, *[math.log(task.outputs)] * 2], atol=1e-5)
    np.testing.assert_array_equal(scores["accuracy"], [1.0, 0.0, 0.0])
    mixed = task.loss(logits, targets.at[0, :2].set(0), 0.1)
    assert mixed.shape == (3,)


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"", {}, "is empty; a text to learn needs at least two different characters"),
        (b"aaaaaaaa", {}, "consists of one character only, 'a'"),
        (b"abc\xff" * 50, {}, r"is not UTF-8 \(byte 3 is 0xff\); convert it, or give task.unit=byte"),
        (b"ab" * 100, {"context": 500}, "the train part has 180 characters, too few for a context of 500"),
        (b"ab" * 100, {"context": 32}, "the validation part has 10 characters, too few for a context of 32"),
    ],
)
def test_a_text_that_cannot_be_learnt_is_one_sentence(
    tmp_path: Path, content: bytes, options: dict[str, int], words: str
) -> None:
    file = tmp_path / "bad.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        Text(file, **options).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 0}, "context must be an integer of at least 1, got 0"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"path": 5}, r"task\.path must be the path of a file of text, got 5\.$"),
        ({"unit": "word"}, "unit must be one of character, byte, got 'word'"),
        ({"validation": 0.0}, "validation and test must be shares above 0"),
        ({"validation": 0.5, "test": 0.5}, "whose sum is below 1"),
    ],
)
@pytest.mark.parametrize("task", [Text, LabelledText])
def test_bad_arguments(task: type[TextFile], options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        task(**{"path": "story.txt", **options})  # pyright: ignore[reportArgumentType]


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("L2L_DATA", raising=False)
    with pytest.raises(
        InputError, match=r"there is no text nowhere\.txt; give the path of a text file, or set L2L_DATA"
    ):
        Text("nowhere.txt").check()
    monkeypatch.setenv("L2L_DATA", str(tmp_path))
    with pytest.raises(
        InputError, match=r"there is no text nowhere\.txt here, nor in L2L_DATA as .*/nowhere\.txt; give"
    ):
        Text("nowhere.txt").check()
    (tmp_path / "there.txt").write_text("ab" * 1000, encoding="utf-8")
    assert Text("there.txt").outputs == 2


def test_shakespeare_lies_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_shakespeare").mkdir()
    (tmp_path / "tiny_shakespeare" / "input.txt").write_text("To be, or not to be: " * 200, encoding="utf-8")
    monkeypatch.setenv("L2L_DATA", str(tmp_path))
    task = TinyShakespeare()
    assert (task.name, task.metric, task.maximise) == ("tiny_shakespeare", "bits", False)
    assert "".join(map(chr, task.load("train")[0][0][:5])) == "To be"
    with pytest.raises(InputError, match="there is no text"):
        TinyShakespeare(path=tmp_path / "gone.txt").check()
