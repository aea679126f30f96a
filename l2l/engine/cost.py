"""What a candidate costs, counted before anything runs: its parameters, memory and operations, from shapes alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.engine.bucket import Bucket, make_program_values
from l2l.nn.grouped import BLOCK, expert_blocks
from l2l.nn.moe import MixtureOfExperts
from l2l.space import SearchSpace
from l2l.types import Learner, Spec


class Cost(NamedTuple):
    """What one candidate costs."""

    parameters: int
    """Numbers that are trained."""
    bytes: int
    """Memory of a training: weights, gradients, optimizer state, other variables, and activations of one gradient.

    Activations are the left operand and the result of each matrix product and convolution."""
    flops: float
    """Multiplications and additions, in products, of one example's way through the exported model."""
    active_parameters: int = 0
    """Parameters that one token is computed with: of the experts, as many as a token is sent to."""
    train_flops: float = 0.0
    """Multiplications and additions, in products, of a full training; the backward pass counts twice."""


def measure_cost(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, share: int = 1) -> Cost:
    """The cost of the candidate of these values, from shapes alone: nothing is allocated.

    If its batches are split among `share` devices: what each device needs.
    """
    training = _trace_training(space, values, spec, share)

    def evaluate(variables: tuple[Any, Any], x: Any) -> None:
        model: Any = nnx.merge(training.graph, *variables)
        model.eval()
        model(x)

    inputs = _input_shapes(spec, training.batch_size)
    evaluation = jax.make_jaxpr(evaluate)((training.params, training.rest), inputs)
    # The left operand of a product is data: layers are written as x @ weights.
    activations = sum(
        times * sum(_count_bytes(array.aval) for array in (equation.invars[0], *equation.outvars))
        for equation, times in find_products(training.jaxpr)
    )
    weights = _count_tree_bytes(training.params)
    others = _count_tree_bytes(training.opt_state) + _count_tree_bytes(training.rest)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(training.params))
    return Cost(
        parameters=parameters,
        bytes=2 * weights + others + int(activations),
        flops=count_operations(evaluation.jaxpr) / training.batch_size,
        active_parameters=parameters - training.idle_parameters,
        train_flops=training.count_operations(spec),
    )


class _TracedTraining(NamedTuple):
    """A candidate's forward pass in training, with everything as shapes."""

    jaxpr: Any
    batch_size: int
    """Examples of one gradient on one device."""
    graph: Any
    params: Any
    rest: Any
    opt_state: Any
    idle_parameters: int

    def count_operations(self, spec: Spec) -> float:
        """Multiplications and additions of a full training; the backward pass counts twice."""
        return 3.0 * count_operations(self.jaxpr) / self.batch_size * spec.examples * spec.epochs


def _trace_training(
    space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec, share: int = 1
) -> _TracedTraining:
    """Traces the initialisation and the forward pass of a model, with the batch of one of `share` devices."""
    learner = space.build(values, spec)
    batch_size = int(learner.microbatch or learner.batch_size) // share
    static: list[tuple[Any, int]] = []

    def forward(x: Any) -> Any:
        with jax.disable_jit():  # without tracing the inner functions of initialisers one by one, which takes longer
            model: Any = learner.model(nnx.Rngs(0))
        model.train()
        model(x)
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        static.append((graph, count_idle_parameters(model)))
        return params, rest, learner.optimizer.init(params)

    traced, shapes = jax.make_jaxpr(forward, return_shape=True)(_input_shapes(spec, batch_size))
    params, rest, opt_state = shapes
    graph, idle_parameters = static[-1]
    return _TracedTraining(traced.jaxpr, batch_size, graph, params, rest, opt_state, idle_parameters)


def count_idle_parameters(model: nnx.Module) -> int:
    """The parameters of a model's experts that one token is not computed with."""
    idle = 0.0
    for _, module in nnx.iter_modules(model):
        if isinstance(module, MixtureOfExperts):
            k, experts = module.router.k.value, module.router.experts.active
            weights = (module.inner, module.outer)
            idle += (1.0 - k / experts) * sum(math.prod(weight[...].shape) for weight in weights)
    return round(idle)


def count_training_operations(space: SearchSpace[Learner], values: Mapping[str, Any], spec: Spec) -> float:
    """Multiplications and additions, in products, of a full training; the backward pass counts twice."""
    return _trace_training(space, values, spec).count_operations(spec)


def count_model_equations(
    space: SearchSpace[Learner], bucket: Bucket, traced_values: Mapping[str, Any], spec: Spec
) -> int:
    """The equations of the forward pass of a bucket's model: how long its program takes to compile depends on them."""

    def forward(traced_values: Mapping[str, Any], x: Any) -> Any:
        model: Any = space.build(make_program_values(space, bucket, traced_values), spec).model(nnx.Rngs(0))
        model.train()
        return model(x)

    return _count_equations(jax.make_jaxpr(forward)(dict(traced_values), _input_shapes(spec, 1)).jaxpr)


def _count_equations(jaxpr: Any) -> int:
    return len(jaxpr.eqns) + sum(
        _count_equations(inner) for equation in jaxpr.eqns for inner in _inner_jaxprs(equation)
    )


def _input_shapes(spec: Spec, batch_size: int) -> Any:
    """Shape and dtype of a batch as a model gets it."""
    return jax.ShapeDtypeStruct((batch_size, *spec.inputs), jnp.int32 if spec.tokens else jnp.float32)


def find_products(jaxpr: Any, times: float = 1.0) -> Iterator[tuple[Any, float]]:
    """The matrix products and convolutions of a program, and how often each runs.

    Branches of a `cond` count as their mean.
    """
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        if name in ("dot_general", "conv_general_dilated"):
            yield equation, times
        inner_jaxprs = _inner_jaxprs(equation)
        runs = times / len(inner_jaxprs) if name == "cond" else times * parameters.get("length", 1)
        if parameters.get("name") == expert_blocks.__name__:  # pyright: ignore[reportAttributeAccessIssue]
            runs *= _count_expert_blocks(equation, inner_jaxprs)
        for inner in inner_jaxprs:
            yield from find_products(inner, runs)


def _count_expert_blocks(equation: Any, inner_jaxprs: list[Any]) -> float:
    """How often the products inside `expert_blocks` run, which compute the rows of all experts block by block.

    Each expert's last block is only partly filled; it is not counted, so as many blocks count as the entries fill.
    """
    rows, weights = (array.aval.shape for array in equation.invars[:2])
    blocks, experts = rows[0] // BLOCK, weights[0]
    filled = blocks - experts
    loops = any(inner.primitive.name == "while" for jaxpr in inner_jaxprs for inner in jaxpr.eqns)
    return filled if loops else filled / blocks


def count_operations(jaxpr: Any) -> float:
    """Multiplications and additions of a program's products."""
    return sum(times * _count_product(equation) for equation, times in find_products(jaxpr))


def _count_product(equation: Any) -> float:
    """Multiplications and additions of a matrix product or a convolution."""
    dimensions = equation.params["dimension_numbers"]
    results = 2.0 * math.prod(equation.outvars[0].aval.shape)
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = dimensions
        return results * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    kernel = equation.invars[1].aval.shape
    return results * math.prod(kernel) / kernel[dimensions.rhs_spec[0]]


def _inner_jaxprs(equation: Any) -> list[Any]:
    """The programs inside an equation: branches, bodies of loops, called functions."""
    return [jaxpr for value in equation.params.values() for jaxpr in _jaxprs_of(value)]


def _jaxprs_of(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [jaxpr for item in value for jaxpr in _jaxprs_of(item)]
    jaxpr = getattr(value, "jaxpr", value)
    return [jaxpr] if hasattr(jaxpr, "eqns") else []


def _count_bytes(array: Any) -> int:
    return math.prod(array.shape) * array.dtype.itemsize


def _count_tree_bytes(tree: Any) -> int:
    return sum(map(_count_bytes, jax.tree.leaves(tree)))
