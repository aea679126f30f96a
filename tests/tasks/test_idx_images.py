"""Idx files written here, whole and damaged in every way we know, and Fashion-MNIST where it is at hand."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2l.errors import InputError
from l2l.tasks.idx_images import FashionMnist, IdxImages

TRAIN, TEST = 40, 12
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def content() -> dict[str, bytes]:
    draw = np.random.RandomState(0)
    files: dict[str, bytes] = {}
    for images, labels, count in ((IMAGES, LABELS, TRAIN), (TEST_IMAGES, TEST_LABELS, TEST)):
        files[images] = idx(draw.randint(0, 256, (count, 5, 4)))
        files[labels] = idx(np.arange(count) % 10)
    return files


def write(folder: Path, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content().items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


@pytest.fixture(autouse=True)
def no_data_at_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("L2L_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def task(folder: Path | None, **arguments: Any) -> IdxImages:
    return IdxImages("tiny", path=folder, **{"validation": 10, **arguments})


@pytest.mark.parametrize("zipped", [False, True])
def test_the_splits_hold_the_files_examples(tmp_path: Path, zipped: bool) -> None:
    tiny = task(write(tmp_path / "tiny", zipped))
    tiny.check()
    (x, y), (vx, vy), (tx, ty) = (tiny.load(split) for split in ("train", "validation", "test"))
    assert (x.shape, vx.shape, tx.shape) == ((30, 5, 4, 1), (10, 5, 4, 1), (TEST, 5, 4, 1))
    assert {array.dtype for array in (x, vx, tx)} == {np.dtype(np.uint8)}
    assert {array.dtype for array in (y, vy, ty)} == {np.dtype(np.int32)}
    pixels = np.frombuffer(content()[IMAGES][16:], np.uint8).reshape(TRAIN, 20)
    labelled = {(row.tobytes(), i % 10) for i, row in enumerate(pixels)}
    assert {(a.tobytes(), int(b)) for a, b in zip([*x, *vx], [*y, *vy], strict=True)} == labelled
    assert ty.tolist() == [i % 10 for i in range(TEST)]


def test_a_split_is_read_once_and_cannot_be_written_to(tmp_path: Path) -> None:
    tiny = task(write(tmp_path))
    images, labels = tiny.load("train")
    assert tiny.load("train")[0] is images
    assert tiny.load("test")[1] is tiny.load("test")[1]
    assert not images.flags.writeable
    assert not labels.flags.writeable


def test_the_permutation_never_changes(tmp_path: Path) -> None:
    labels = idx(np.arange(TRAIN))
    (write(tmp_path) / LABELS).write_bytes(labels)
    assert task(tmp_path, outputs=TRAIN).load("validation")[1].tolist() == [4, 10, 11, 15, 18, 20, 22, 25, 28, 29]


def test_training_and_validation_leave_the_test_files_alone(tmp_path: Path) -> None:
    write(tmp_path)
    for name in (TEST_IMAGES, TEST_LABELS):
        (tmp_path / name).unlink()
    assert len(task(tmp_path).load("train")[1]) == 30
    assert len(task(tmp_path).load("validation")[1]) == 10
    with pytest.raises(InputError, match="there is no file t10k-images-idx3-ubyte"):
        task(tmp_path).check()


def test_the_folder_is_the_path_then_the_data_folder_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cache/l2l/tiny; put the four idx files there"):
        task(None).check()
    write(tmp_path / "cache/l2l/tiny")
    task(None).check()
    monkeypatch.setenv("L2L_DATA", str(tmp_path / "data"))
    task(None).check()
    write(tmp_path / "data/tiny")
    (tmp_path / "data/tiny" / LABELS).unlink()
    with pytest.raises(InputError, match="data/tiny"):
        task(None).check()
    task(write(tmp_path / "elsewhere")).check()


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1]) and None


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def zipped(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / f"{name}.gz").write_bytes(change(gzip.compress((folder / name).read_bytes())))
        (folder / name).unlink()

    return damage


SQUARES = np.zeros((TEST, 4, 4))
HEADERS = {
    "missing": (lambda folder: (folder / LABELS).unlink(), f"no file {LABELS}"),
    "magic": (put(IMAGES, content()[LABELS]), f"{IMAGES}: expected .*2051.*got 2049"),
    "text": (put(LABELS, b"<html>not here</html>"), f"{LABELS}: expected .*2049.*got 1013478509"),
    "empty": (put(LABELS, b""), f"{LABELS}: expected .*fewer than four bytes"),
    "no sizes": (put(LABELS, content()[LABELS][:6]), r"a header of 1 sizes above 0, got \[\]"),
    "no examples": (put(LABELS, idx(np.zeros(0))), r"above 0, got \[0\]"),
    "cut short": (cut(IMAGES), "expected 816 bytes as its header says, got 815"),
    "too long": (put(LABELS, content()[LABELS] + b"0"), "expected 48 bytes as its header says, got 49"),
    "huge": (put(LABELS, struct.pack(">II", 2049, 2**32 - 1) + b"0"), "expected 4294967303 bytes .*, got 9"),
    "counts": (put(LABELS, idx(np.zeros(TRAIN - 1))), "expected 40 labels, .* got 39"),
    "gzip cut short": (zipped(IMAGES, lambda data: data[:-9]), "expected 816 bytes as its header says, got"),
    "gzip of nothing": (zipped(IMAGES, lambda data: data[:5]), "expected a whole gzip file"),
    "sizes": (put(TEST_IMAGES, idx(SQUARES)), r"expected images of \[5, 4\] pixels .*got \[4, 4\]"),
}
CONTENTS = {
    "label": (put(LABELS, idx(np.full(TRAIN, 10))), "expected labels from 0 to 9, got 10"),
    "gzip garbled": (zipped(LABELS, lambda data: data[:-20] + bytes(12) + data[-8:]), "expected a whole gzip file"),
}


def one_sentence(error: InputError) -> bool:
    text = str(error)
    return text.endswith(".") and ". " not in text and "\n" not in text


@pytest.mark.parametrize(("damage", "reason"), HEADERS.values(), ids=HEADERS)
def test_a_fault_is_found_before_anything_is_read(tmp_path: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(write(tmp_path))
    with pytest.raises(InputError, match=reason) as caught:
        task(tmp_path).check()
    assert one_sentence(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(("damage", "reason"), CONTENTS.values(), ids=CONTENTS)
def test_a_fault_of_the_contents_is_found_on_loading(
    tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(write(tmp_path))
    with pytest.raises(InputError, match=reason) as caught:
        task(tmp_path).load("train")
    assert one_sentence(caught.value)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "a/b"}, "plain folder name"),
        ({"name": ""}, "plain folder name"),
        ({"validation": 0}, "validation must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"outputs": 1}, "outputs must be an integer of at least 2"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        IdxImages(**{"name": "tiny", **arguments})


def test_the_validation_split_must_leave_something_to_train_on(tmp_path: Path) -> None:
    write(tmp_path)
    for use in (lambda: task(tmp_path, validation=TRAIN).check(), lambda: task(tmp_path, validation=99).load("train")):
        with pytest.raises(InputError, match="leaves nothing to train on of 40 examples"):
            use()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """A web server on this machine with the gzipped files, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            data = gzip.compress(content()[self.path[1:].removesuffix(".gz")], mtime=0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", asked
        web.shutdown()
        thread.join()


def downloads(address: str) -> dict[str, str]:
    return {
        f"{address}/{name}.gz": f"sha256:{hashlib.sha256(gzip.compress(data, mtime=0)).hexdigest()}"
        for name, data in content().items()
    }


def test_a_missing_file_is_downloaded_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    tiny = task(None, downloads=downloads(address))
    assert len(tiny.load("train")[1]) == 30
    assert sorted(asked) == [f"/{IMAGES}.gz", f"/{LABELS}.gz"]
    tiny.check()
    tiny.check()
    assert len(asked) == 4
    assert len(list((tmp_path / "cache/l2l/tiny").iterdir())) == 4


def test_a_download_with_another_checksum_is_refused(server: tuple[str, list[str]], tmp_path: Path) -> None:
    wrong = dict.fromkeys(downloads(server[0]), "md5:" + "0" * 32)
    with pytest.raises(InputError, match=r"could not be downloaded .*hash"):
        task(None, downloads=wrong).check()
    assert not list(tmp_path.rglob("*ubyte*"))


def test_a_server_that_does_not_answer_is_a_sentence(server: tuple[str, list[str]]) -> None:
    gone = {url.replace("http:", "nothing:"): digest for url, digest in downloads(server[0]).items()}
    with pytest.raises(InputError, match="could not be downloaded"):
        task(None, downloads=gone).check()


def test_a_given_path_is_never_downloaded_to(server: tuple[str, list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        task(tmp_path / "typo", downloads=downloads(server[0])).check()
    assert server[1] == []


def test_without_pooch_the_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"pip install 'l2l\[download\]'"):
        FashionMnist().check()


DATA = os.environ.get("L2L_DATA")


@pytest.mark.skipif(
    not DATA or not (Path(DATA) / "fashion_mnist").is_dir(), reason="set L2L_DATA to a folder with fashion_mnist/"
)
def test_fashion_mnist_is_the_published_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L2L_DATA", str(DATA))
    fashion = FashionMnist()
    fashion.check()
    (x, y), (vx, vy), (tx, ty) = (fashion.load(split) for split in ("train", "validation", "test"))
    assert (x.shape, vx.shape, tx.shape) == ((50_000, 28, 28, 1), (10_000, 28, 28, 1), (10_000, 28, 28, 1))
    assert (np.bincount(y) + np.bincount(vy)).tolist() == [6000] * 10
    assert np.bincount(ty).tolist() == [1000] * 10
    pixels = np.concatenate([x, vx]) / np.float32(255)
    assert pixels.mean(dtype=np.float64) == pytest.approx(0.28604, abs=5e-6)
    assert pixels.std(dtype=np.float64) == pytest.approx(0.35302, abs=5e-6)
    # The sum of the labels by index: a split that moved by one example would change it.
    assert int((vy * np.arange(len(vy))).sum()) == 224_905_313
