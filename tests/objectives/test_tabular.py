"""The tabular objective: tables written here, whole and damaged in every way we know, and NAS-Bench-201 if at hand."""

from __future__ import annotations

import functools
import itertools
import math
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from l2l.api import search
from l2l.encoding import Encoding
from l2l.errors import InputError
from l2l.executors.inline import Inline
from l2l.objectives import benchmark_table as tables
from l2l.objectives.benchmark_table import BenchmarkTable, list_candidates, load_benchmark
from l2l.objectives.final import Final
from l2l.objectives.tabular import Tabular
from l2l.objectives.tabular import benchmark_space as space
from l2l.objectives.trained import Trained
from l2l.reward import Metric
from l2l.run.result import Result
from l2l.searchers.core.compiled_search import run_searches
from l2l.searchers.evolution import Evolution
from l2l.searchers.random_search import Random
from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.store.optuna_store import OptunaStore
from l2l.tasks.digits import Digits
from l2l.tasks.tabular import Lookup
from l2l.testing import make_landscape, write_landscape
from l2l.types import Outcome, Status, Trial

MADE = make_landscape(3, 4, seed=1)


def trials(candidates: Sequence[Candidate]) -> list[Trial]:
    return [Trial(n, candidate, (0, len(candidates)), (n,)) for n, candidate in enumerate(candidates)]


def metrics(objective: Any, candidates: Sequence[Candidate]) -> list[Any]:
    return [(trial.outcome or Outcome()).metrics for trial in objective(trials(candidates))]


def one_sentence(error: InputError) -> bool:
    text = str(error)
    return text.endswith((".", "?")) and ". " not in text and "\n" not in text


@pytest.fixture
def toy(folder: Path) -> Path:
    """A landscape whose rows are shuffled, as those of a benchmark are."""
    order = np.random.RandomState(0).permutation(len(MADE.rewards))
    np.savez("toy.npz", codes=MADE.codes[order], reward=MADE.rewards[order], test=-MADE.rewards[order])
    return folder / "toy.npz"


def objective(path: Path, of: SearchSpace[Any] | None = None, **changed: Any) -> Tabular:
    arguments = {"codes": "codes", "reward": "reward", **changed}
    of = of or space(path, arguments["codes"], arguments.get("names"))
    return Tabular(space=of, task=Lookup(path, "reward"), path=path, **arguments)


def test_every_candidate_has_the_metrics_of_its_row(toy: Path) -> None:
    tabular = objective(toy, report="test")
    assert (
        tabular.space.describe()
        == SearchSpace({f"codes{n}": Categorical(options=(0, 1, 2, 3)) for n in range(3)}, lambda *_: None).describe()
    )
    assert tabular.check() == {"reward", "test"}
    trial_metrics = metrics(tabular, list(list_candidates(tabular.space)))
    assert trial_metrics == [{"reward": value, "test": -value} for value in MADE.rewards.tolist()]
    assert metrics(objective(toy), list(list_candidates(tabular.space))) == [
        {"reward": value} for value in MADE.rewards.tolist()
    ]


def test_rows_follow_the_mixed_radix_of_whole_searches(toy: Path) -> None:
    table = objective(toy).benchmark
    encoding = Encoding(table.space)
    candidates = list(list_candidates(table.space))
    codes, _ = encoding.encode(candidates)
    assert codes.tolist() == MADE.codes.tolist()
    assert isinstance(table.rows, np.ndarray)
    assert table.rows[codes @ [16, 4, 1]].tolist() == table.find_rows(candidates).tolist()
    assert table.rewards[table.find_rows(candidates)].tolist() == MADE.rewards.tolist()
    assert table.best_reward == 1.0 == table.rewards[table.winner]
    keys = jax.vmap(jax.random.key)(np.arange(3))
    rows = run_searches(Evolution(population=8, tournament=4), encoding, table.rows, table.rewards, keys, 48, 4)
    assert rows.shape == (3, 48)
    for row in np.asarray(rows):
        assert len(set(row.tolist())) > 10
        assert table.rewards[row].max() > np.quantile(table.rewards, 0.9)


def test_columns_of_numbers_text_and_names(folder: Path) -> None:
    grid = list(itertools.product([2, 5], ["sgd", "adam"], [0.1, 0.01], [False, True], [1, 0]))
    depth, rule, rate, norm, op = (np.array(column) for column in zip(*grid, strict=True))
    arrays = {"depth": depth, "rule": rule, "rate": rate, "norm": norm, "reward": np.arange(32)}
    np.savez("mixed.npz", **arrays, op=op[:, None].astype(np.uint8), op_names=np.array(["none", "conv", "pool"]))
    choices = space("mixed.npz", "depth,rule, rate,norm").choices
    assert {name: choice.options for name, choice in choices.items() if isinstance(choice, Categorical)} == {
        "depth": (2, 5), "rule": ("adam", "sgd"), "rate": (0.01, 0.1), "norm": (False, True),
    }  # fmt: skip
    assert space("mixed.npz", "op", "op_names").choices == {"op0": Categorical(options=("none", "conv"))}
    np.savez("mixed.npz", **arrays, op=op)
    codes = ["rule", "op", "norm", "depth", "rate"]
    trial_metrics = metrics(objective(Path("mixed.npz"), codes=codes), list(list_candidates(space("mixed.npz", codes))))
    assert sorted(scores["reward"] for scores in trial_metrics) == list(range(32))
    (last,) = metrics(objective(Path("mixed.npz"), codes=codes), [space("mixed.npz", codes).candidate(
        {"rule": "adam", "op": 0, "norm": True, "depth": 5, "rate": 0.01})])  # fmt: skip
    assert last == {"reward": 31.0}


def test_a_users_own_space_may_be_smaller_ordered_otherwise_or_integer(toy: Path) -> None:
    user_space = SearchSpace(
        {
            "codes2": Integer(low=1, high=3, step=2),
            "codes0": Categorical(options=(3, 0)),
            "codes1": Categorical(options=(0.0, 2.0)),
        },
        lambda *_: None,
    )
    tabular = objective(toy, user_space, report="test")
    tabular.check()
    trial_metrics = metrics(tabular, list(list_candidates(user_space)))
    assert len(trial_metrics) == 8
    expected = [MADE.rewards[16 * a + 4 * b + c] for c in (1, 3) for a in (3, 0) for b in (0, 2)]
    assert [scores["reward"] for scores in trial_metrics] == expected
    assert tabular.benchmark.best_reward == max(expected)


def conditional(rewards: Sequence[float] = (5, 6, 7, 8)) -> SearchSpace[Any]:
    """A table of 4 candidates, of which one has no width, and its space."""
    np.savez("some.npz", kind=["none", "conv", "conv", "conv"], width=[-9, 8, 16, 32], reward=rewards)
    return SearchSpace(
        {
            "kind": Categorical(options=("conv", "none")),
            "width": Categorical(options=(8, 16, 32), when={"kind": "conv"}),
        },
        lambda *_: None,
    )


@pytest.mark.parametrize("dense", [True, False])
def test_a_conditional_space(folder: Path, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(tables, "DENSE", 3)
    search_space = conditional()
    tabular = objective(Path("some.npz"), search_space, codes=["kind", "width"])
    assert [scores["reward"] for scores in metrics(tabular, list(list_candidates(search_space)))] == [6, 7, 8, 5]
    if dense:  # whatever a sampler has drawn for the inactive width
        assert tabular.benchmark.rows.tolist() == [1, 2, 3, 0, 0, 0]  # pyright: ignore[reportAttributeAccessIssue]
    else:
        assert tabular.benchmark.rows == {0: 1, 1: 2, 2: 3, 3: 0}
    conditional([math.nan, 1, 2, 3])
    choices = {"kind": Categorical(options=("conv",)), "width": search_space.choices["width"]}
    smaller = SearchSpace(choices, lambda *_: None)
    assert load_benchmark("some.npz", ["kind", "width"], "reward", space=smaller).best_reward == 3


def test_numbers_beyond_64_bits(folder: Path) -> None:
    codes = np.zeros((3, 70), np.int8)
    codes[1, 0] = codes[2, 0] = codes[2, 1] = 1
    np.savez("long.npz", codes=codes, reward=[1, 2, 3])
    switch = {"codes0": Categorical(options=(0, 1)), "codes1": Categorical(options=(0, 1), when={"codes0": 1})}
    others = {f"codes{n}": Categorical(options=(0,)) for n in range(2, 70)}
    search_space = SearchSpace(switch | others, lambda *_: None)
    assert load_benchmark("long.npz", ["codes"], "reward", space=search_space).best_reward == 3
    wide = {f"codes{n}": Categorical(options=(0, 1), when={"codes0": 1}) for n in range(1, 70)}
    more = np.eye(70, dtype=int)
    np.savez("long.npz", codes=np.vstack([codes, more[1:] + more[:1]]), reward=[0.0] * 72)
    with pytest.raises(InputError, match="rows repeat a candidate, first row 3 that of row 2"):
        load_benchmark(
            "long.npz", ["codes"], "reward", space=SearchSpace({"codes0": switch["codes0"]} | wide, lambda *_: None)
        )


def saved(**changed: Any) -> Callable[[Path], None]:
    """Writes the landscape with other columns; None leaves one out."""

    def write_(folder: Path) -> None:
        columns = {"codes": MADE.codes, "reward": MADE.rewards, **changed}
        np.savez(folder / "toy.npz", **{name: column for name, column in columns.items() if column is not None})

    return write_


def spoiled(value: float) -> np.ndarray:
    rewards = MADE.rewards.copy()
    rewards[[9, 7]] = value
    return rewards


def cut(folder: Path) -> None:
    write_landscape(folder / "toy.npz", MADE)
    (folder / "toy.npz").write_bytes((folder / "toy.npz").read_bytes()[:-30])


def garbled(folder: Path) -> None:
    write_landscape(folder / "toy.npz", MADE)
    content = (folder / "toy.npz").read_bytes()
    offset = content.index(b"NUMPY") + 200
    (folder / "toy.npz").write_bytes(content[:offset] + bytes(20) + content[offset + 20 :])


def put(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "toy.npz").write_bytes(content) and None


def single(folder: Path) -> None:
    np.save(folder / "toy.npy", MADE.codes)
    (folder / "toy.npy").rename(folder / "toy.npz")


DAMAGES = {
    "missing": (lambda folder: None, r"there is no tabular benchmark .*toy\.npz; give the path of an .* set L2L_DATA"),
    "empty": (put(b""), r"there is no|is not an \.npz file"),
    "text": (put(b"arch,reward\n1,2\n"), r"toy\.npz is not an \.npz file; write one with numpy\.savez"),
    "pickle": (put(pickle.dumps([1, 2])), "is not an .npz file"),
    "one array": (single, "is not an .npz file"),
    "cut short": (cut, "is not an .npz file"),
    "garbled": (garbled, "the column 'codes' cannot be read"),
    "objects": (saved(codes=np.array([{}] * 64)), r"the column 'codes' cannot be read \(Object arrays"),
    "no codes": (saved(codes=None, code=MADE.codes), "has no column 'codes': did you mean 'code'?"),
    "no reward": (saved(reward=None, rewards=MADE.rewards), "has no column 'reward': did you mean 'rewards'?"),
    "no rows": (saved(codes=MADE.codes[:0]), r"'codes' must be an array .* got int8 of shape \[0, 3\]"),
    "codes of no kind": (saved(codes=MADE.codes + 1j), r"must be an array \[N\] or \[N, D\] of numbers or text, got c"),
    "codes of four axes": (saved(codes=MADE.codes[None]), r"got int8 of shape \[1, 64, 3\]"),
    "codes not finite": (saved(codes=MADE.codes + spoiled(math.inf)[:, None]), "must be finite numbers, got inf"),
    "text for rewards": (saved(reward=MADE.rewards.astype(str)), r"'reward' must be an array \[N\] of numbers, got <U"),
    "rewards of two axes": (saved(reward=MADE.codes), r"'reward' must be .* got int8 of shape \[64, 3\]"),
    "fewer rewards": (saved(reward=MADE.rewards[1:]), "'reward' has 63 rows, where the codes have 64"),
    "nan": (saved(reward=spoiled(math.nan)), r"'reward' has 2 values that are not finite, the first \(nan\) in row 7"),
    "twice": (
        saved(codes=MADE.codes[[*range(64), 5, 5]], reward=np.zeros(66)),
        "2 rows repeat a candidate, first row 64 that of row 5;",
    ),
    "rows missing": (
        saved(codes=np.delete(MADE.codes, [7, 6, 50], 0), reward=np.zeros(61)),
        "no row for 3 of 64 candidates, the first of them {'codes0': 0, 'codes1': 1, 'codes2': 2};",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_table_that_is_none_is_refused(
    folder: Path, damage: Callable[[Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("L2L_DATA", raising=False)
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        objective(folder / "toy.npz").check()
    assert one_sentence(caught.value)


COLUMNS = {
    "unequal": ({"codes": ["codes", "few"]}, "the columns must be equally long, got 'codes' 64, 'few' 2"),
    "one name for two": ({"codes": ["codes", "codes0"]}, "two columns would make the choice 'codes0'"),
    "names of no kind": ({"names": "reward"}, r"'reward' must be an array \[K\] of text, got float64"),
    "too few names": ({"names": "words"}, "the codes of 'codes0' must be indices of 2 names, got 3"),
    "a report of text": ({"report": "words"}, r"'words' must be an array \[N\] of numbers, got <U1"),
    "no such report": ({"report": "tests"}, "has no column 'tests'"),
    "nothing": ({"codes": []}, r"objective.codes must be the name of a column or a list of different ones, got \[\]"),
    "a number": ({"codes": 3}, "objective.codes must be the name of a column"),
    "twice the same": ({"codes": "codes,codes"}, "objective.codes must be"),
    "an empty name": ({"codes": "codes,"}, "objective.codes must be"),
    "a reward that is no name": ({"reward": None}, "objective.reward must be the name of a column, got None"),
    "a report that is no name": ({"report": 3}, "objective.report must be the name of a column, got 3"),
}


@pytest.mark.parametrize(("arguments", "words"), COLUMNS.values(), ids=COLUMNS)
def test_columns_that_do_not_fit_are_named(folder: Path, arguments: dict[str, Any], words: str) -> None:
    saved(few=[1, 2], codes0=MADE.rewards, words=np.array(["a", "b"]))(folder)
    with pytest.raises(InputError, match=words) as caught:
        objective(folder / "toy.npz", **arguments).check()
    assert one_sentence(caught.value)


SPACES: dict[str, tuple[dict[str, Any], str]] = {
    "a choice more": ({"other": Categorical(options=(1,))}, "has no column for the choice 'other' of the space: "),
    "a choice less": ({"codes2": None}, "the space has no choice for the column 'codes2': did you mean"),
    "another option": ({"codes1": Integer(low=2, high=5)}, "'codes1' has the option 4, which .*values are 0, 1"),
    "options of text": ({"codes1": Categorical(options=("0", "1"))}, "has the option '0', which"),
    "a real": ({"codes1": Real(low=0, high=1)}, "'codes1' has too many values for a tabular benchmark"),
    "a long integer": ({"codes1": Integer(low=0, high=99)}, "'codes1' has too many values for a tabular benchmark"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "words"), SPACES.values(), ids=SPACES)
def test_a_space_that_is_not_the_tables_is_refused(toy: Path, changed: dict[str, Any], words: str) -> None:
    choices = {**space(toy, "codes").choices, **changed}
    user_space = SearchSpace({name: choice for name, choice in choices.items() if choice is not None}, lambda *_: None)
    with pytest.raises(InputError, match=words) as caught:
        objective(toy, user_space).check()
    assert one_sentence(caught.value)


def test_a_relative_path_is_also_looked_for_among_the_data(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy.parent / "elsewhere").mkdir()
    monkeypatch.chdir(toy.parent / "elsewhere")
    monkeypatch.setenv("L2L_DATA", str(toy.parent))
    assert len(space("toy.npz", "codes").choices) == 3
    words = rf"no tabular benchmark other\.npz here, nor in L2L_DATA as {toy.parent}/other\.npz; give the path of"
    with pytest.raises(InputError, match=words):
        space("other.npz", "codes")
    with pytest.raises(InputError, match=r"^there is no tabular benchmark /nowhere/other\.npz"):
        Lookup("/nowhere/other.npz", "reward").check()
    with pytest.raises(InputError, match=r"must be the name of an \.npz file, got ''"):
        Lookup("", "reward").check()


def run(path: Path, out: str, **changed: Any) -> Result:
    parts = {
        "space": space(path, "codes"), "task": Lookup(path, "reward"), "searcher": Random(),
        "objective": functools.partial(Tabular, path=path, codes="codes", reward="reward", report="test"),
        "reward": Metric(), "executor": Inline(), "store": OptunaStore("memory"), "tracker": {}, "final": None,
        "trials": 20,
    }  # fmt: skip
    return search(**{**parts, "out": out, **changed})


def test_a_search_in_a_table(toy: Path) -> None:
    ended = run(toy, "run")
    rewards = [trial.reward for trial in ended.trials if trial.status is Status.COMPLETE]
    assert len(rewards) == 20
    assert ended.best.reward == max(reward for reward in rewards if reward)
    best = ended.record.to_json()["best"]
    assert best["metrics"] == {"reward": best["reward"], "test": -best["reward"]}
    assert (ended.record.task, ended.record.space) == ("toy", "tabular")


def test_a_search_in_another_table_is_another_search(toy: Path) -> None:
    run(toy, "run", store=OptunaStore())
    assert len(run(toy, "run", store=OptunaStore(), trials=24).trials) == 24
    saved(test=MADE.rewards)(toy.parent)
    with pytest.raises(InputError, match=r"another study: task\.data "):
        run(toy, "run", store=OptunaStore(), trials=28)


def test_what_a_table_cannot_do_is_refused_at_once(toy: Path) -> None:
    with pytest.raises(InputError, match="trains the winner again, which this objective does not do; give final=null"):
        run(toy, "run", final=Final)
    with pytest.raises(InputError, match=r"there is no metric 'accuracy': expected one of 'reward', 'test'"):
        run(toy, "run", reward=Metric("accuracy"))
    with pytest.raises(InputError, match="looked up and build no model; give objective=tabular"):
        run(toy, "run", objective=Trained, task=Digits())
    with pytest.raises(InputError, match="a tabular benchmark, which nothing can be trained on"):
        Lookup(toy, "reward").score(np.zeros(1), np.zeros(1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"task\.metric must be the name of a column, got ''"):
        Lookup(toy, "")
    assert not Path("run").exists()


def test_it_travels_to_workers_without_its_rows(toy: Path) -> None:
    tabular = objective(toy)
    trial_metrics = metrics(tabular, list(list_candidates(tabular.space)))
    copy: Tabular = pickle.loads(pickle.dumps(Tabular(**{**vars_of(tabular), "space": space(toy, "codes")})))
    assert copy._benchmark is None
    assert metrics(copy, list(list_candidates(tabular.space))) == trial_metrics


def vars_of(tabular: Tabular) -> dict[str, Any]:
    return {name: getattr(tabular, name) for name in ("space", "task", "path", "codes", "reward")}


def test_landscapes_have_one_known_optimum() -> None:
    for ruggedness in (0, 2, 4):
        landscape = make_landscape(5, 3, seed=7, ruggedness=ruggedness)
        codes, rewards = landscape.codes, landscape.rewards
        assert codes.shape == (243, 5)
        assert (rewards.min(), rewards[landscape.best_row], (rewards == 1).sum()) == (0, 1, 1)
        assert codes[landscape.best_row].tolist() == max(zip(rewards, codes.tolist(), strict=True))[1]
        # Without ruggedness every local optimum is the optimum.
        near = (codes[:, None] != codes[None]).sum(-1) == 1
        peaks = (np.where(near, rewards, 0).max(1) < rewards).sum()
        assert (peaks == 1) == (ruggedness == 0)
    assert (make_landscape(seed=3).rewards == make_landscape(seed=3).rewards).all()
    assert not (make_landscape(seed=3).rewards == make_landscape(seed=4).rewards).all()
    for wrong in ({"decisions": 0}, {"options": 1}, {"ruggedness": 6}, {"seed": -1}, {"options": 99}):
        with pytest.raises(InputError):
            make_landscape(**wrong)


DATA = Path(os.environ.get("L2L_DATA", ""), "nasbench201/nasbench201.npz")


@pytest.mark.skipif(
    "L2L_DATA" not in os.environ or not DATA.is_file(),
    reason="set L2L_DATA to a folder with nasbench201/nasbench201.npz",
)
@pytest.mark.parametrize(("data", "best", "row"), [("cifar10", 94.3733, 6111), ("cifar100", 73.5133, 9930)])
def test_nas_bench_201(data: str, best: float, row: int) -> None:
    path = "nasbench201/nasbench201.npz"
    table: BenchmarkTable = load_benchmark(path, ["ops"], f"{data}_test_acc_200ep", f"{data}_val_acc_12ep", "op_names")
    assert (round(table.best_reward, 4), table.winner) == (best, row)
    assert table.space.count() == 15_625 == len(set(np.asarray(table.rows).tolist()))
    assert {len(decision) for decision in table.encoding.decisions} == {5}
    with np.load(DATA) as archive:
        values = {f"ops{n}": str(archive["op_names"][op]) for n, op in enumerate(archive["ops"][4711])}
    assert table.find_rows([table.space.candidate(values)]) == [4711]
