"""A mixture of experts in the place of a transformer's MLP: each token is computed by a few of many."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, activate, make_linear
from l2l.nn.description import TIMES, Description
from l2l.nn.dropout import make_dropout
from l2l.nn.grouped import multiply_blocks, plan_rows, sum_rows
from l2l.nn.initial import lecun_stack
from l2l.nn.length import Length
from l2l.nn.number import Number
from l2l.nn.option import Option
from l2l.nn.router import Router, Routes, compute_balance, compute_capacity, compute_z_loss


class Penalty(nnx.Variable[Any]):
    """What a module's last call in training adds to the loss, `[]`."""


class Measure(nnx.Variable[Any]):
    """What a module measured at its last call in training."""


def collect_penalties(module: nnx.Module) -> list[jax.Array]:
    """What the parts of a model add to the loss of its last call in training, `[]` each."""
    return [jnp.sum(penalty) for penalty in jax.tree.leaves(nnx.state(module, Penalty))]


def collect_measures(module: nnx.Module) -> dict[str, jax.Array]:
    """What the mixtures of a model measured at its last call in training: means over those that were called, `[]` each.

    `expert_load_max` and `expert_load_min` are the largest and smallest share of an expert times their number.
    """
    mixtures: dict[tuple[Any, ...], dict[str, jax.Array]] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(module, Measure)):
        mixtures.setdefault(path[:-1], {})[str(path[-1])] = leaf.get_value()
    called = [jnp.sum(values["expert_load"], -1) > 0 for values in mixtures.values()]
    count = jnp.maximum(sum(jnp.sum(flags, dtype=jnp.float32) for flags in called), 1.0)
    names = sorted({name for values in mixtures.values() for name in values if name != "expert_load"})
    pairs = list(zip(called, mixtures.values(), strict=True))
    return {
        name: sum(jnp.sum(jnp.where(flags, values[name], 0.0)) for flags, values in pairs) / count for name in names
    }


class MixtureOfExperts(nnx.Module):
    """`experts` two-layer perceptrons of `width`, of which each token is computed by those that its router names.

    A group is a sequence. An expert takes the first `room * k * L / experts` of its tokens and drops the others (None:
    takes all). The result of a sequence therefore never depends on others of its batch, nor that of a token on later
    ones, except under expert_choice, which a `causal` model cannot have. `shared` adds a perceptron that computes every
    token. `balance_weight` and `z_weight` scale what is added to the loss. With the name of a mesh axis as `axis`, to
    be called inside `jax.shard_map`, the experts are those of this device and the result is the sum over all.

    Data may choose `k`, `router`, `activation` and `shared`, and the other numbers may be data.

    Raises: ValueError if a size does not fit another or an option is unknown.
    Source: Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, Switch Transformer, arXiv:2101.03961, section
        2; Gale et al. 2022, MegaBlocks, arXiv:2211.15841, section 4 (blocks); Dai et al. 2024, DeepSeekMoE,
        arXiv:2401.06066, section 3.2 (shared).
    """

    def __init__(
        self,
        features: int | Length,
        *,
        experts: int | Length,
        width: int | Length,
        k: int | Option = 1,
        router: str | Option = "softmax",
        room: Any = 1.25,
        shared: bool | Option = False,
        activation: str | Option = "gelu",
        balance_weight: Any = 0.01,
        z_weight: Any = 0.001,
        causal: bool = True,
        length: int | None = None,
        axis: str | None = None,
        dropout_rate: Any = 0.0,
        rngs: nnx.Rngs,
    ) -> None:
        self.router = Router(features, experts, k=k, kind=router, rngs=rngs)
        if causal and self.router.looks_ahead:
            raise ValueError("expert_choice looks at the whole sequence, which a causal model must not see")
        self.room, self.balance_weight, self.z_weight = map(Number, (room, balance_weight, z_weight))
        if length is not None:
            _check_room(self.router.k, length, self.room, self.router.experts)
        self.activation = Option.of(activation).check("activation", ACTIVATIONS)
        self.axis = axis
        shape = (self.router.experts.size, Length.of(features).size, Length.of(width).size)
        self.inner = nnx.Param(lecun_stack(rngs.params(), shape))
        self.outer = nnx.Param(lecun_stack(rngs.params(), (shape[0], shape[2], shape[1])))
        self.shared = Option.of(shared)
        shares = self.shared.can_be(True)
        self.shared_inner = make_linear(features, width, bias=False, rngs=rngs) if shares else None
        self.shared_outer = make_linear(width, features, bias=False, rngs=rngs) if shares else None
        self.drop = make_dropout(dropout_rate, rngs=rngs)
        self.deterministic = False
        self.penalty, self.expert_load = Penalty(jnp.zeros(())), Measure(jnp.zeros(shape[0]))
        self.drop_rate, self.router_entropy = Measure(jnp.zeros(())), Measure(jnp.zeros(()))
        self.expert_load_max, self.expert_load_min = Measure(jnp.zeros(())), Measure(jnp.zeros(()))

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Tokens `[B, L, F]`, and `[B, L]`, true where there is one, to `[B, L, F]`, 0 where there is none.

        In training it leaves behind what it adds to the loss (`penalty`), each expert's share of the entries
        (`expert_load`, `[E]`), the share of those that were dropped (`drop_rate`), and `router_entropy` in nats.
        """
        logits, routes = self.router(x, mask)
        experts = self.inner.shape[0]  # fewer than the router's where a device has some of them
        if self.axis is None:
            y, accepted = self._mix(x, routes, experts)
        else:
            expert = routes.expert - jax.lax.axis_index(self.axis) * experts
            expert = jnp.where((expert >= 0) & (expert < experts), expert, experts)
            tokens, weight = jax.lax.pcast((x, routes.weight), self.axis, to="varying")
            mixture = self._mix(tokens, Routes(expert, routes.token, weight), experts)
            y, accepted = jax.lax.psum(mixture, self.axis)
        if self.shared_inner is not None and self.shared_outer is not None:
            inner, outer = self.shared_inner, self.shared_outer
            y = self.shared.branch(True, lambda: y + outer(activate(self.activation, inner(x))), lambda: y)
        if not self.deterministic:
            self._measure(logits, routes, accepted, mask)
        y: Any = self.drop(y)  # pyright: ignore[reportCallIssue]
        return y if mask is None else y * mask[..., None].astype(y.dtype)

    def describe(self, shape: tuple[int, ...]) -> Description:
        """The experts and their router in words."""
        _, size, width = self.inner[...].shape
        experts, k, kind = int(self.router.experts.active), int(self.router.k.read()), str(self.router.kind.read())
        facts = [f"{size} → {width} → {size}", str(self.activation.read()), f"{kind.replace('_', ' ')} router"]
        if kind != "expert_choice":
            room = self.room.value
            facts.append("no limit of capacity" if room is None else f"capacity {float(room):g}")
            facts.append(f"balance loss {TIMES} {float(self.balance_weight.value):.3g}")
        if self.shared.read():
            facts.append("a shared expert")
        title = f"{experts} experts, {k} a token"
        return Description(title, tuple(facts), kind="experts", shape=shape, module=self, experts=(experts, k))

    def _mix(self, x: jax.Array, routes: Routes, experts: int) -> tuple[jax.Array, jax.Array]:
        """The weighted sum of what its experts compute of each token, `[B, L, F]`, and how many entries had room."""
        groups, length, features = x.shape
        tokens = groups * length
        plan = plan_rows(routes.expert, experts, self._compute_capacity(length))
        entries = jnp.arange(groups)[:, None] * length + routes.token
        owner = jnp.append(entries.reshape(-1), tokens)[plan.entry]
        weight = sum_rows(routes.weight.reshape(-1, 1), plan.entry[:, None], plan.row[:, None]).astype(x.dtype)
        # A token's entries stand side by side unless experts choose; then its rows must be searched.
        back = None if self.router.looks_ahead else plan.row.reshape(tokens, -1)
        flat = x.reshape(tokens, features)
        rows = flat.at[owner].get(mode="fill", fill_value=0) if back is None else sum_rows(flat, owner[:, None], back)
        rows = activate(self.activation, multiply_blocks(rows, self.inner[...], plan.owner, plan.used))
        rows = multiply_blocks(rows, self.outer[...], plan.owner, plan.used) * weight
        if back is None:
            y = jnp.zeros_like(flat).at[owner].add(rows, mode="drop")
        else:
            y = sum_rows(rows, back, owner[:, None])
        return y.reshape(x.shape), jnp.sum(plan.row < len(plan.entry))

    def _compute_capacity(self, length: int) -> Any:
        """Tokens of a group that an expert has room for; None for all."""
        if self.room.value is None or self.router.only_experts_choose:
            return None
        tokens = compute_capacity(self.router.k, length, self.room, self.router.experts)
        if not self.router.looks_ahead:
            return tokens
        return jnp.where(self.router.kind.is_("expert_choice"), length, tokens)

    def _measure(self, logits: jax.Array, routes: Routes, accepted: jax.Array, mask: jax.Array | None) -> None:
        size, experts = logits.shape[-1], self.router.experts.active
        sent = jnp.zeros(size + 1, logits.dtype).at[routes.expert.reshape(-1)].add(1.0)[:size]
        total = jnp.maximum(jnp.sum(sent), 1.0)
        present = jnp.ones(logits.shape[:2], logits.dtype) if mask is None else mask.astype(logits.dtype)
        probabilities = self.router.compute_probabilities(logits) * present[..., None]
        tokens = jnp.maximum(jnp.sum(present), 1.0)
        imbalance = compute_balance(jnp.sum(probabilities, (0, 1)) / tokens, sent / total, experts)
        imbalance = jnp.where(self.router.kind.is_("expert_choice"), 0.0, imbalance)
        penalty = self.balance_weight.value * imbalance + self.z_weight.value * compute_z_loss(logits, present)
        least = jnp.min(jnp.where(jnp.arange(len(sent)) < experts, sent, total))
        measured = (
            (self.penalty, penalty),
            (self.expert_load, sent / total),
            (self.expert_load_max, jnp.max(sent) * experts / total),
            (self.expert_load_min, least * experts / total),
            (self.drop_rate, 1.0 - accepted / total),
            (self.router_entropy, -jnp.sum(probabilities * jnp.log(jnp.maximum(probabilities, 1e-30))) / tokens),
        )
        for variable, value in measured:
            variable[...] = value.astype(variable[...].dtype)


def _check_room(k: Option, length: int, room: Number, experts: Length) -> None:
    """Raises: ValueError if an expert has room for less than one token, where all numbers are plain."""
    if not (k.is_plain and room.is_plain and experts.is_plain) or room.value is None:
        return
    if (tokens := k.value * length * room.value / experts.size) < 1:
        raise ValueError(
            f"a capacity under one token: {length} tokens, {k.value} experts for each, {experts.size} experts and a "
            f"factor of {room.value:g} leave {tokens:.3g}; take fewer experts or a larger factor"
        )
