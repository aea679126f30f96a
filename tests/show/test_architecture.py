"""`l2l show`: the picture and the outline of a found module, and the command."""

from __future__ import annotations

import importlib
import itertools
import json
import random
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest
from commands import Run, refused
from flax import nnx

import l2l
from l2l.engine.cost import measure_cost
from l2l.engine.data import add_preprocessing
from l2l.export.module import save
from l2l.nn.description import TIMES
from l2l.run.result import SearchRecord, TestScores, TrialCounts
from l2l.show.architecture import draw_architecture
from l2l.show.summary import outline
from l2l.show.svg import estimate_width
from l2l.space import Categorical, Integer, Real, SearchSpace
from l2l.types import Learner, Spec

IMAGES, TEXT, ROWS = Spec((8, 8, 1), 10, 1257, 5), Spec((12,), 7, 1000, 3, 7, (12,)), Spec((5,), 3, 100, 2)
RECIPE = {
    "optimizer": "adamw", "adamw_learning_rate": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1,
    "batch_size": 32, "dropout": 0.25, "label_smoothing": 0.0,
}  # fmt: skip
NAMES = {"mlp": IMAGES, "cnn": IMAGES, "mixed": IMAGES, "transformer": TEXT, "moe": IMAGES, "attention": ROWS}


def save_model(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, folder: Path) -> nnx.Module:
    """The untrained module of these values, saved as the one that a search found."""
    learnt = [np.arange(spec.tokens)] if spec.tokens else [np.ones(spec.inputs[-1]), np.ones(spec.inputs[-1])]
    model = add_preprocessing(space.build(values, spec).model(nnx.Rngs(0)), spec, learnt)
    save(folder, space, values, spec, model, "")
    return model


def layer(n: int, **values: Any) -> dict[str, Any]:
    return {f"layer{n}_{name}": value for name, value in values.items()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a transformer of text with a dense layer, normalised before, and one of experts, behind."""
    attention = {"heads": 4, "head_size": 8, "query_key_norm": "none", "gate": False}
    values = {
        "depth": 2, "width": 16, "activation": "silu", "tied": False,
        **layer(1, kv_heads="half", attention="window", window=4, position="rotary", placement="pre", forward="dense"),
        **layer(2, kv_heads="one", attention="linear", linear_position="none", placement="post", forward="experts"),
        **layer(1, **attention, mlp_ratio=2, normalisation="rms"),
        **layer(2, **{**attention, "query_key_norm": "rms", "gate": True}, experts=4, k=1, expert_ratio=2),
        **layer(2, router="sigmoid", capacity=1.25, shared=True, balance_weight=0.01, normalisation="layer"),
        **RECIPE,
    }  # fmt: skip
    space = importlib.import_module("search_spaces.transformer").space(depth=(1, 2), widths=(16,))
    run = tmp_path_factory.mktemp("show") / "run"
    save_model(space, space.candidate(values).values, TEXT, run / "best")
    return run


def texts(path: Path) -> list[str]:
    """What a picture says, text by text."""
    return ["".join(node.itertext()) for node in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def tidy(path: Path) -> None:
    """No text reaches another, nor beyond the picture; boxes lie within node other or apart."""
    root = ET.parse(path).getroot()
    spans: list[tuple[float, float, float]] = []
    for node in root.iter("{http://www.w3.org/2000/svg}text"):
        size, x, y = (float(node.attrib[name]) for name in ("font-size", "x", "y"))
        bold = "font-weight" in node.attrib
        inner = [estimate_width(part.text or "", size, True) + 8 for part in node]
        long = estimate_width(node.text or "", size, bold) + sum(inner)
        left = x - long if node.get("text-anchor") == "end" else x
        assert left >= 0
        assert left + long <= float(root.attrib["width"])
        assert size <= y <= float(root.attrib["height"]) - 4
        spans.append((left, left + long, y))
    for one, other in itertools.combinations(spans, 2):
        assert abs(one[2] - other[2]) >= 11 or one[1] <= other[0] or other[1] <= one[0], (one, other)
    keys = ("x", "y", "width", "height")
    frames = [[float(node.get(key, 0)) for key in keys] for node in root.iter("{http://www.w3.org/2000/svg}rect")]
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(frames, 2):
        apart = ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
        assert apart or (ax <= bx and ay <= by and bx + bw <= ax + aw and by + bh <= ay + ah)


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_space_is_drawn(name: str, tmp_path: Path) -> None:
    more = {"experts": (4,)} if name == "moe" else {}
    space, spec = importlib.import_module(f"search_spaces.{name}").space(depth=(3, 3), **more), NAMES[name]
    draw = random.Random(5)
    values = space.complete(lambda _, choice: choice.value_at(draw.random())).values
    model = save_model(space, values, spec, tmp_path / "best")
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    size = measure_cost(space, values, spec)
    boxes = outline(model, spec)
    assert sum(box.parameters for box in boxes) == total == size.parameters
    assert abs(sum(box.parameters - box.idle_parameters for box in boxes) - size.active_parameters) <= 3
    text = draw_architecture(str(tmp_path))
    svg = tmp_path / "architecture.svg"
    labels = texts(svg)
    assert labels[0] == name
    assert any(label.startswith(f"{total:,} parameters") for label in labels)
    lines = text.splitlines()
    for number in range(1, 4):
        (box,) = [box for box in boxes if box.name == f"layer {number}"]
        assert any(label.startswith(f"layer {number}") for label in labels)
        assert f"{box.parameters:,}" in labels
        assert [line.split()[0] for line in lines if f"  layer {number}  " in line] == [f"{box.parameters:,}"]
        assert all(leaf.title in text for leaf in box.leaves())
    assert {"optimizer", values["optimizer"], "learning rate", "batch size", str(values["batch_size"])} <= set(labels)
    assert ("learning rate", f"{values[values['optimizer'] + '_learning_rate']:.3g}") in itertools.pairwise(labels)
    assert lines[-2].startswith(f"{name}: {total:,} parameters")
    assert lines[-1] == f"picture: {svg}"
    tidy(svg)


def test_a_transformer_is_described_in_full(mixed: Path) -> None:
    text = draw_architecture(str(mixed))
    labels = texts(mixed / "architecture.svg")
    # 16 wide: queries and output 4 x 8, keys and values 2 x 8 and 1 x 8; the second has a gate and two more norms.
    blocks = {
        "rms norm": 16, "window attention of 4 tokens": 2 * 16 * 32 + 2 * 16 * 16, "feed-forward": 2 * 16 * 32 + 48,
        "linear attention": 3 * 16 * 32 + 2 * 16 * 8 + 16, "layer norm": 32,
        "4 experts, 1 a token": 4 * 2 * 16 * 32 + 16 * 4 + 2 * 16 * 32,
    }  # fmt: skip
    for title, count in blocks.items():
        assert any(pair == (f"{count:,}", title) for pair in itertools.pairwise(labels)), title
    body = " · ".join(labels)
    for fact in (
        f"4 heads {TIMES} 8", "2 key-value heads", "1 key-value head", "rotary positions", "no positions", "gated",
        "causal", "query-key rms norm", "16 → 32 → 16", "silu", "sigmoid router", "capacity 1.25",
        f"balance loss {TIMES} 0.01", "a shared expert", "12 tokens of 7", "7 tokens → 16", f"12 {TIMES} 16",
        f"12 {TIMES} 7", "2,112 of 5,184 parameters active for a token",
    ):  # fmt: skip
        assert fact in body, fact
    order = [label for label in labels if label in blocks or label.startswith("layer ")]
    one = ["layer 1", "rms norm", "window attention of 4 tokens", "rms norm", "feed-forward"]
    two = ["layer 2", "linear attention", "layer norm", "4 experts, 1 a token", "layer norm"]
    assert order == [*one, *two, "rms norm"]
    assert (mixed / "architecture.svg").read_text().count("<circle") == 4
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(l2l.load(mixed / "best"), nnx.Param)))
    assert f"transformer: {total:,} parameters, {total - 3072:,} of them active for a token" in text
    values = {"optimizer": "adamw", "dropout": "0.25", "epochs": "3", "depth": "2", "tied": "no"}
    for name, value in values.items():
        assert (name, value) in itertools.pairwise(labels)
    assert not any(label.startswith("layer1") for label in labels)


OUTLINE = f"""\
parameters  active
                    input      12 tokens of 7
       112     112  embedding  7 tokens → 16
     2,640   2,640  layer 1    rms norm, window attention of 4 tokens (4 heads {TIMES} 8, 2 key-value heads, \
rotary positions, causal), rms norm, feed-forward (16 → 32 → 16, silu)
     7,056   3,984  layer 2    linear attention (4 heads {TIMES} 8, 1 key-value head, no positions, \
query-key rms norm, gated, causal), layer norm, 4 experts, 1 a token (16 → 32 → 16, silu, sigmoid router, \
capacity 1.25, balance loss {TIMES} 0.01, a shared expert), layer norm
        16      16  rms norm
       119     119  head       linear (16 → 7)
                    logits     12 {TIMES} 7
transformer: 9,943 parameters, 6,871 of them active for a token
"""


def test_the_outline_of_a_transformer_is_the_golden_one(mixed: Path, tmp_path: Path) -> None:
    text = draw_architecture(str(mixed), str(tmp_path / "picture.svg"))
    assert text == f"{OUTLINE}picture: {tmp_path / 'picture.svg'}"


def test_the_same_bytes_beside_a_module_that_still_loads(mixed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixed / "best", tmp_path / "front" / "0003"))
    draw_architecture(str(folder))
    first = (folder / "architecture.svg").read_bytes()
    draw_architecture(str(mixed), str(tmp_path / "other.svg"))
    assert first == (tmp_path / "other.svg").read_bytes()
    assert ET.fromstring(first)[0].text == f"transformer: {texts(tmp_path / 'other.svg')[1]}"
    l2l.load(folder)


class Strange(nnx.Module):
    """Lists, a dictionary, shared weights, weights of its own and what has none."""

    def __init__(self, depth: int, rngs: nnx.Rngs) -> None:
        self.scale = nnx.Param(np.ones(3, np.float32))
        self.layers = nnx.List([nnx.Linear(64 if n == 0 else 8, 8, rngs=rngs) for n in range(depth)])
        self.body = nnx.Sequential(nnx.Linear(8, 8, rngs=rngs), nnx.relu)
        self.named = nnx.Dict({'<left> & "right"': Inner(rngs)})
        self.again = self.body.layers[0]
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.layers[0](x.reshape(len(x), -1)))


class Inner(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first, self.second = (nnx.Linear(8, 8, rngs=rngs) for _ in range(2))


OWN = SearchSpace(
    {
        "depth": Integer(low=1, high=40),
        "<odd> & \x1bname": Categorical(options=("a<b\x00\x1b[31m", "word " * 30, "x" * 200, None)),
        "learning_rate": Real(low=0.0, high=1.0),
    },
    lambda values, spec: Learner(lambda rngs: Strange(values["depth"], rngs), optax.sgd(0.1)),
    'my <own> "space" & \x1b[31mmore',
)


@pytest.mark.parametrize("odd", range(4))
def test_a_custom_space_with_any_names(odd: int, tmp_path: Path) -> None:
    name = "<odd> & \x1bname"
    depth = 40 if odd == 1 else 2
    values = {"depth": depth, name: OWN.choices[name].value_at(odd / 4), "learning_rate": 0.125}
    save_model(OWN, values, IMAGES, tmp_path / "best")
    text = draw_architecture(str(tmp_path), space=OWN)
    svg = tmp_path / "architecture.svg"
    tidy(svg)
    labels = texts(svg)
    assert labels[0] == 'my <own> "space" & \ufffd[31mmore'
    assert "\x1b" not in text
    assert 'named <left> & "right"  Inner (2 Linear)' in text
    again = next(line for line in text.splitlines() if " again " in line)
    assert " ".join(again.split()) == "again linear (8 → 8, shares weights from above)"
    assert f"layer {depth}linear" in labels
    assert "3" in labels
    assert ("learning rate", "0.125") in itertools.pairwise(labels)
    assert ("depth", str(depth)) in itertools.pairwise(labels)
    total = 3 + 520 + 72 * (depth - 1) + 72 + 144 + 90
    assert f": {total:,} parameters\n" in text


def test_the_command_draws_and_lists(run: Run, mixed: Path, folder: Path) -> None:
    ended = run("show", str(mixed), "out=there.svg")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == f"picture: {folder / 'there.svg'}"
    tidy(folder / "there.svg")
    ended = run("show", "space=mlp", "space.depth=[1,2]", "space.widths=[8,16]", "task=digits")
    assert (ended.code, ended.err) == (0, "")
    assert "layer1..2_width" in ended.out
    # One or two layers of 2 x 4 x 3 x 2, three optimizers, schedules and batch sizes.
    assert ended.out.splitlines()[-2:] == [
        f"candidates: {(48 + 48**2) * 27:,} by the discrete ones",
        "programs: 3 for 1,000 random candidates, as a search of 64 trials pads them",
    ]
    assert "programs:" not in run("show", "space=mlp").out
    ended = run("show", "space=cnn", "task=text", "task.path=there.svg")
    assert (ended.code, ended.out) == (2, "")
    assert [path.name for path in folder.iterdir()] == ["there.svg"]


MINE = """
import optax
from flax import nnx
from l2l.space import Integer, SearchSpace
from l2l.types import Learner


class Net(nnx.Module):
    def __init__(self, width, spec, rngs):
        self.first = nnx.Linear(64, width, rngs=rngs)
        self.head = nnx.Linear(width, spec.outputs, rngs=rngs)

    def __call__(self, x):
        return self.head(self.first(x.reshape(len(x), -1)))


def space(high: int = 4):
    def build(values, spec):
        return Learner(lambda rngs: Net(values["width"], spec, rngs), optax.sgd(0.1))

    return SearchSpace({"width": Integer(low=1, high=high)}, build, "wild")
"""


def test_a_custom_space_is_named_in_the_command(run: Run, folder: Path) -> None:
    (folder / "wild.py").write_text(MINE)
    scope: dict[str, Any] = {}
    exec(MINE, scope)
    save_model(scope["space"](), {"width": 3}, IMAGES, folder / "it" / "best")
    assert refused(run("show", "it/best")).endswith("as in `l2l show it/best space._target_=MODULE.FUNCTION`.")
    (folder / "it" / "config.yaml").write_text("space:\n  _target_: wild.space\n  high: 5\n")
    for folder_name in ("it", "it/best"):
        sentence = refused(run("show", folder_name))
        assert sentence.endswith(f"name it, as in `l2l show {folder_name} space._target_=wild.space space.high=5`.")
    ended = run("show", "it", "space._target_=wild.space", "space.high=5")
    assert ended.code == 0, ended.err
    assert "wild: 235 parameters" in ended.out


def test_one_sentence_for_bad_input(run: Run, mixed: Path, folder: Path) -> None:
    def says(*words: str) -> str:
        return refused(run("show", *words))

    assert "show takes the folder of a run, or a space: l2l show RUN" in says()
    assert "show takes the folder of a run, or a space: l2l show RUN" in says("task=digits")
    assert "nowhere does not exist" in says("nowhere")
    assert "does not exist" in says("long" * 2000)
    (folder / "file").touch()
    assert "file is a file" in says("file")
    (folder / "some").mkdir()
    assert "some is no run folder" in says("some")
    (folder / "some" / "study.db").touch()
    assert "has not ended, so it has no best/: the same call of l2l.search(..., out='some')" in says("some")
    (folder / "some" / "config.yaml").touch()
    assert "has not ended, so it has no best/: `l2l resume some` continues it." in says("some")
    record = SearchRecord(
        space="mixed", task="digits", searcher="random", seed=0, trials=TrialCounts(1), best=None, test=None,
        seconds={}, environment={},
    )  # fmt: skip
    (folder / "some" / "result.json").write_text(json.dumps(record.to_json()))
    assert "exported nothing (final=null)" in says("some")
    exported = replace(record, test=TestScores("accuracy", 0.9, None, None, 0, True))
    (folder / "some" / "result.json").write_text(json.dumps(exported.to_json()))
    assert "has lost its best/: `l2l resume some` writes it again." in says("some")
    (folder / "some" / "best").mkdir()
    assert "some/best holds no found model" in says("some")
    shutil.copytree(mixed / "best", folder / "some" / "best", dirs_exist_ok=True)
    assert "cannot be written" in says("some", "out=no/where.svg")
    assert "cannot be written" in says("some", "out=some")
    assert "the picture is an SVG; choose a name that ends in .svg" in says("some", "out=some.png")
    assert "prints a table and takes no out=" in says("space=mlp", "out=some.svg")
    assert "got out=." in says("some", "out=")
    assert "got other" in says("some", "other")
    with (folder / "some" / "best" / "weights.safetensors").open("ab") as file:
        file.write(b"x")
    assert "is damaged: its SHA-256 differs" in says("some")
    assert "space has no value 'transfomer': did you mean 'transformer'?" in says("space=transfomer")
    assert "space.dept is unknown" in says("space=mlp", "space.dept=[1,2]")
    assert "the key 'spce' is unknown" in says("spce=mlp")
    assert "show takes no -m" in says("space=mlp", "-m")
    assert "space must be a SearchSpace" in says("space._target_=os.getcwd")
    assert "1 <= low <= high" in says("space=mlp", "space.depth=[2,1]")
