"""Whatever is wrong with a found model's folder, `load` says it in one sentence, and neither runs nor allocates it."""

from __future__ import annotations

import hashlib
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

import l2l
from l2l.export.module import load, save
from l2l.nn.blocks import Standardised
from l2l.types import Spec
from search_spaces import mlp

SPACE = mlp.space(depth=(1, 1), widths=(8,), activations=("relu",), normalisations=("batch",), batch_sizes=(128,))
SPEC = Spec((8, 8, 1), 10, 1077, 1)
SUMS = "SHA256SUMS"
FILES = ("architecture.json", "weights.safetensors", "MODEL.md")


@pytest.fixture
def best(tmp_path: Path) -> Path:
    """A found model that a test may damage."""
    values = SPACE.sample(random.Random(0)).values
    model = Standardised(mlp.build(values, SPEC).model(nnx.Rngs(0)), [4.9], [6.0])
    save(tmp_path / "best", SPACE, values, SPEC, model, "# A model\n\nIts card.\n")
    return tmp_path / "best"


def forge(best: Path, change: Callable[[dict[str, Any]], object], tensors: bool = False) -> None:
    """Changes the architecture, or the tensors, and makes the digests fit."""
    path = best / FILES[tensors]
    content = safetensors.numpy.load(path.read_bytes()) if tensors else json.loads(path.read_text())
    change(content)
    path.write_bytes(safetensors.numpy.save(content) if tensors else json.dumps(content).encode())
    sign(best)


def sign(best: Path) -> None:
    """Writes the digests of the files as they are."""
    lines = [f"{hashlib.sha256((best / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (best / SUMS).write_text("".join(lines))


def refusal(best: Path, **options: Any) -> str:
    """The one sentence with which `load` refuses."""
    with pytest.raises(l2l.InputError) as caught:
        load(best, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))
    return sentence


def test_every_flipped_bit_of_the_small_files_is_noticed(best: Path) -> None:
    for name in (SUMS, "architecture.json", "MODEL.md"):
        content = bytearray((best / name).read_bytes())
        for index in range(len(content)):
            for bit in (0, 2, 7) if name == SUMS else (index % 8,):
                content[index] ^= 1 << bit
                (best / name).write_bytes(content)
                refusal(best)
                content[index] ^= 1 << bit
        (best / name).write_bytes(content)
    assert load(best) is not None


def test_flipped_bits_of_the_weights_are_noticed(best: Path) -> None:
    path, rng = best / "weights.safetensors", random.Random(0)
    whole = path.read_bytes()
    for _ in range(300):
        index = rng.randrange(len(whole))
        changed = whole[index] ^ (1 << rng.randrange(8))
        path.write_bytes(whole[:index] + bytes([changed]) + whole[index + 1 :])
        assert refusal(best).startswith(f"{path} is damaged: its SHA-256 differs")


@pytest.mark.parametrize("name", [SUMS, *FILES])
def test_a_cut_or_missing_file_is_noticed(best: Path, name: str) -> None:
    whole = (best / name).read_bytes()
    for content in (b"", whole[:-1], whole[: len(whole) // 2], whole + b"\n"):
        (best / name).write_bytes(content)
        assert name in refusal(best)
    (best / name).unlink()
    assert name in refusal(best)
    (best / name).mkdir()
    assert name in refusal(best)


def test_a_folder_without_a_model(best: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere", best / FILES[0]):
        assert f"{folder} holds no found model" in refusal(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "sub/file", "..", "."])
def test_digests_name_files_of_the_folder_only(best: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_text("x")
    with (best / SUMS).open("a") as file:
        file.write(f"{hashlib.sha256(b'x').hexdigest()}  {name}\n")
    assert f"names {name!r}, a path that leaves the folder" in refusal(best)


@pytest.mark.parametrize("name", [SUMS, *FILES])
def test_a_link_out_of_the_folder(best: Path, tmp_path: Path, name: str) -> None:
    (best / name).rename(tmp_path / "outside")
    (best / name).symlink_to(tmp_path / "outside")
    assert f"names {name!r}, a path that leaves the folder" in refusal(best)
    (best / name).unlink()
    (best / name).symlink_to(best / name)  # round and round
    assert name in refusal(best)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"version": ' + b"1" * 5000 + b"}", "is not JSON"),
        (b"NaN", "has no version"),
        (b"[1]", "has no version"),
        (b'{"version": true}', "has no version"),
        (b'{"version": 1, "space": ' + b"[" * 900 + b"]" * 900 + b"}", "'space' must be of type str, got list"),
    ],
)
def test_an_architecture_that_is_none(best: Path, content: bytes, words: str) -> None:
    (best / "architecture.json").write_bytes(content)
    sign(best)
    assert words in refusal(best)


VALUES: list[tuple[dict[str, Any], str]] = [
    ({"layer1_width": 16}, "expected float32 [64, 16]"),
    ({"layer1_width": 10**9}, "expected float32 [64, 1000000000]"),
    ({"layer1_width": 10**30}, "weights.safetensors"),
    ({"layer1_width": -8}, "does not describe a model"),
    ({"layer1_width": "8"}, "does not describe a model"),
    ({"layer1_width": [8]}, "'layer1_width' must be a number, a text, true, false or null, got list"),
    ({"layer1_normalisation": "none"}, "lacks the tensor 'model.first.linear.bias'"),
    ({"layer1_activation": "rulu"}, "(ValueError: activation 'rulu' is unknown, expected one of relu, gelu"),
    ({"depth": 10**9}, "does not describe a model of the space 'mlp' (KeyError: 'layer2_width')"),
    ({"optimizer": "newton"}, "does not describe a model"),
    ({"batch_size": 0}, "does not describe a model"),
    ({"dropout": float("nan")}, "'dropout' must be a number, a text, true, false or null, got float nan"),
    ({"layer1_magic": 1}, "has a value for 'layer1_magic', which the space 'mlp' does not know: upgrade"),
]
FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"version": 2}, "is of version 2, newer than 1: upgrade l2l"),
    ({"version": 0}, "has the version 0"),
    ({"space": "os.system"}, "was found in the space 'os.system', which is not built in"),
    ({"space": "search_spaces.mlp"}, "was found in the space 'search_spaces.mlp', which is not built in"),
    ({"space": "cnn"}, "does not describe a model of the space 'cnn'"),
    ({"values": {}}, "does not describe a model of the space 'mlp' (KeyError: "),
    ({"values": 3}, "'values' must be of type dict, got int 3"),
    ({"inputs": []}, "must be integers of at least 1"),
    ({"inputs": [8, 8.5, 1]}, "must be integers of at least 1"),
    ({"inputs": [8, 8, 10**9]}, "the tensor 'mean' is float32 [1], expected float32 [1000000000]"),
    ({"inputs": [10**9, 8, 1]}, "expected float32 [8000000000, 8]"),
    ({"outputs": 10**9}, "expected float32 [1000000000]"),
    ({"outputs": True}, "'outputs' must be of type int, got bool True"),
    ({"epochs": 10**400}, "does not describe a model"),
]


@pytest.mark.parametrize(
    ("change", "words"), [*FIELDS, *(({"values": values}, words) for values, words in VALUES)], ids=str
)
def test_an_architecture_that_does_not_fit_is_refused_without_allocating_it(
    best: Path, change: dict[str, Any], words: str
) -> None:
    merged = (change, words) not in FIELDS
    forge(best, lambda fields: fields["values"].update(change["values"]) if merged else fields.update(change))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert words in refusal(best)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_values_that_the_given_space_does_not_have(best: Path) -> None:
    forge(best, lambda fields: fields["values"].update(layer1_width=16))
    assert "architecture.json does not fit the given space: " in (sentence := refusal(best, space=SPACE))
    assert "choice 'layer1_width': expected one of [8], got 16" in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("model.head.bias"), "lacks the tensor 'model.head.bias' (float32 [10])"),
        (lambda tensors: tensors.update(more=np.zeros(3)), "has a tensor 'more' that the architecture does not know"),
        (
            lambda tensors: tensors.update(mean=np.zeros((1, 1), np.float32)),
            "'mean' is float32 [1, 1], expected float32 [1]",
        ),
        (lambda tensors: tensors.update(mean=np.zeros(1)), "'mean' is float64 [1], expected float32 [1]"),
        (lambda tensors: tensors.clear(), "lacks the tensor"),
    ],
)
def test_tensors_of_another_model(best: Path, change: Callable[[dict[str, Any]], object], words: str) -> None:
    forge(best, change, tensors=True)
    assert words in refusal(best)
    (best / "weights.safetensors").write_bytes(b"no tensors at all")
    sign(best)
    assert "is not a safetensors file" in refusal(best)
