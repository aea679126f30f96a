"""The census: rows of numbers and categories from files written here, whole and damaged, and the published set."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from l2l.errors import InputError
from l2l.tasks import adult
from l2l.tasks.adult import Adult

PERSON = (
    "{age}, Private, 77516, {school}, 13, Never-married, Sales, {kin}, White, {sex}, {gain}, 0, 40, {land}, {label}"
)
TRAIN = [
    PERSON.format(
        age=20 + n, school="HS-grad", kin=("Wife", "Husband")[n % 2], sex=("Female", "Male")[n % 2], gain=n * 100,
        land=("Cuba", "?", "Peru")[n % 3], label=("<=50K", ">50K")[n % 4 == 0],
    )
    for n in range(12)
]  # fmt: skip
TEST = [
    "|1x3 Cross validator",
    PERSON.format(age=50, school="9th", kin="Husband", sex="Male", gain=0, land="Chile", label="<=50K."),
    PERSON.format(age=60, school="9th", kin="Wife", sex="Female", gain=99999, land="?", label=">50K."),
]


def write(folder: Path, train: list[str] = TRAIN, test: list[str] = TEST, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("adult.data", train), ("adult.test", test)):
        content = "\n".join([*lines, "", ""]).encode()
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture(autouse=True)
def no_data_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("L2L_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(adult, "_DOWNLOADS", {})


@pytest.mark.parametrize("zipped", [False, True])
def test_a_row_is_numbers_and_categories(tmp_path: Path, zipped: bool) -> None:
    task = Adult(write(tmp_path, zipped=zipped), validation=4)
    task.check()
    columns = [
        "age", "education-num", "capital-gain", "capital-loss", "hours-per-week", "workclass=Private",
        "marital-status=Never-married", "occupation=Sales", "relationship=Husband", "relationship=Wife", "race=White",
        "sex=Female", "sex=Male", "native-country=?", "native-country=Cuba", "native-country=Peru",
    ]  # fmt: skip
    assert list(task.columns) == columns
    (x, y), (vx, vy), (tx, ty) = (task.load(split) for split in ("train", "validation", "test"))
    assert (x.shape, vx.shape, tx.shape) == ((8, 16), (4, 16), (2, 16))
    assert {array.dtype for array in (x, vx, tx)} == {np.dtype(np.float32)}
    assert {array.dtype for array in (y, vy, ty)} == {np.dtype(np.int32)}
    rows = {int(row[0]) - 20: (row, label) for row, label in zip([*x, *vx], [*y, *vy], strict=True)}
    assert sorted(rows) == list(range(12))
    for n, (row, label) in rows.items():
        assert label == (n % 4 == 0)
        male, land = n % 2, n % 3
        expected = [20 + n, 13, np.log1p(n * 100), 0, 40, 1, 1, 1, male, 1 - male, 1, 1 - male, male]
        np.testing.assert_allclose(row, [*expected, land == 1, land == 0, land == 2], rtol=1e-6)
    assert ty.tolist() == [0, 1]
    assert tx[0, 13:].tolist() == [0, 0, 0]  # a country that the training file has not
    assert tx[1, 13:].tolist() == [1, 0, 0]


def test_a_split_is_read_once_and_never_changes(tmp_path: Path) -> None:
    task = Adult(write(tmp_path), validation=4)
    assert (task.load("validation")[0][:, 0] - 20).tolist() == [4, 6, 10, 11]
    for split in ("train", "validation", "test"):
        x, y = task.load(split)
        assert task.load(split)[0] is x
        assert not x.flags.writeable
        assert not y.flags.writeable
    hash(task)  # tasks travel to worker processes and are keys of caches


def test_columns_are_the_same_whatever_is_held_out(tmp_path: Path) -> None:
    alone = TRAIN[4].replace("Peru", "Laos").replace("Cuba", "Laos").replace("?", "Laos")
    folder = write(tmp_path, train=[*TRAIN[:4], alone, *TRAIN[5:]])
    assert {Adult(folder, validation=count).load("train")[0].shape for count in (1, 4, 8)} == {
        (11, 17),
        (8, 17),
        (4, 17),
    }


def test_the_folder_is_the_path_then_the_data_folder_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        InputError, match=r"there is no file adult\.data \(or adult\.data\.gz\) in .*cache/l2l/adult; put"
    ):
        Adult(validation=4).check()
    write(tmp_path / "cache/l2l/adult")
    Adult(validation=4).check()
    monkeypatch.setenv("L2L_DATA", str(tmp_path / "data"))
    Adult(validation=4).check()
    (write(tmp_path / "data/adult") / "adult.test").unlink()
    assert len(Adult(validation=4).load("train")[0]) == 8
    with pytest.raises(InputError, match=r"no file adult\.test .*data/adult"):
        Adult(validation=4).check()
    Adult(write(tmp_path / "elsewhere"), validation=4).check()


def test_a_missing_file_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {file.name: file.read_bytes() for file in write(tmp_path / "there").iterdir()}
    urls = {f"http://host/{name}": f"md5:{hashlib.md5(data).hexdigest()}" for name, data in content.items()}
    asked: list[str] = []

    def fetch_file(url: str, checksum: str, folder: Path) -> Path:
        assert checksum == urls[url]
        asked.append(url)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / url.rsplit("/", 1)[-1]).write_bytes(content[url.rsplit("/", 1)[-1]])
        return folder / url.rsplit("/", 1)[-1]

    monkeypatch.setattr(adult, "_DOWNLOADS", urls)
    monkeypatch.setattr("l2l.tasks.data_files.fetch_file", fetch_file)
    Adult(validation=4).check()
    Adult(validation=4).check()
    assert sorted(asked) == sorted(urls)
    with pytest.raises(InputError, match="there is no file"):
        Adult(tmp_path / "typo", validation=4).check()


def spoilt(old: str, new: str, line: int = 2) -> list[str]:
    """The training lines, one of them changed."""
    changed = TRAIN[line].replace(old, new)
    assert changed != TRAIN[line]
    return [*TRAIN[:line], changed, *TRAIN[line + 1 :]]


DAMAGED = {
    "fields": (spoilt(", Sales", ""), r"adult\.data: line 3 has 14 fields, expected 15"),
    "more fields": (spoilt("Sales", "Sales, Sales"), "line 3 has 16 fields"),
    "number": (spoilt("22,", "young,"), "line 3 has age 'young', expected an integer"),
    "missing number": (spoilt(" 200,", " ?,"), r"line 3 has capital-gain '\?', expected an integer"),
    "label": (spoilt("<=50K", "50K"), "line 3 has the label '50K', expected <=50K or >50K"),
    "empty": ([], "expected a line for each person, got none"),
    "page": (["<html>not here</html>"], "line 1 has 1 fields"),
}


@pytest.mark.parametrize(("lines", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damage_is_one_sentence(tmp_path: Path, lines: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Adult(write(tmp_path, train=lines), validation=4).check()
    text = str(caught.value)
    assert text.startswith(str(tmp_path))
    assert text.endswith("the file is damaged or another one: copy or download it again.")
    assert "\n" not in text


def test_the_test_file_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"adult\.test: line 2 has 1 fields"):
        Adult(write(tmp_path, test=["|", "no"]), validation=4).check()
    path = write(tmp_path / "zipped", zipped=True) / "adult.test.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"adult\.test\.gz: expected a whole gzip file"):
        Adult(tmp_path / "zipped", validation=4).check()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    for words, options in (("validation must be", {"validation": 0}), ("epochs must be", {"epochs": -1})):
        with pytest.raises(InputError, match=words):
            Adult(**options)
    with pytest.raises(InputError, match="validation=12 leaves nothing to train on of 12 people; choose fewer"):
        Adult(write(tmp_path), validation=12).check()


DATA = os.environ.get("L2L_DATA")


@pytest.mark.skipif(not DATA or not (Path(DATA) / "adult").is_dir(), reason="set L2L_DATA to a folder with adult/")
def test_adult_is_the_published_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2L_DATA", str(DATA))
    task = Adult()
    task.check()
    (x, y), (vx, vy), (tx, ty) = (task.load(split) for split in ("train", "validation", "test"))
    assert (x.shape, vx.shape, tx.shape) == ((26_049, 91), (6_512, 91), (16_281, 91))
    assert len(task.columns) == 91
    assert (np.bincount(y) + np.bincount(vy)).tolist() == [24_720, 7_841]
    assert np.bincount(ty).tolist() == [12_435, 3_846]
    for rows in (x, vx, tx):
        assert (rows[:, 5:].sum(1) == 7).all()  # the test rows have no value of their own
    assert [*x[0, :2], *x[0, 3:5]] == [39, 13, 0, 40]
    assert x[0, 2] == pytest.approx(np.log1p(2174))
    # The sum of the labels by index: a split that moved by one row would change it.
    assert int((vy * np.arange(len(vy))).sum()) == 5_130_927
