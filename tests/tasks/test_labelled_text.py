"""Labelled texts: what a line becomes, splits that never change, and files that cannot be learnt from."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from l2l.engine.evaluate import evaluate
from l2l.errors import InputError
from l2l.nn.text import TextModel
from l2l.tasks.labelled_text import LabelledText
from l2l.types import Split

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
EXAMPLES = [("even" if n % 2 == 0 else "odd", f"number {n}") for n in range(50)]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "parity.txt", "".join(f"{label}\t{text}\n" for label, text in EXAMPLES))


def spelled(row: np.ndarray) -> str:
    """The text of a row, without what it is filled up with."""
    return "".join(map(chr, row)).rstrip("\0")


def examples(task: LabelledText) -> list[tuple[str, str]]:
    """Labels and texts of all splits."""
    splits = [task.load(split) for split in SPLITS]
    return [(task.classes[y], spelled(x)) for split in splits for x, y in zip(*split, strict=True)]


def test_a_line_is_an_example(file: Path) -> None:
    task = LabelledText(file, context=10)
    task.check()
    assert (task.name, task.metric, task.maximise, task.normalise) == ("parity", "accuracy", True, False)
    assert (task.classes, task.outputs) == (("even", "odd"), 2)
    for split, count in zip(SPLITS, (40, 5, 5), strict=True):
        x, y = task.load(split)
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((count, 10), np.int32, (count,), np.int32)
        assert task.load(split)[0] is x
        assert not x.flags.writeable
        assert not y.flags.writeable
    assert sorted(examples(task)) == sorted(EXAMPLES)
    vocabulary = {ord(character) for text in task.load("train")[0] for character in spelled(text)}
    assert list(task.vocabulary) == [0, *sorted(vocabulary)]
    hash(task)  # tasks travel to worker processes and are keys of caches


def test_the_permutation_never_changes(file: Path) -> None:
    x, y = LabelledText(file).load("validation")
    assert [spelled(tokens) for tokens in x] == [f"number {n}" for n in (9, 19, 21, 36, 39)]
    assert y.tolist() == [1, 1, 1, 0, 1]


def test_a_text_is_cut_or_filled_up(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "a\tabcdef\nb\txy\n" * 10)
    task = LabelledText(file, context=4)
    rows = {tuple(row) for row in task.load("train")[0].tolist()}
    assert rows == {tuple(map(ord, "abcd")), (ord("x"), ord("y"), 0, 0)}
    assert "".join(map(chr, task.vocabulary)) == "\0abcdxy"  # e and f are never seen


def test_the_vocabulary_is_that_of_the_training_split(file: Path) -> None:
    seen = LabelledText(file).load("test")[0][0]
    file = write(file.with_name("new.txt"), file.read_text().replace(spelled(seen), f"{spelled(seen)}€"))
    task = LabelledText(file)
    assert ord("€") in task.load("test")[0]
    assert ord("€") not in task.vocabulary


def test_bytes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.bin", b"a\tx\xff\xe4\nb\t\xc3\xa4\n" * 10)
    task = LabelledText(file, context=3, unit="byte")
    rows = {tuple(row) for row in task.load("train")[0].tolist()}
    assert rows == {(ord("x"), 0xFF, 0xE4), (0xC3, 0xA4, 0)}
    assert list(task.vocabulary) == list(range(256))


def test_a_label_can_be_written_whatever_it_is(tmp_path: Path) -> None:
    file = write(tmp_path / "a.bin", "schön\tgut\nschlimm\tschlecht\n".encode("latin-1") * 10)
    assert LabelledText(file, unit="byte").classes == (r"sch\xf6n", "schlimm")


def test_a_model_of_classes_is_evaluated_on_other_texts(file: Path, tmp_path: Path) -> None:
    class Even(nnx.Module):
        """Logits of two classes."""

        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.stack([jnp.ones(len(x)), jnp.zeros(len(x))], -1)

    task = LabelledText(file, context=10)
    model = TextModel(Even(), task.vocabulary, 10)
    other = write(tmp_path / "new.txt", "even\tneu €\nodd\talt\n" * 10)
    assert evaluate(model, LabelledText(other, context=10))["accuracy"] == pytest.approx(
        np.mean(LabelledText(other, context=10).load("validation")[1] == 0)
    )
    with pytest.raises(
        InputError, match=r"takes texts of 10 tokens, but task 'new' cuts them to 4; give the task context=10\."
    ):
        evaluate(model, LabelledText(other, context=4))
    third = write(tmp_path / "third.txt", "even\tneu\nodd\talt\nnone\tnichts\n" * 10)
    with pytest.raises(
        InputError, match=r"has 2 output classes, but task 'third' has 3; evaluate it on texts with the labels"
    ):
        evaluate(model, LabelledText(third, context=10))


def test_characters_of_several_bytes(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "ja\täöü€𝄞\nnein\tx\n" * 10)
    assert max(LabelledText(file).vocabulary) == ord("𝄞")
    assert ("ja", "äöü€𝄞") in examples(LabelledText(file))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "a\tone\ttab\r\n\r\n b \t two \r\n"),
        ("a.tsv", "\ufeffa\tone\ttab\nb\t two "),
        ("a.csv", "a,one\ttab\n\nb, two \n"),
        ("a.CSV", '\ufeffLabel,text\r\n"a","one\ttab"\r\n"b"," two "\r\n'),
    ],
)
def test_what_belongs_to_a_text(tmp_path: Path, name: str, content: str) -> None:
    rest = "".join(f"{'ab'[n % 2]}{',' if name[-3:].lower() == 'csv' else chr(9)}{n}\n" for n in range(20))
    file = write(tmp_path / name, content.rstrip("\r\n") + "\n" + rest)
    for unit in ("character", "byte"):
        task = LabelledText(file, unit=unit)
        assert task.classes == ("a", "b")
        words = {example for example in examples(task) if not example[1].isdecimal()}
        assert words == {("a", "one\ttab"), ("b", " two ")}


def test_quotes_of_a_csv_file(tmp_path: Path) -> None:
    rest = "".join(f"{'ab'[n % 2]},{n}\n" for n in range(20))
    task = LabelledText(write(tmp_path / "a.csv", f'a,"one, ""two""\nthree"\n{rest}b,text\nlabel,text\n'))
    assert task.classes == ("a", "b", "label")  # a header stands at the top
    assert {("a", 'one, "two"\nthree'), ("b", "text"), ("label", "text")} <= set(examples(task))


def test_scores_are_of_classes(file: Path) -> None:
    scores = LabelledText(file).score(jnp.array([[9.0, 0.0], [0.0, 9.0]]), jnp.array([0, 0]))
    np.testing.assert_array_equal(scores["accuracy"], [1.0, 0.0])
    assert set(scores) == {"accuracy", "loss"}


MANY = "a\tx\nb\ty\n" * 9
BAD: list[tuple[str, str | bytes, str]] = [
    ("a.txt", "", r"a\.txt is empty; expected a label, a tab and a text in each line"),
    ("a.txt", "\n\n", "is empty"),
    ("a.csv", "", "is empty; expected a label, a comma and a text in each line"),
    ("a.csv", "label,text\n", "is empty"),
    ("a.txt", b"a\tx\nb\tabc\xff\n", r"is not UTF-8 \(byte 9 is 0xff\); convert it, or give task\.unit=byte"),
    ("a.csv", b"a,\xe4\n", r"is not UTF-8 \(byte 2 is 0xe4\)"),
    ("a.txt", f"{MANY}\nb x\n", r"a\.txt: line 20 has no tab; expected a label, a tab and a text"),
    ("a.txt", f"{MANY}\ty\n", "line 19 has an empty label; fill it in or remove the line"),
    ("a.txt", f"{MANY}b\t\n", "line 19 has an empty text"),
    ("a.txt", f"{MANY}b\t  \t\n", "line 19 has an empty text"),
    ("a.txt", f"{MANY}b\ta\0b\n", "line 19 has the character 0, which marks padding; remove it"),
    ("a.csv", "a,x\n\nb\n", "line 3 has 1 columns, expected a label and a text, in quotes if it has commas"),
    ("a.csv", 'a,"x\ny"\nb,y,z\n', "line 3 has 3 columns"),
    ("a.csv", "a,x\n,y\n", "line 2 has an empty label"),
    ("a.csv", "a,x\nb,\n", "line 2 has an empty text"),
    ("a.csv", 'a,x\nb,"y\nc,z\n', r"line 2 is not CSV \(unexpected end of data\); correct its quotes"),
    ("a.csv", 'a,x\nb,"y"z\n', "line 2 is not CSV"),
    ("a.txt", "a\tx\na\ty\n", "has one class only, 'a'; expected at least two different labels"),
    ("a.txt", "a\tx\nb\ty\n", "has 2 examples, too few to leave one for validation; add some or choose other shares"),
    ("a.txt", "a\tx\nb\ty\n" * 2 + "b\tz\n", "has 5 examples, too few to leave one for validation"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_a_file_that_cannot_be_learnt_is_one_sentence(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    file = write(tmp_path / name, content)
    with pytest.raises(InputError, match=words) as caught:
        LabelledText(file).check()
    text = str(caught.value)
    assert text.startswith(str(file))
    assert text.endswith(".")
    assert "\n" not in text


def test_a_byte_of_0_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.bin", b"a\tx\nb\ta\x00b\n")
    with pytest.raises(InputError, match="line 2 has the byte 0, which marks padding"):
        LabelledText(file, unit="byte").check()


def test_a_share_that_is_no_number_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"whose sum is below 1, got 0\.1 and 'much'"):
        LabelledText("a.txt", test="much")  # pyright: ignore[reportArgumentType]


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("L2L_DATA", raising=False)
    with pytest.raises(InputError, match=r"there is no text nowhere\.txt; give the path of a file with a label, a tab"):
        LabelledText("nowhere.txt").check()
    with pytest.raises(InputError, match="is a folder; give the path of a file"):
        LabelledText(tmp_path).check()
    monkeypatch.setenv("L2L_DATA", str(tmp_path))
    write(tmp_path / "there.txt", MANY)
    assert LabelledText("there.txt").outputs == 2
