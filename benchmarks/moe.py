"""A mixture of experts: milliseconds of a gradient as experts are added, each token computed by as many as before.

    python benchmarks/moe.py --experts 4,8,16,32,64 --json FILE

The gradient is that by the layer's parameters and by its input, of 4,096 tokens. A call does several of them in one
program, as training does; "one a call" does not: from 32 MiB on glibc gives a program's memory back after each call,
and having it again costs as much as the layer. Each round times every variant once, beginning with another one;
ratios are those of a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from about import announce, read_command
from flax import nnx
from lanes import parse_integers
from table import format_range

from l2l.nn.grouped import BLOCK, Plan, multiply_blocks, plan_rows
from l2l.nn.moe import MixtureOfExperts, collect_measures, collect_penalties
from l2l.nn.router import compute_balance, compute_z_loss

GROUPS, LENGTH, FEATURES, WIDTH = 64, 64, 64, 128
TOKENS = GROUPS * LENGTH
INSIDE, ONCE = 8, 2
"""Gradients of a call, and of the dense form, which takes long."""
ROOM = 1.25
FORMS = (
    "experts", f"experts, room for {ROOM}", "experts, one a call", "dense", "of it: router", "of it: plan",
    "of it: products", "adamw",
)  # fmt: skip


class Variant(NamedTuple):
    """One thing that is timed."""

    form: str
    k: int | None
    """None where it makes no difference."""
    experts: int
    call: Callable[..., Any]
    inside: int
    compile: float
    """Seconds."""
    blocks: int
    """Blocks of rows in use where every token is computed."""
    dropped: float | None = None
    """Share of the entries that there was no room for."""


class Fixed(NamedTuple):
    """What a part of the layer is given."""

    expert: jax.Array
    plan: Plan
    rows: jax.Array


def compile_variant(form: str, k: int, experts: int) -> Variant:
    """A compiled variant that has run once."""
    room = ROOM if "room" in form else None
    layer = MixtureOfExperts(FEATURES, experts=experts, width=WIDTH, k=k, room=room, rngs=nnx.Rngs(0))
    layer.train()
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x, weights = jax.random.normal(jax.random.key(0), (2, GROUPS, LENGTH, FEATURES))
    inputs = prepare_inputs(layer, x)
    inside = {"experts, one a call": 1, "dense": ONCE}.get(form, INSIDE)

    def loss(params: Any, x: jax.Array) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        return LOSSES.get(form, run_layer)(model, x, weights, inputs), collect_measures(model)

    gradients = jax.grad(loss, argnums=(0, 1), has_aux=True)

    def repeat_gradient(params: Any, x: jax.Array) -> Any:
        def body(_: Any, carry: Any) -> Any:
            # Each depends on the one before, so that the compiler can drop none.
            return gradients(params, x + 1e-9 * carry[0][1])

        return jax.lax.fori_loop(0, inside, body, optax.tree.zeros_like(jax.eval_shape(gradients, params, x)))

    began = time.perf_counter()
    program = jax.jit(update_parameters if form == "adamw" else repeat_gradient).lower(params, x).compile()
    seconds = time.perf_counter() - began
    jax.block_until_ready(program(params, x))
    layer(x)
    dropped = float(layer.drop_rate[...]) if form.startswith("experts") else None
    return Variant(
        form, None if form == "adamw" else k, experts, lambda: program(params, x), inside, seconds,
        int(inputs.plan.used), dropped,
    )  # fmt: skip


def prepare_inputs(layer: Any, x: jax.Array) -> Fixed:
    """What the parts are given that come before them."""
    expert = layer.router(x)[1].expert
    plan = plan_rows(expert, layer.inner.shape[0])
    return Fixed(expert, plan, jax.random.normal(jax.random.key(1), (len(plan.entry), FEATURES)))


def run_layer(layer: Any, x: jax.Array, weights: jax.Array, inputs: Fixed) -> jax.Array:
    """What training asks of the layer."""
    return jnp.sum(layer(x) * weights) + sum(collect_penalties(layer))


def run_dense(layer: Any, x: jax.Array, output_weights: jax.Array, inputs: Fixed) -> jax.Array:
    """Every token through every expert, and the weighted sum of those that it is sent to."""
    logits, routes = layer.router(x)
    experts = layer.inner.shape[0]
    sent = jax.nn.one_hot(routes.expert.reshape(TOKENS, -1), experts)
    weights = jnp.sum(sent * routes.weight.reshape(TOKENS, -1, 1), 1)
    inner = nnx.gelu(jnp.einsum("tc,ecf->etf", x.reshape(TOKENS, -1), layer.inner[...]))
    y = jnp.einsum("etc,te->tc", jnp.einsum("etf,efc->etc", inner, layer.outer[...]), weights)
    return jnp.sum(y.reshape(x.shape) * output_weights) + add_losses(logits, jnp.sum(sent, (0, 1)))


def run_router(layer: Any, x: jax.Array, weights: jax.Array, inputs: Fixed) -> jax.Array:
    """Logits, the choice among them, and the two losses."""
    logits, routes = layer.router(x)
    sent = jnp.zeros(logits.shape[-1]).at[routes.expert.reshape(-1)].add(1.0)
    return jnp.sum(routes.weight * weights.reshape(GROUPS, -1)[:, : routes.weight.shape[1]]) + add_losses(logits, sent)


def add_losses(logits: jax.Array, sent: jax.Array) -> jax.Array:
    """The two losses of the layer, by how many entries each expert is sent."""
    uneven = compute_balance(jnp.mean(jax.nn.softmax(logits, -1), (0, 1)), sent / jnp.sum(sent), logits.shape[-1])
    return 0.01 * uneven + 0.001 * compute_z_loss(logits, jnp.ones(logits.shape[:2]))


def run_plan(layer: Any, x: jax.Array, weights: jax.Array, inputs: Fixed) -> jax.Array:
    """Which row each token stands in; no gradient flows through it."""
    expert = jnp.where(x[0, 0, 0] < 1e9, inputs.expert, 0)  # never, which a compiler cannot know
    plan = plan_rows(expert, layer.inner.shape[0])
    return jnp.sum(x) * (jnp.sum(plan.row) + jnp.sum(plan.entry) + jnp.sum(plan.owner))


def run_products(layer: Any, x: jax.Array, weights: jax.Array, inputs: Fixed) -> jax.Array:
    """The rows through the experts that they are planned for."""
    rows, (_, _, owner, used) = inputs.rows + x[0, 0, 0], inputs.plan
    inner = nnx.gelu(multiply_blocks(rows, layer.inner[...], owner, used))
    return jnp.sum(multiply_blocks(inner, layer.outer[...], owner, used) * inputs.rows)


LOSSES = {"dense": run_dense, "of it: router": run_router, "of it: plan": run_plan, "of it: products": run_products}


def update_parameters(params: Any, x: jax.Array) -> Any:
    """Several updates of the layer's parameters."""
    rule = optax.adamw(1e-3)
    gradient = jax.tree.map(jnp.ones_like, params)

    def body(_: Any, carry: Any) -> Any:
        params, state = carry
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, INSIDE, body, (params, rule.init(params)))


def compile_variants(experts: Sequence[int], ks: Sequence[int]) -> Iterator[Variant]:
    """All that is timed, compiled."""
    for form in FORMS:
        for k in ks[:1] if form == "adamw" else ks:
            for count in experts:
                yield compile_variant(form, k, count)


def time_variants(variants: Sequence[Variant], rounds: int) -> list[list[float]]:
    """Seconds of a gradient for each variant, by round; a round before them is not counted."""
    seconds: list[list[float]] = [[] for _ in variants]
    for turn in range(-1, rounds):
        for offset in range(len(variants)):
            index = (offset + max(turn, 0) * len(variants) // rounds) % len(variants)
            began = time.perf_counter()
            jax.block_until_ready(variants[index].call())
            if turn >= 0:
                seconds[index].append((time.perf_counter() - began) / variants[index].inside)
        print(f"round {turn + 1} of {rounds}", flush=True)
    return seconds


def make_rows(variants: Sequence[Variant], seconds: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """A record of each variant: its seconds, and how many times those of the fewest experts."""
    fewest = min(variant.experts for variant in variants)
    base = {
        (variant.form, variant.k): times
        for variant, times in zip(variants, seconds, strict=True)
        if variant.experts == fewest
    }
    return [
        {
            "form": variant.form, "k": variant.k, "experts": variant.experts, "compile_seconds": variant.compile,
            "blocks": variant.blocks, "dropped": variant.dropped, "seconds": summarise(times),
            "ratio": summarise([a / b for a, b in zip(times, base[variant.form, variant.k], strict=True)]),
        }
        for variant, times in zip(variants, seconds, strict=True)
    ]  # fmt: skip


def summarise(figures: Sequence[float]) -> dict[str, Any]:
    """The median and all of them."""
    return {"median": statistics.median(figures), "all": list(figures)}


def format_tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds, with the seconds that compiling took, and under them the ratios."""
    counts = sorted({row["experts"] for row in rows})
    lines = begin_table(["milliseconds of a gradient", "k", *(f"{count} experts" for count in counts), "compile, s"])
    ratios = begin_table([f"times those of {counts[0]} experts", "k", *(f"{count} experts" for count in counts[1:])])
    for form, k in dict.fromkeys((row["form"], row["k"]) for row in rows):
        group = [row for row in rows if (row["form"], row["k"]) == (form, k)]
        compiles = [row["compile_seconds"] for row in group]
        cells = [format_range(summarise([1e3 * value for value in row["seconds"]["all"]]), 1) for row in group]
        lines.append(format_line([form, k or "-", *cells, f"{min(compiles):.1f} to {max(compiles):.1f}"]))
        ratios.append(format_line([form, k or "-", *(format_range(row["ratio"], 2) for row in group[1:])]))
    return "\n".join([*lines, "", *ratios])


def begin_table(head: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [format_line(head), "|---" * len(head) + "|"]


def format_line(row: Sequence[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, row))} |"


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=parse_integers, default=[4, 8, 16, 32, 64], help="with commas")
    parser.add_argument("--k", type=parse_integers, default=[1, 2], help="experts of a token, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = announce() | {"device": jax.devices()[0].device_kind}
    variants = list(compile_variants(options.experts, options.k))
    rows = make_rows(variants, time_variants(variants, options.rounds))
    print("\nMedian (smallest to largest) of the rounds.\n\n" + format_tables(rows) + "\n")
    for row in rows:
        if row["form"] == FORMS[1]:
            print(
                f"k={row['k']}, {row['experts']} experts: {row['blocks']} blocks of {BLOCK} rows, {row['dropped']:.3f} "
                f"of the entries dropped with room for {ROOM}"
            )
    if options.json:
        sizes = {"tokens": TOKENS, "length": LENGTH, "features": FEATURES, "width": WIDTH}
        record = {"about": about, "command": read_command(), **sizes, "inside": INSIDE, "rows": rows}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
