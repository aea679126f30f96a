"""What every space of models must do, as tests: subclass `SpaceContract` in a test file and name the space."""

from __future__ import annotations

import abc
import functools
import json
import pickle
import random
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from l2l.engine.bucket import (
    Bucket,
    TrackedValues,
    list_padded_sizes,
    make_lane_data,
    make_program_values,
    make_shared_bucket,
    make_unpadded_bucket,
)
from l2l.engine.evaluate import evaluate
from l2l.engine.population import Population
from l2l.engine.size_levels import ProgramPlan
from l2l.space import Candidate, SearchSpace
from l2l.tasks.classification import Classification
from l2l.types import Learner, Spec, Split


class Noise(Classification):
    """Random examples of a task's shape, numbers or tokens, with targets that a model can learn."""

    name, metric, normalise = "noise", "accuracy", False

    def __init__(self, spec: Spec) -> None:
        self.spec, self.outputs, self.epochs = spec, spec.outputs, spec.epochs

    @property
    def vocabulary(self) -> Sequence[int]:
        """As many as the specification says."""
        return range(self.spec.tokens)

    def check(self) -> None:
        """There is nothing to miss."""

    def load(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """As many training examples as the specification says, and 32 of each other split."""
        rng = np.random.default_rng(["train", "validation", "test"].index(split))
        shape = (self.spec.examples if split == "train" else 32, *self.spec.inputs)
        if self.spec.tokens:
            x = rng.integers(0, self.spec.tokens, shape).astype(np.int32)
            return x, ((x if self.spec.targets else x.sum(1)) + 1) % self.spec.outputs
        x = rng.normal(size=shape).astype(np.float32)
        return x, (np.abs(x.reshape(len(x), -1).sum(1)) * 3).astype(np.int64) % self.spec.outputs


class SpaceContract(abc.ABC):
    """What a space owes the engine. Set `traces = False` for one whose `build` needs plain numbers."""

    traces = True
    """Whether `build` takes its traced values as arrays, so that candidates can share a program."""
    spec = Spec(inputs=(8, 8, 1), outputs=10, examples=512, epochs=2)
    """What the task asks of the models."""
    _population: ClassVar[Population]
    drift = 1e-4
    """How far rounding may lead a training loss away, as a share of it."""

    @abc.abstractmethod
    def space(self) -> SearchSpace[Learner]:
        """The space under test."""

    def list_programs(self) -> list[Candidate]:
        """Candidates in which every option appears, one for each choice of static values."""
        space = self.space()
        return list({json.dumps(space.select_static(candidate)): candidate for candidate in space.cover()}.values())

    def sample_candidates(self, count: int = 2) -> list[Candidate]:
        """Random candidates, for tests that take seconds each."""
        return [self.space().sample(random.Random(seed)) for seed in range(count)]

    def make_model(self, learner: Learner, seed: int = 0) -> Any:
        """The untrained model, in training mode."""
        model = learner.model(nnx.Rngs(seed, params=seed, dropout=seed + 1))
        model.train()
        return model

    def infer_logits(self, values: Mapping[str, Any]) -> list[Any]:
        """Shapes of two examples' logits, in training and in evaluation, found without any arithmetic."""

        def run(x: Any) -> list[Any]:
            model = self.make_model(self.space().build(values, self.spec))
            trained = model(x)
            model.eval()
            return [trained, model(x)]

        return nnx.eval_shape(run, self.inputs)

    @property
    def inputs(self) -> Any:
        """The shape and dtype of two examples as a model gets them."""
        return jax.ShapeDtypeStruct((2, *self.spec.inputs), jnp.int32 if self.spec.tokens else jnp.float32)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of their logits."""
        return (2, *self.spec.targets, self.spec.outputs)

    def test_candidates_are_data(self) -> None:
        space = self.space()
        for candidate in [*space.cover(), *self.sample_candidates(20)]:
            stored = json.loads(json.dumps(dict(candidate.values), allow_nan=False))
            assert space.candidate(stored) == candidate

    def test_every_option_gives_logits_and_every_value_is_used(self) -> None:
        for candidate in self.list_programs():
            values = TrackedValues(candidate.values)
            with note_candidate(candidate):
                for logits in self.infer_logits(values):
                    assert logits.shape == self.outputs
                    assert jnp.issubdtype(logits.dtype, jnp.floating)
                assert values.read == set(candidate.values)

    def test_batches_fit_the_training_split(self) -> None:
        for candidate in self.list_programs():
            with note_candidate(candidate):
                size = self.space().build(candidate.values, self.spec).batch_size
                assert type(size) is int
                assert 1 <= size <= self.spec.examples

    def test_traced_values_may_be_arrays(self) -> None:
        if not self.traces:
            pytest.skip("needs plain numbers")
        space = self.space()

        def run(bucket: Bucket, data: Mapping[str, Any], x: Any) -> Any:
            learner = space.build(make_program_values(space, bucket, data), self.spec)
            model = self.make_model(learner)
            weights = nnx.state(model, nnx.Param)
            updates = learner.optimizer.update(weights, learner.optimizer.init(weights), weights)
            return model(x), updates, jnp.asarray(learner.label_smoothing)

        largest = {name: sizes[-1:] for name, sizes in list_padded_sizes(space).items()}
        for candidate in self.list_programs():
            for bucket in (make_unpadded_bucket(space, candidate), make_shared_bucket(space, candidate, largest)):
                with note_candidate(candidate):
                    data = make_lane_data(space, candidate, bucket)
                    logits, _, smoothing = jax.eval_shape(functools.partial(run, bucket), data, self.inputs)
                    assert (logits.shape, smoothing.shape) == (self.outputs, ())

    def test_padded_and_alone_agree(self) -> None:
        population = self.make_population()
        for number, candidate in enumerate(self.sample_candidates()):
            unpadded, shared = make_unpadded_bucket(population.space, candidate), population.bucket(candidate)
            members = [(candidate, jax.random.key(number))]
            ((alone,), _), ((padded,), _) = (population.train(members, bucket, 1) for bucket in (unpadded, shared))
            with note_candidate(candidate):
                # What rounding changes grows with every step; what a mask lets through is larger by far.
                np.testing.assert_allclose(padded.curve["train_loss"], alone.curve["train_loss"], rtol=self.drift)
                # The exported module, in its true shape, scores what the padded program scored.
                scores = evaluate(population.restore_module(candidate, padded), population.task)
                count = population.validation_examples
                assert scores["accuracy"] == pytest.approx(float(padded.curve["accuracy"][-1]) / count)
                assert scores["loss"] == pytest.approx(float(padded.curve["loss"][-1]) / count, rel=1e-5)

    def test_candidates_of_one_program_do_not_see_each_other(self) -> None:
        population = self.make_population()
        candidates = [population.space.sample(random.Random(seed)) for seed in range(200)]
        bucket = population.bucket(candidates[0])
        neighbours = [candidate for candidate in candidates if population.bucket(candidate).name == bucket.name]
        members = [(candidate, jax.random.key(3)) for candidate in neighbours[:3]]
        together, _ = population.train(members, bucket, 4)
        reversed_fits, _ = population.train(members[::-1], bucket, 4)
        for (candidate, _), one, other in zip(members, together, reversed_fits[::-1], strict=True):
            with note_candidate(candidate):
                assert all(map(np.array_equal, jax.tree.leaves(one.params), jax.tree.leaves(other.params)))
        (alone,), _ = population.train(members[-1:], bucket, 1)
        with note_candidate(members[-1][0]):
            np.testing.assert_allclose(together[-1].curve["train_loss"], alone.curve["train_loss"], rtol=self.drift)

    def make_population(self) -> Population:
        """A population on noise, with everything padded to the largest size; one for all tests of a class."""
        if not self.traces:
            pytest.skip("needs plain numbers")
        if "_population" not in vars(type(self)):  # compiled programs are kept in it
            space = self.space()
            levels = {name: sizes[-1:] for name, sizes in list_padded_sizes(space).items()}
            type(self)._population = Population(space, Noise(self.spec), self.spec.epochs, plan=ProgramPlan(levels))
        return type(self)._population

    def test_first_weights_are_a_function_of_the_key(self) -> None:
        for candidate in self.sample_candidates():
            learner = self.space().build(candidate.values, self.spec)
            first, again, other = (
                jax.tree.leaves(nnx.state(self.make_model(learner, seed), nnx.Param)) for seed in (0, 0, 1)
            )
            with note_candidate(candidate):
                assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
                assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))

    def test_a_step_changes_weights_and_keeps_them_finite(self) -> None:
        for candidate in self.sample_candidates():
            learner = self.space().build(candidate.values, self.spec)
            graph, weights, rest = nnx.split(self.make_model(learner), nnx.Param, ...)
            with note_candidate(candidate):
                value, after = jax.jit(functools.partial(self.take_step, learner, graph))(weights, rest)
                assert np.isfinite(value)
                pairs = list(zip(jax.tree.leaves(weights), jax.tree.leaves(after), strict=True))
                assert any(not np.array_equal(a, b) for a, b in pairs)
                assert all(np.isfinite(b).all() for _, b in pairs)

    def take_step(self, learner: Learner, graph: Any, weights: Any, rest: Any) -> Any:
        """Loss and weights of one step on 16 examples of noise."""
        x, y = (jnp.asarray(array[:16]) for array in Noise(self.spec._replace(examples=16)).load("train"))

        def loss(weights: Any) -> Any:
            logits = nnx.merge(graph, weights, rest, copy=True)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        value, gradient = jax.value_and_grad(loss)(weights)
        updates, _ = learner.optimizer.update(gradient, learner.optimizer.init(weights), weights)
        return value, optax.apply_updates(weights, updates)

    def test_travels_to_worker_processes(self) -> None:
        space = self.space()
        arrived = pickle.loads(cloudpickle.dumps(space))
        assert (arrived.name, arrived.describe()) == (space.name, space.describe())
        assert callable(arrived.build(self.sample_candidates(1)[0].values, self.spec).model)


@contextmanager
def note_candidate(candidate: Candidate) -> Generator[None]:
    """Adds the candidate to whatever goes wrong inside."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"candidate: {dict(candidate.values)}")
        raise
