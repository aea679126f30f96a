"""Training trials: what is refused before, what fails alone, and what every outcome holds."""

from __future__ import annotations

import json
import math
import pickle
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.engine.limits import Limits
from l2l.engine.population import Population
from l2l.errors import InputError
from l2l.nn.moe import MixtureOfExperts
from l2l.objectives.final import Final
from l2l.objectives.trained import Trained, explain_error
from l2l.reward import Metric, find_best, gate
from l2l.space import Candidate, Categorical, Integer, Real, SearchSpace
from l2l.tasks.digits import Digits
from l2l.types import Learner, Outcome, Spec, Status, Trial
from search_spaces import mlp, transformer

TASK = Digits(epochs=1)
SMALL = mlp.space(depth=(1, 1), widths=(8,), batch_sizes=(128,))


class Net(nnx.Module):
    """A user's model of stock layers; stock dropout needs its rate as a plain number."""

    def __init__(self, rate: Any, spec: Spec, rngs: nnx.Rngs, width: int = 8) -> None:
        self.hidden = nnx.Linear(math.prod(spec.inputs), width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(width, spec.outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.drop(nnx.relu(self.norm(self.hidden(x.reshape(len(x), -1))))))


def build_net(values: Mapping[str, Any], spec: Spec) -> Learner:
    """Builds `Net`, but crashes on rates above a half, which shows only if the rate is a plain number."""

    def model(rngs: nnx.Rngs) -> Net:
        if isinstance(values["rate"], float) and values["rate"] > 0.5:
            raise RuntimeError(f"a rate of {values['rate']} is too much")
        return Net(values["rate"], spec, rngs)

    return Learner(model, optax.adam(values["learning_rate"]), batch_size=128)


def make_space(**choices: Any) -> SearchSpace[Learner]:
    """A user's space."""
    return SearchSpace({"learning_rate": Real(low=1e-9, high=1e30), **choices}, build_net, "custom")


STOCK = make_space(rate=Real(low=0, high=0.9))


def make_trials(candidates: list[Candidate]) -> list[Trial]:
    """One batch and one cohort of running trials."""
    numbers = tuple(range(len(candidates)))
    return [Trial(n, candidate, (0, len(numbers)), numbers) for n, candidate in enumerate(candidates)]


def make_candidate(rate: float, learning_rate: float = 0.01) -> Candidate:
    return STOCK.candidate({"learning_rate": learning_rate, "rate": rate})


def make_space_of(build: Any, **choices: Any) -> SearchSpace[Learner]:
    return SearchSpace(choices or {"only": Categorical(options=(1,))}, build, "custom")


def get_outcome(trial: Trial) -> Outcome:
    assert trial.outcome is not None
    return trial.outcome


@pytest.mark.parametrize("name", ["epochs", "lanes", "latency_batch"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "many"])
def test_bad_arguments(name: str, value: Any) -> None:
    optional = "" if name == "latency_batch" else " or null"
    words = rf"^objective\.{name} must be an integer of at least 1{optional}, got {value!r}\.$"
    with pytest.raises(InputError, match=words):
        Trained(SMALL, TASK, **{name: value})


def test_check_takes_what_can_be_trained() -> None:
    for space in (SMALL, STOCK, mlp.space()):
        Trained(space, TASK).check()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda values, spec: values["width"], r"cannot build the candidate \{'only': 1\}: KeyError: 'width'"),
        (lambda values, spec: None, "cannot build the candidate .*NoneType"),
        (lambda values: None, "cannot build the candidate .*TypeError"),
        (lambda values, spec: Learner(Net, optax.sgd(0.1), 1078), "batch_size of 1078 cannot be taken from the 1077"),
        (lambda values, spec: Learner(Net, optax.sgd(0.1), 0), "batch_size of 0 cannot be taken"),
        (lambda values, spec: Learner(Net, optax.sgd(0.1), 64.0), "batch_size must be an integer .* got 64.0"),
        (
            lambda values, spec: Learner(Net, optax.sgd(0.1), 48, 0.0, 32),
            "batch_size of 48 is no multiple",
        ),
        (
            lambda values, spec: Learner(Net, optax.sgd(0.1), 16, 0.0, 32),
            "batch_size of 16 is no multiple",
        ),
        (lambda values, spec: Learner(Net, optax.sgd(0.1), 16, 0.0, 0), "no multiple of the microbatch 0"),
    ],
)
def test_check_refuses_what_cannot_be_trained(build: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Trained(make_space_of(build), TASK).check()
    assert "\n" not in str(caught.value)


def test_check_lets_a_spaces_own_refusal_through() -> None:
    def build(values: Mapping[str, Any], spec: Spec) -> Learner:
        raise InputError("this space takes images only.")

    with pytest.raises(InputError, match=r"^this space takes images only\.$"):
        Trained(make_space_of(build), TASK).check()


def test_check_sees_every_option() -> None:
    sizes = Categorical(options=(64, 5000, 128))
    with pytest.raises(InputError, match="5000"):
        Trained(
            make_space_of(lambda values, spec: Learner(Net, optax.sgd(0.1), values["size"]), size=sizes), TASK
        ).check()


@pytest.mark.parametrize("forward", [["experts"], ["dense", "experts"], ["dense"]])
def test_check_names_what_experts_measure(forward: list[str]) -> None:
    space = transformer.space(depth=(1, 1), widths=(8,), heads=(1,), head_sizes=(8,), forward=forward)
    of_experts = {"drop_rate", "expert_load_max", "expert_load_min", "router_entropy"}
    metrics = set(Trained(space, TASK).check())
    assert metrics & of_experts == (of_experts if "experts" in forward else set())
    assert {"accuracy", "loss", "train_loss", "parameters"} <= metrics


def test_check_names_what_a_model_of_plain_numbers_measures() -> None:
    def model(rngs: nnx.Rngs, rate: Any) -> nnx.Module:
        return nnx.List([nnx.Dropout(float(rate), rngs=rngs), MixtureOfExperts(4, experts=2, width=4, rngs=rngs)])

    def build(values: Mapping[str, Any], spec: Spec) -> Learner:
        return Learner(lambda rngs: model(rngs, values["rate"]), optax.sgd(0.1))

    assert "drop_rate" in Trained(make_space_of(build, rate=Real(low=0.0, high=0.4)), TASK).check()


def test_a_cost_that_cannot_be_measured_fails_its_own_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fails(*_: Any) -> float:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("no clock")
        return 1e-3

    monkeypatch.setattr("l2l.objectives.trained.measure_latency", fails)
    candidates = [SMALL.sample(random.Random(0)), SMALL.sample(random.Random(0))]
    ended = list(Trained(SMALL, TASK, lanes=2, costs=["latency"])(make_trials(candidates)))
    assert [trial.number for trial in ended] == [0, 1]
    assert get_outcome(ended[0]).metrics["latency"] == 1e-3
    assert get_outcome(ended[1]).error == "crashed: RuntimeError: no clock"


def test_a_users_module_may_have_any_names() -> None:
    class Named(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.stacked = nnx.Linear(64, 10, rngs=rngs)
            self.layers = nnx.List([nnx.Linear(10, 10, rngs=rngs)])

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.layers[0](self.stacked(x.reshape(len(x), -1)))

    space = make_space_of(lambda values, spec: Learner(lambda rngs: Named(rngs), optax.sgd(0.1)))
    (ended,) = Trained(space, TASK)(make_trials([space.sample(random.Random(0))]))
    assert get_outcome(ended).error is None


def test_a_key_is_a_function_of_seed_and_number() -> None:
    words = {
        (seed, number): tuple(np.asarray(jax.random.key_data(Trained(SMALL, TASK, seed=seed).key(number))))
        for seed in (0, 1)
        for number in (0, 1, 2)
    }
    assert len(set(words.values())) == 6
    again = Trained(mlp.space(), Digits(epochs=3), seed=1, lanes=2).key(2)
    assert tuple(np.asarray(jax.random.key_data(again))) == words[1, 2]


@pytest.mark.exact
def test_outcomes() -> None:
    smallest = SMALL.complete(lambda name, choice: choice.value_at(0.0)).values
    fixed = {name: value for name, value in smallest.items() if not isinstance(value, float)}
    candidates = [
        SMALL.complete(lambda name, choice, q=q: fixed.get(name, choice.value_at(q))) for q in (0.2, 0.5, 0.8)
    ]
    objective = Trained(SMALL, TASK, epochs=2)
    results = list(objective(make_trials(candidates)))
    assert [trial.number for trial in results] == [0, 1, 2]
    for trial in results:
        result = get_outcome(trial)
        assert result.error is None
        assert set(result.metrics) == {"accuracy", "loss", "train_loss", "parameters"}
        assert result.metrics["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
        assert {name: len(values) for name, values in result.curve.items()} == dict.fromkeys(result.curve, 2)
        assert {name: values[-1] for name, values in result.curve.items()}.items() <= result.metrics.items()
        assert set(result.seconds) == {"trace", "compile", "train"}
        assert all(value >= 0 for value in result.seconds.values())
        assert all(type(value) is float for value in result.metrics.values())
    assert len({get_outcome(trial).metrics["loss"] for trial in results}) == 3

    # Alone after a crash, in another process: the same bits.
    arrived = pickle.loads(cloudpickle.dumps(objective))
    (again,) = arrived(make_trials(candidates)[1:2])
    assert get_outcome(again).metrics == get_outcome(results[1]).metrics
    assert get_outcome(again).curve == get_outcome(results[1]).curve


def test_a_model_that_needs_plain_numbers_gets_them_and_one_crash_stays_one() -> None:
    candidates = [make_candidate(0.0), make_candidate(0.75), make_candidate(0.5)]
    results = list(Trained(STOCK, TASK)(make_trials(candidates)))
    assert [get_outcome(trial).error for trial in results] == [
        None,
        "crashed: RuntimeError: a rate of 0.75 is too much",
        None,
    ]
    assert get_outcome(results[0]).metrics["loss"] != get_outcome(results[2]).metrics["loss"]
    assert [trial.number for trial in results] == [0, 1, 2]


def test_a_loss_that_is_not_finite_fails_the_trial_with_its_step() -> None:
    (wild,) = Trained(STOCK, TASK)(make_trials([make_candidate(0.0, 1e30)]))
    (calm,) = Trained(STOCK, TASK)(make_trials([make_candidate(0.0)]))
    error = get_outcome(wild).error
    assert error is not None
    assert error.startswith("diverged: the loss was not finite at step ")
    assert 1 < int(error.rsplit(" ", 1)[1]) <= 1077 // 128
    closed = [gate(wild, Metric("accuracy")), gate(replace(calm, number=1), Metric("accuracy"))]
    assert (closed[0].status, closed[0].reward) == (Status.FAILED, None)
    assert find_best(closed) == closed[1]


def test_a_cohort_that_crashes_fails_with_the_reason() -> None:
    def build(values: Mapping[str, Any], spec: Spec) -> Learner:
        return Learner(lambda rngs: nnx.Linear(3, 10, rngs=rngs), optax.sgd(0.1), batch_size=128)

    space = make_space_of(build, rate=Real(low=0, high=1))
    results = list(Trained(space, TASK)(make_trials([space.candidate({"rate": rate}) for rate in (0.1, 0.2)])))
    for trial in results:
        assert str(get_outcome(trial).error).startswith(
            "crashed: TypeError: dot_general requires contracting dimensions"
        )
        assert get_outcome(trial).metrics == {}


@pytest.mark.parametrize("outputs", [3, 11])
def test_logits_of_another_length_fail_the_trial(outputs: int) -> None:
    space = make_space_of(
        lambda values, spec: build_net({"rate": 0.0, "learning_rate": 0.1}, spec._replace(outputs=outputs))
    )
    (result,) = Trained(space, TASK)(make_trials([space.candidate({"only": 1})]))
    assert (
        get_outcome(result).error == f"refused: the model gives logits of shape [128, {outputs}], expected [128, 10]."
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no\nmore"), "crashed: ValueError: no"),
        (ValueError(), "crashed: ValueError: "),
        (MemoryError("gone"), "out of memory: gone"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB"), "out of memory: RESOURCE_EXHAUSTED: 3 GB"),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), "out of memory: CUDA_ERROR_OUT_OF_MEMORY"),
        (InputError("too large."), "refused: too large."),
    ],
)
def test_reasons_are_one_line(error: Exception, words: str) -> None:
    assert explain_error(error) == words


def make_trial(number: int, stop_epoch: int | None, cohort: tuple[int, ...], candidate: Candidate) -> Trial:
    return Trial(number, candidate, (0, 6), cohort, stop_epoch=stop_epoch)


@pytest.mark.exact
def test_survivors_of_several_cohorts_share_calls_and_keep_their_bits(tmp_path: Path) -> None:
    space = mlp.space(depth=(1, 2), widths=(8,), batch_sizes=(128,), optimizers=("adamw",), normalisations=("none",))
    rng = random.Random(1)
    candidates = [space.sample(rng) for _ in range(40)]
    kinds = {json.dumps(space.select_static(candidate)): candidate for candidate in candidates}
    first, second = list(kinds.values())[:2]
    alike = [candidate for candidate in candidates if space.select_static(candidate) == space.select_static(first)][:3]
    cohorts = [(0, 1, 2), (3, 4, 5)]
    members = [*alike, *([second] * 3)]
    objective = Trained(space, Digits(epochs=3), lanes=4)
    batch = [make_trial(n, None, cohorts[n // 3], candidate) for n, candidate in enumerate(members)]
    whole = {trial.number: get_outcome(trial) for trial in objective(batch)}

    staged = objective.with_checkpoints(tmp_path / "rungs")
    begun = list(staged([replace(trial, stop_epoch=1) for trial in batch]))
    assert [len(get_outcome(trial).curve["loss"]) for trial in begun] == [1] * 6
    staged.retain([0, 2, 4])
    assert sorted(path.name for path in (tmp_path / "rungs").iterdir()) == ["0-1", "2-1", "4-1"]
    # One is lost and one is torn: they begin anew, to the same bits.
    calls = list[tuple[int, int]]()
    train = staged.population.train

    def count_calls(members: Any, bucket: Any, lanes: int, part: Any) -> Any:
        calls.append((len(members), part.begin))
        return train(members, bucket, lanes, part)

    staged.population.train = count_calls  # pyright: ignore
    left = [replace(trial, stop_epoch=2) for trial in batch if trial.number in (0, 2, 4)]
    middle = {trial.number: get_outcome(trial) for trial in staged(left)}
    assert staged._name_program(batch[0], 4) == staged._name_program(batch[4], 4)
    assert calls == [(3, 1)]
    (tmp_path / "rungs" / "2-2").unlink()
    torn = tmp_path / "rungs" / "4-2"
    torn.write_bytes(torn.read_bytes()[:-1])
    arrived = pickle.loads(cloudpickle.dumps(staged))
    ended = {trial.number: get_outcome(trial) for trial in arrived([replace(trial, stop_epoch=None) for trial in left])}
    for number in (0, 2, 4):
        for part in (middle, ended):
            curve, length = part[number].curve, 2 if part is middle else 3
            assert curve == {name: values[:length] for name, values in whole[number].curve.items()}
        assert ended[number].metrics == whole[number].metrics


def make_wide_space(high: int) -> SearchSpace[Learner]:
    """A user's space of one layer whose width is up to `high`."""

    def build(values: Mapping[str, Any], spec: Spec) -> Learner:
        return Learner(lambda rngs: Net(0.0, spec, rngs, values["width"]), optax.sgd(0.1), batch_size=128)

    return make_space_of(build, width=Integer(low=8, high=high), traced=Real(low=0, high=1))


def test_beyond_a_limit_a_candidate_is_refused_and_its_companions_train() -> None:
    space = make_wide_space(10**13)
    candidates = [space.candidate({"width": width, "traced": 0.0}) for width in (8, 10**13, 16)]
    results = list(Trained(space, TASK, limits=Limits(parameters=1000))(make_trials(candidates)))
    wide = 64 * 16 + 16 + 2 * 16 + 10 * 16 + 10
    assert [get_outcome(trial).error for trial in results] == [
        None,
        "refused: 7.7e+14 parameters, objective.limits.parameters is 1000",
        f"refused: {wide} parameters, objective.limits.parameters is 1000",
    ]
    (unlimited,) = Trained(space, TASK)(make_trials(candidates)[1:2])
    # Weights and gradients, two statistics, and what goes into and comes out of two layers for 128 examples.
    bytes_needed = 10**13 * (2 * 4 * 77 + 2 * 4 + 4 * 128 * 2)
    assert str(get_outcome(unlimited).error).startswith(f"refused: {bytes_needed:.6g} bytes, the machine has ")
    closed = gate(results[1], Metric("accuracy"))
    assert (closed.status, closed.reward) == (Status.FAILED, None)


def test_limits_as_a_configuration_has_them() -> None:
    limits: Any = {"parameters": 1000, "flops": None}
    assert Trained(SMALL, TASK, limits=limits) == Trained(SMALL, TASK, limits=Limits(parameters=1000))
    for wrong in (None, 3):
        with pytest.raises(InputError, match=rf"^objective\.limits must be given as .*, got {wrong}\.$"):
            Trained(SMALL, TASK, limits=wrong)  # pyright: ignore[reportArgumentType]


def limit_memory(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """Memory runs out beyond `room` lanes; the lanes of every program that was tried."""
    tried: list[int] = []
    train = Population.train

    def run_short(self: Population, members: Any, bucket: Any, lanes: int, part: Any) -> Any:
        tried.append(lanes)
        if lanes > room:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
        return train(self, members, bucket, lanes, part)

    monkeypatch.setattr(Population, "train", run_short)
    return tried


@pytest.mark.exact
def test_when_memory_runs_out_half_the_lanes_are_tried_and_the_final_run_has_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = limit_memory(monkeypatch, 2)
    space = make_space(width=Categorical(options=(8,)))
    space = replace(space, build=lambda values, spec: build_net({**values, "rate": 0.0}, spec))
    candidates = [space.candidate({"learning_rate": rate, "width": 8}) for rate in (0.01, 0.02, 0.03, 0.04, 0.05)]
    batch = make_trials(candidates)
    results = list(Trained(space, TASK, lanes=8)(batch))
    assert tried == [8, 4, 2, 2, 1]
    assert [get_outcome(trial).error for trial in results] == [None] * 5
    assert [trial.cohort for trial in results] == [(0, 1), (0, 1), (2, 3), (2, 3), (4,)]

    # What is left after a crash ends in the same program, with the same bits.
    (again,) = Trained(space, TASK, lanes=8)(batch[3:4])
    assert (again.cohort, get_outcome(again).metrics) == (results[3].cohort, get_outcome(results[3]).metrics)

    tried.clear()
    closed = gate(results[3], Metric("accuracy"))
    (ended,) = Final(Trained(space, TASK, lanes=8), tmp_path / "best", seeds=1)([closed])
    assert tried == [2]
    assert get_outcome(ended).metrics["validation"] == get_outcome(results[3]).metrics["accuracy"]


def test_a_trial_that_has_no_room_alone_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limit_memory(monkeypatch, 0)
    same = [make_candidate(0.0, rate) for rate in (0.01, 0.02)]
    results = list(Trained(STOCK, TASK, lanes=2)(make_trials(same)))
    assert tried == [2, 1, 1]
    words = "out of memory: RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes."
    assert [get_outcome(trial).error for trial in results] == [words] * 2


@pytest.mark.exact
def test_a_companion_that_crashes_changes_nobodys_program() -> None:
    def build(values: Mapping[str, Any], spec: Spec) -> Learner:
        def model(rngs: nnx.Rngs) -> Net:
            # Known where the weights are initialised, unknown where the program is traced.
            if not isinstance(values["rate"], jax.core.Tracer) and values["rate"] > 0.5:
                raise RuntimeError("too much")
            return Net(0.0, spec, rngs)

        return Learner(model, optax.adam(0.01), batch_size=128)

    space = make_space_of(build, rate=Real(low=0, high=1))
    batch = make_trials([space.candidate({"rate": rate}) for rate in (0.1, 0.9, 0.3)])
    results = list(Trained(space, TASK, lanes=4)(batch))
    assert [get_outcome(trial).error for trial in results] == [None, "crashed: RuntimeError: too much", None]
    assert [trial.cohort for trial in results] == [(0, 1, 2), (1,), (0, 1, 2)]
    (again,) = Trained(space, TASK, lanes=4)(batch[2:])
    assert get_outcome(again).metrics == get_outcome(results[2]).metrics


def test_a_buckets_name_is_the_same_for_what_it_pads_and_goes_along_to_a_worker() -> None:
    space = mlp.space(depth=(1, 2), widths=(8, 16), batch_sizes=(128,), optimizers=("adamw", "sgd"))
    objective = Trained(space, Digits(epochs=1))
    rng = random.Random(0)
    candidates = [space.sample(rng) for _ in range(12)]
    assert len({json.dumps(space.select_static(candidate)) for candidate in candidates}) > 4
    assert len({objective.name_bucket(candidate) for candidate in candidates}) == 1
    arrived = pickle.loads(cloudpickle.dumps(objective))
    assert arrived._plan == objective._plan == arrived.population.plan
    assert {arrived.population.bucket(candidate).name for candidate in candidates} == {
        objective.name_bucket(candidates[0])
    }
