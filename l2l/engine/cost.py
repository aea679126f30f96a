"""What a candidate costs, counted before anything runs: its parameters, memory and operations, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.engine.bucket import Bucket, assemble
from l2l.nn import padded
from l2l.nn.grouped import BLOCK
from l2l.nn.moe import MixtureOfExperts
from l2l.space import SearchSpace
from l2l.types import Learner, Spec


class Size(NamedTuple):
    """What one candidate needs."""

    parameters: int
    """Numbers that are trained."""
    bytes: int
    """Weights, their gradients, optimizer state, other variables, and the activations of one gradient: of every
    matrix product and convolution what goes in on the left and what comes out."""
    flops: float
    """Multiplications and additions of the products that lead one example through the model that is handed over."""
    active_parameters: int = 0
    """Of the parameters, those that one token is computed with: of experts as many as a token is sent to."""
    train_flops: float = 0.0
    """Multiplications and additions of the products of the full training; backwards counts twice."""


def measure(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, share: int = 1) -> Size:
    """What the candidate of these values needs, from shapes alone: nothing is allocated.

    With its batches dealt to `share` devices: what each of them needs.
    """
    training = _training(space, values, spec, share)

    def hand_over(variables: tuple[Any, Any], x: Any) -> None:
        model: Any = nnx.merge(training.graph, *variables)
        model.eval()
        model(x)

    inputs = _inputs(spec, training.batch)
    scored = jax.make_jaxpr(hand_over)((training.params, training.rest), inputs)
    # Of a product's operands the left one is data: layers are written x @ weights.
    activations = sum(
        times * sum(_bytes(each.aval) for each in (equation.invars[0], *equation.outvars))
        for equation, times in products(training.jaxpr)
    )
    weights, others = _total(training.params), _total(training.state) + _total(training.rest)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(training.params))
    return Size(
        parameters, 2 * weights + others + int(activations), count(scored.jaxpr) / training.batch,
        parameters - training.idle, training.operations(spec),
    )  # fmt: skip


class _Training(NamedTuple):
    """A candidate's forward pass as training has it, by shapes."""

    jaxpr: Any
    batch: int
    graph: Any
    params: Any
    rest: Any
    state: Any
    """The optimizer's."""
    idle: int
    """Parameters that a token is not computed with."""

    def operations(self, spec: Spec) -> float:
        """Those of a full training."""
        return 3.0 * count(self.jaxpr) / self.batch * spec.examples * spec.epochs


def _training(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, share: int = 1) -> _Training:
    """Traces the model's making and its forward pass; what a device of `share` does of a batch."""
    learner = space.build(values, spec)
    batch = int(learner.microbatch or learner.batch_size) // share
    made: list[Any] = []

    def forward(x: Any) -> Any:
        with jax.disable_jit():  # an initialiser's inner functions are then not traced one by one, which takes longer
            model: Any = learner.model(nnx.Rngs(0))
        model.train()
        model(x)
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        made.append((graph, idle(model)))
        return params, rest, learner.optimizer.init(params)

    traced, (params, rest, state) = jax.make_jaxpr(forward, return_shape=True)(_inputs(spec, batch))
    graph, unused = made[-1]
    return _Training(traced.jaxpr, batch, graph, params, rest, state, unused)


def idle(model: nnx.Module) -> int:
    """The parameters of a model's experts that a token is not computed with, on average."""
    found = 0.0
    for _, part in nnx.iter_modules(model):
        if isinstance(part, MixtureOfExperts):
            k, experts = padded.number(part.router.k), padded.number(part.router.experts)
            found += (1.0 - k / experts) * sum(math.prod(each[...].shape) for each in (part.inner, part.outer))
    return round(found)


def operations(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec) -> float:
    """Multiplications and additions of a full training, but for what is elementwise; backwards counts twice."""
    return _training(space, values, spec).operations(spec)


def equations(space: SearchSpace[Learner], held: Bucket, data: Mapping[str, Any], spec: Spec) -> int:
    """The equations of a bucket's model, forwards."""

    def forward(data: Mapping[str, Any], x: Any) -> Any:
        model: Any = space.build(assemble(space, held, data), spec).model(nnx.Rngs(0))
        model.train()
        return model(x)

    return _equations(jax.make_jaxpr(forward)(dict(data), _inputs(spec, 1)).jaxpr)


def _equations(jaxpr: Any) -> int:
    inner = [each for equation in jaxpr.eqns for value in equation.params.values() for each in _jaxprs(value)]
    return len(jaxpr.eqns) + sum(map(_equations, inner))


def _inputs(spec: Spec, batch: int) -> Any:
    """Examples as a model gets them, by shape and dtype."""
    return jax.ShapeDtypeStruct((batch, *spec.inputs), jnp.int32 if spec.tokens else jnp.float32)


def products(jaxpr: Any, times: float = 1.0) -> Iterator[tuple[Any, float]]:
    """The matrix products and convolutions of a program, and how often each is done; of branches a mean."""
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            yield equation, times
        inner = [each for value in parameters.values() for each in _jaxprs(value)]
        often = times / len(inner) if name == "cond" else times * parameters.get("length", 1)
        if parameters.get("name") == "expert_blocks":
            rows, weights = (each.aval.shape for each in equation.invars[:2])
            filled = rows[0] // BLOCK - weights[0]  # as many as entries fill, without each expert's last one
            loops = any(each.primitive.name == "while" for one in inner for each in one.eqns)
            often *= filled if loops else filled / (rows[0] // BLOCK)
        for each in inner:
            yield from products(each, often)


def count(jaxpr: Any) -> float:
    """Multiplications and additions of a program's products."""
    return sum(times * _operations(equation) for equation, times in products(jaxpr))


def _operations(product: Any) -> float:
    numbers = product.params["dimension_numbers"]
    results = 2.0 * math.prod(product.outvars[0].aval.shape)
    if product.primitive.name == "dot_general":
        (contracted, _), _ = numbers
        return results * math.prod(product.invars[0].aval.shape[axis] for axis in contracted)
    kernel = product.invars[1].aval.shape
    return results * math.prod(kernel) / kernel[numbers.rhs_spec[0]]


def _jaxprs(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [each for item in value for each in _jaxprs(item)]
    inner = getattr(value, "jaxpr", value)
    return [inner] if hasattr(inner, "eqns") else []


def _bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _total(tree: Any) -> int:
    return sum(map(_bytes, jax.tree.leaves(tree)))
