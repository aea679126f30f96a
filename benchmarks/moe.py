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
from about import announced, command
from flax import nnx
from lanes import whole
from table import spread

from l2l.nn.grouped import BLOCK, Plan, planned, products
from l2l.nn.moe import MixtureOfExperts, measures, penalties
from l2l.nn.router import balance, z_loss

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


def made(form: str, k: int, experts: int) -> Variant:
    """A compiled variant that has run once."""
    room = ROOM if "room" in form else None
    layer = MixtureOfExperts(FEATURES, experts=experts, width=WIDTH, k=k, room=room, rngs=nnx.Rngs(0))
    layer.train()
    graph, params, rest = nnx.split(layer, nnx.Param, ...)
    x, given = jax.random.normal(jax.random.key(0), (2, GROUPS, LENGTH, FEATURES))
    held = fixed(layer, x)
    inside = {"experts, one a call": 1, "dense": ONCE}.get(form, INSIDE)

    def loss(params: Any, x: jax.Array) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        return LOSSES.get(form, whole_layer)(model, x, given, held), measures(model)

    slopes = jax.grad(loss, argnums=(0, 1), has_aux=True)

    def several(params: Any, x: jax.Array) -> Any:
        def body(_: Any, found: Any) -> Any:
            return slopes(params, x + 1e-9 * found[0][1])  # hangs on the one before, so that none can be left out

        return jax.lax.fori_loop(0, inside, body, optax.tree.zeros_like(jax.eval_shape(slopes, params, x)))

    began = time.perf_counter()
    program = jax.jit(updated if form == "adamw" else several).lower(params, x).compile()
    seconds = time.perf_counter() - began
    jax.block_until_ready(program(params, x))
    layer(x)
    dropped = float(layer.drop_rate[...]) if form.startswith("experts") else None
    return Variant(
        form, None if form == "adamw" else k, experts, lambda: program(params, x), inside, seconds,
        int(held.plan.used), dropped,
    )  # fmt: skip


def fixed(layer: Any, x: jax.Array) -> Fixed:
    """What the parts are given that come before them."""
    expert = layer.router(x)[1].expert
    made = planned(expert, layer.inner.shape[0])
    return Fixed(expert, made, jax.random.normal(jax.random.key(1), (len(made.entry), FEATURES)))


def whole_layer(layer: Any, x: jax.Array, given: jax.Array, held: Fixed) -> jax.Array:
    """What training asks of the layer."""
    return jnp.sum(layer(x) * given) + sum(penalties(layer))


def dense(layer: Any, x: jax.Array, given: jax.Array, held: Fixed) -> jax.Array:
    """Every token through every expert, and the weighted sum of those that it is sent to."""
    logits, routes = layer.router(x)
    experts = layer.inner.shape[0]
    sent = jax.nn.one_hot(routes.expert.reshape(TOKENS, -1), experts)
    weights = jnp.sum(sent * routes.weight.reshape(TOKENS, -1, 1), 1)
    inner = nnx.gelu(jnp.einsum("tc,ecf->etf", x.reshape(TOKENS, -1), layer.inner[...]))
    y = jnp.einsum("etc,te->tc", jnp.einsum("etf,efc->etc", inner, layer.outer[...]), weights)
    return jnp.sum(y.reshape(x.shape) * given) + added(logits, jnp.sum(sent, (0, 1)))


def router(layer: Any, x: jax.Array, given: jax.Array, held: Fixed) -> jax.Array:
    """Logits, the choice among them, and the two losses."""
    logits, routes = layer.router(x)
    sent = jnp.zeros(logits.shape[-1]).at[routes.expert.reshape(-1)].add(1.0)
    return jnp.sum(routes.weight * given.reshape(GROUPS, -1)[:, : routes.weight.shape[1]]) + added(logits, sent)


def added(logits: jax.Array, sent: jax.Array) -> jax.Array:
    """The two losses of the layer, by how many entries each expert is sent."""
    uneven = balance(jnp.mean(jax.nn.softmax(logits, -1), (0, 1)), sent / jnp.sum(sent), logits.shape[-1])
    return 0.01 * uneven + 0.001 * z_loss(logits, jnp.ones(logits.shape[:2]))


def plan(layer: Any, x: jax.Array, given: jax.Array, held: Fixed) -> jax.Array:
    """Which row each token stands in; nothing of it has a slope."""
    expert = jnp.where(x[0, 0, 0] < 1e9, held.expert, 0)  # never, which a compiler cannot know
    found = planned(expert, layer.inner.shape[0])
    return jnp.sum(x) * (jnp.sum(found.row) + jnp.sum(found.entry) + jnp.sum(found.owner))


def grouped(layer: Any, x: jax.Array, given: jax.Array, held: Fixed) -> jax.Array:
    """The rows through the experts that they are planned for."""
    rows, (_, _, owner, used) = held.rows + x[0, 0, 0], held.plan
    inner = nnx.gelu(products(rows, layer.inner[...], owner, used))
    return jnp.sum(products(inner, layer.outer[...], owner, used) * held.rows)


LOSSES = {"dense": dense, "of it: router": router, "of it: plan": plan, "of it: products": grouped}


def updated(params: Any, x: jax.Array) -> Any:
    """Several updates of the layer's parameters."""
    rule = optax.adamw(1e-3)
    gradient = jax.tree.map(jnp.ones_like, params)

    def body(_: Any, carry: Any) -> Any:
        params, state = carry
        updates, state = rule.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.lax.fori_loop(0, INSIDE, body, (params, rule.init(params)))


def variants(experts: Sequence[int], ks: Sequence[int]) -> Iterator[Variant]:
    """All that is timed, compiled."""
    for form in FORMS:
        for k in ks[:1] if form == "adamw" else ks:
            for count in experts:
                yield made(form, k, count)


def timed(every: Sequence[Variant], rounds: int) -> list[list[float]]:
    """Seconds of a gradient for each variant, by round; a round before them is not counted."""
    found: list[list[float]] = [[] for _ in every]
    for turn in range(-1, rounds):
        for place in range(len(every)):
            at = (place + max(turn, 0) * len(every) // rounds) % len(every)
            began = time.perf_counter()
            jax.block_until_ready(every[at].call())
            if turn >= 0:
                found[at].append((time.perf_counter() - began) / every[at].inside)
        print(f"round {turn + 1} of {rounds}", flush=True)
    return found


def rows(every: Sequence[Variant], seconds: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """A record of each variant: its seconds, and how many times those of the fewest experts."""
    fewest = min(each.experts for each in every)
    base = {(each.form, each.k): mine for each, mine in zip(every, seconds, strict=True) if each.experts == fewest}
    return [
        {
            "form": each.form, "k": each.k, "experts": each.experts, "compile_seconds": each.compile,
            "blocks": each.blocks, "dropped": each.dropped, "seconds": summary(mine),
            "ratio": summary([a / b for a, b in zip(mine, base[each.form, each.k], strict=True)]),
        }
        for each, mine in zip(every, seconds, strict=True)
    ]  # fmt: skip


def summary(figures: Sequence[float]) -> dict[str, Any]:
    """The median and all of them."""
    return {"median": statistics.median(figures), "all": list(figures)}


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds, with the seconds that compiling took, and under them the ratios."""
    counts = sorted({row["experts"] for row in found})
    lines = begun(["milliseconds of a gradient", "k", *(f"{count} experts" for count in counts), "compile, s"])
    ratios = begun([f"times those of {counts[0]} experts", "k", *(f"{count} experts" for count in counts[1:])])
    for form, k in dict.fromkeys((row["form"], row["k"]) for row in found):
        mine = [row for row in found if (row["form"], row["k"]) == (form, k)]
        compiles = [row["compile_seconds"] for row in mine]
        cells = [spread(summary([1e3 * each for each in row["seconds"]["all"]]), 1) for row in mine]
        lines.append(line([form, k or "-", *cells, f"{min(compiles):.1f} to {max(compiles):.1f}"]))
        ratios.append(line([form, k or "-", *(spread(row["ratio"], 2) for row in mine[1:])]))
    return "\n".join([*lines, "", *ratios])


def begun(head: Sequence[str]) -> list[str]:
    """The first two lines of a table."""
    return [line(head), "|---" * len(head) + "|"]


def line(row: Sequence[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, row))} |"


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=whole, default=[4, 8, 16, 32, 64], help="with commas")
    parser.add_argument("--k", type=whole, default=[1, 2], help="experts of a token, with commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    about = announced() | {"device": jax.devices()[0].device_kind}
    every = list(variants(given.experts, given.k))
    found = rows(every, timed(every, given.rounds))
    print("\nMedian (smallest to largest) of the rounds.\n\n" + markdown(found) + "\n")
    for row in found:
        if row["form"] == FORMS[1]:
            print(
                f"k={row['k']}, {row['experts']} experts: {row['blocks']} blocks of {BLOCK} rows, {row['dropped']:.3f} "
                f"of the entries dropped with room for {ROOM}"
            )
    if given.json:
        sizes = {"tokens": TOKENS, "length": LENGTH, "features": FEATURES, "width": WIDTH}
        record = {"about": about, "command": command(), **sizes, "inside": INSIDE, "rows": found}
        given.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
