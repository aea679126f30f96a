"""`l2l show`: the picture and the outline of what was found, and a space as a table."""

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
from hypothesis import given
from hypothesis import strategies as st

import l2l
from l2l.engine.cost import measure_cost
from l2l.engine.data import add_preprocessing
from l2l.export.module import save
from l2l.show import architecture
from l2l.show.space_listing import listing
from l2l.show.summary import TIMES, outline
from l2l.show.svg import wide
from l2l.space import Categorical, Choice, Integer, Real, SearchSpace, options
from l2l.types import Learner, Spec

IMAGES, TEXT, ROWS = Spec((8, 8, 1), 10, 1257, 5), Spec((12,), 7, 1000, 3, 7, (12,)), Spec((5,), 3, 100, 2)
RECIPE = {
    "optimizer": "adamw", "adamw_learning_rate": 2e-3, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.1,
    "batch_size": 32, "dropout": 0.25, "label_smoothing": 0.0,
}  # fmt: skip
NAMES = {"mlp": IMAGES, "cnn": IMAGES, "mixed": IMAGES, "transformer": TEXT, "moe": IMAGES, "attention": ROWS}


def found(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, folder: Path) -> nnx.Module:
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
    found(space, space.candidate(values).values, TEXT, run / "best")
    return run


def texts(path: Path) -> list[str]:
    """What a picture says, text by text."""
    return ["".join(each.itertext()) for each in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def tidy(path: Path) -> None:
    """No text reaches another, nor beyond the picture; boxes lie within each other or apart."""
    root = ET.parse(path).getroot()
    spans: list[tuple[float, float, float]] = []
    for each in root.iter("{http://www.w3.org/2000/svg}text"):
        size, x, y = (float(each.attrib[name]) for name in ("font-size", "x", "y"))
        bold = "font-weight" in each.attrib
        inner = [wide(part.text or "", size, True) + 8 for part in each]
        long = wide(each.text or "", size, bold) + sum(inner)
        left = x - long if each.get("text-anchor") == "end" else x
        assert left >= 0
        assert left + long <= float(root.attrib["width"])
        assert size <= y <= float(root.attrib["height"]) - 4
        spans.append((left, left + long, y))
    for one, other in itertools.combinations(spans, 2):
        assert abs(one[2] - other[2]) >= 11 or one[1] <= other[0] or other[1] <= one[0], (one, other)
    keys = ("x", "y", "width", "height")
    frames = [[float(each.get(key, 0)) for key in keys] for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    for (ax, ay, aw, ah), (bx, by, bw, bh) in itertools.combinations(frames, 2):
        apart = ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
        assert apart or (ax <= bx and ay <= by and bx + bw <= ax + aw and by + bh <= ay + ah)


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_space_is_drawn(name: str, tmp_path: Path) -> None:
    more = {"experts": (4,)} if name == "moe" else {}
    space, spec = importlib.import_module(f"search_spaces.{name}").space(depth=(3, 3), **more), NAMES[name]
    draw = random.Random(5)
    values = space.complete(lambda _, choice: choice.value_at(draw.random())).values
    model = found(space, values, spec, tmp_path / "best")
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    size = measure_cost(space, values, spec)
    boxes = outline(model, spec)
    assert sum(box.parameters for box in boxes) == total == size.parameters
    assert abs(sum(box.parameters - box.idle for box in boxes) - size.active_parameters) <= 3
    told = architecture.architecture(str(tmp_path))
    svg = tmp_path / "architecture.svg"
    drawn = texts(svg)
    assert drawn[0] == name
    assert any(each.startswith(f"{total:,} parameters") for each in drawn)
    lines = told.splitlines()
    for number in range(1, 4):
        (box,) = [box for box in boxes if box.name == f"layer {number}"]
        assert any(each.startswith(f"layer {number}") for each in drawn)
        assert f"{box.parameters:,}" in drawn
        assert [line.split()[0] for line in lines if f"  layer {number}  " in line] == [f"{box.parameters:,}"]
        assert all(leaf.title in told for leaf in box.leaves())
    assert {"optimizer", values["optimizer"], "learning rate", "batch size", str(values["batch_size"])} <= set(drawn)
    assert ("learning rate", f"{values[values['optimizer'] + '_learning_rate']:.3g}") in itertools.pairwise(drawn)
    assert lines[-2].startswith(f"{name}: {total:,} parameters")
    assert lines[-1] == f"picture: {svg}"
    tidy(svg)


def test_a_transformer_is_told_in_full(mixed: Path) -> None:
    told = architecture.architecture(str(mixed))
    drawn = texts(mixed / "architecture.svg")
    # 16 wide: queries and output 4 x 8, keys and values 2 x 8 and 1 x 8; the second has a gate and two more norms.
    blocks = {
        "rms norm": 16, "window attention of 4 tokens": 2 * 16 * 32 + 2 * 16 * 16, "feed-forward": 2 * 16 * 32 + 48,
        "linear attention": 3 * 16 * 32 + 2 * 16 * 8 + 16, "layer norm": 32,
        "4 experts, 1 a token": 4 * 2 * 16 * 32 + 16 * 4 + 2 * 16 * 32,
    }  # fmt: skip
    for title, count in blocks.items():
        assert any(pair == (f"{count:,}", title) for pair in itertools.pairwise(drawn)), title
    body = " · ".join(drawn)
    for fact in (
        f"4 heads {TIMES} 8", "2 key-value heads", "1 key-value head", "rotary positions", "no positions", "gated",
        "causal", "query-key rms norm", "16 → 32 → 16", "silu", "sigmoid router", "capacity 1.25",
        f"balance loss {TIMES} 0.01", "a shared expert", "12 symbols of 7", "7 symbols → 16", f"12 {TIMES} 16",
        f"12 {TIMES} 7", "2,112 of 5,184 parameters active for a token",
    ):  # fmt: skip
        assert fact in body, fact
    order = [each for each in drawn if each in blocks or each.startswith("layer ")]
    one = ["layer 1", "rms norm", "window attention of 4 tokens", "rms norm", "feed-forward"]
    two = ["layer 2", "linear attention", "layer norm", "4 experts, 1 a token", "layer norm"]
    assert order == [*one, *two, "rms norm"]
    assert (mixed / "architecture.svg").read_text().count("<circle") == 4
    total = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(l2l.load(mixed / "best"), nnx.Param)))
    assert f"transformer: {total:,} parameters, {total - 3072:,} of them active for a token" in told
    values = {"optimizer": "adamw", "dropout": "0.25", "epochs": "3", "depth": "2", "tied": "no"}
    for name, value in values.items():
        assert (name, value) in itertools.pairwise(drawn)
    assert not any(each.startswith("layer1") for each in drawn)


def test_the_same_bytes_beside_a_module_that_still_loads(mixed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(mixed / "best", tmp_path / "front" / "0003"))
    architecture.architecture(str(folder))
    first = (folder / "architecture.svg").read_bytes()
    architecture.architecture(str(mixed), str(tmp_path / "other.svg"))
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
def test_a_space_of_ones_own_with_any_names(odd: int, tmp_path: Path) -> None:
    name = "<odd> & \x1bname"
    depth = 40 if odd == 1 else 2
    values = {"depth": depth, name: OWN.choices[name].value_at(odd / 4), "learning_rate": 0.125}
    found(OWN, values, IMAGES, tmp_path / "best")
    told = architecture.architecture(str(tmp_path), space=OWN)
    svg = tmp_path / "architecture.svg"
    tidy(svg)
    drawn = texts(svg)
    assert drawn[0] == 'my <own> "space" & \ufffd[31mmore'
    assert "\x1b" not in told
    assert 'named <left> & "right"  Inner (2 Linear)' in told
    again = next(line for line in told.splitlines() if " again " in line)
    assert " ".join(again.split()) == "again linear (8 → 8, shares weights from above)"
    assert f"layer {depth}linear" in drawn
    assert "3" in drawn
    assert ("learning rate", "0.125") in itertools.pairwise(drawn)
    assert ("depth", str(depth)) in itertools.pairwise(drawn)
    total = 3 + 520 + 72 * (depth - 1) + 72 + 144 + 90
    assert f": {total:,} parameters\n" in told


CHOICES: dict[str, Choice] = {
    "a": Categorical(options=(1, True, "1")),
    "b": Integer(low=0, high=4, step=2, when={"a": (1, "1")}),
    "c": Categorical(options=("x", "y"), when={"b": (2, 4)}),
    "r": Real(low=0.0, high=1.0, when={"c": "x"}),
    "d": Categorical(options=(None, 2), when={"a": True}),
}


some = st.sampled_from


@given(
    a=st.lists(some((1, True, "1")), min_size=1), b=st.lists(some((0, 2, 4)), min_size=1),
    c=some(("x", "y", ("x", "y"))), d=some(({"a": True}, {"b": 4, "c": "y"}, {})),
)  # fmt: skip
def test_discrete_candidates_are_counted_one_by_one(a: Any, b: Any, c: Any, d: Any) -> None:
    asked = {"b": {"a": a}, "c": {"b": b}, "r": {"c": c}, "d": d}
    space = SearchSpace(
        {name: replace(each, when=asked.get(name, {})) for name, each in CHOICES.items()}, lambda values, spec: None
    )
    every = [(0.5,) if isinstance(each, Real) else options(each) for each in space.choices.values()]
    keys: set[str] = set()
    for row in itertools.product(*every):
        given = dict(zip(space.choices, row, strict=True))
        keys.add(space.complete(lambda name, _, given=given: given[name]).key)
    assert space.count(discrete=True) == len(keys)


def test_layers_that_repeat_are_listed_once() -> None:
    transformer = importlib.import_module("search_spaces.transformer")
    lines = listing(transformer.space(depth=(2, 60))).splitlines()
    rows = [line.split("  ")[0] for line in lines]
    assert rows.count("layer1..60_heads") == 1
    assert len(lines) < 50
    (window,) = [line for line in lines if line.startswith("layer1..60_window")]
    assert " ".join(window.split()) == "layer1..60_window 4, 8 layer1..60_attention = window shared, traced"
    (heads,) = [line for line in lines if line.startswith("layer1..60_heads")]
    assert "depth >= 1..60" in heads
    assert "padded as heads" in heads
    # A balance weight each; two learning rates, weight decay, warm-up, dropout and label smoothing.
    assert f"transformer: {1 + 60 * 20 + 3 + 9} choices, 66 of them continuous" in lines
    assert lines[-1].endswith("e+339 by the discrete ones")


def test_what_differs_is_listed_apart() -> None:
    text = listing(importlib.import_module("search_spaces.cnn").space(depth=(1, 3)))
    rows = {line.split()[0]: line for line in text.splitlines() if line}
    assert "none, max, average" in rows["layer2..3_pooling"]
    assert "max, average" in rows["layer1_pooling"]
    assert "one for each" in rows["layer1_pooling"]
    assert "shared, repeats" in rows["depth"]
    assert "0.0003 to 0.01, logarithmic" in rows["adamw_learning_rate"]
    assert "optimizer = adamw" in rows["adamw_learning_rate"]
    small = SearchSpace({**CHOICES, "many": Categorical(options=tuple(range(99)))}, lambda values, spec: None, "s\x1b")
    told = listing(small)
    assert "8, 9, ... (99 in" in told
    assert "0 to 4, every 2" in told
    assert "b = 2 or 4" in told
    assert "\x1b" not in told
    # a is True: 2; else b, and of two of its three values c: 2 * (1 + 2 * 2); each 99 times.
    assert told.splitlines()[-2:] == [
        "s\ufffd: 6 choices, 1 of them continuous",
        "candidates: 1,188 by the discrete ones",
    ]


def test_the_command_draws_and_lists(run: Run, mixed: Path, folder: Path) -> None:
    ended = run("show", str(mixed), "out=there.svg")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == f"picture: {folder / 'there.svg'}"
    tidy(folder / "there.svg")
    ended = run("show", "space=mlp", "space.depth=[1,2]", "space.widths=[8,16]", "task=digits")
    assert (ended.code, ended.err) == (0, "")
    assert "layer1..2_width" in ended.out
    # One or two layers of 2 x 4 x 3 x 2, three optimizers, schedules and batch sizes.
    assert ended.out.endswith(f"candidates: {(48 + 48**2) * 27:,} by the discrete ones\n")
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


def test_a_space_of_ones_own_is_named_in_the_command(run: Run, folder: Path) -> None:
    (folder / "wild.py").write_text(MINE)
    scope: dict[str, Any] = {}
    exec(MINE, scope)
    found(scope["space"](), {"width": 3}, IMAGES, folder / "it" / "best")
    assert refused(run("show", "it/best")).endswith("as in `l2l show it/best space._target_=MODULE.FUNCTION`.")
    (folder / "it" / "config.yaml").write_text("space:\n  _target_: wild.space\n  high: 5\n")
    for place in ("it", "it/best"):
        said = refused(run("show", place))
        assert said.endswith(f"name it, as in `l2l show {place} space._target_=wild.space space.high=5`.")
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
    (folder / "some" / "result.json").write_text(json.dumps({"test": None}))
    assert "handed nothing over (final=null)" in says("some")
    (folder / "some" / "result.json").write_text(json.dumps({"test": {}}))
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
