"""A mixture of experts in the place of a transformer's MLP: each token is computed by a few of many."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from l2l.nn.blocks import ACTIVATIONS, activate, chosen, linear
from l2l.nn.dropout import dropout
from l2l.nn.grouped import planned, products, taken
from l2l.nn.initial import lecun_stack
from l2l.nn.padded import Padded, Picked, Selector, either, kept, named, number, size
from l2l.nn.router import Router, Routes, balance, capacity, z_loss


class Penalty(nnx.Variable[Any]):
    """What a module's last call in training adds to the loss, `[]`."""


class Measure(nnx.Variable[Any]):
    """What a module measured at its last call in training."""


def penalties(module: nnx.Module) -> list[jax.Array]:
    """What the parts of a model add to the loss of its last call in training, `[]` each."""
    return [jnp.sum(each) for each in jax.tree.leaves(nnx.state(module, Penalty))]


def measures(module: nnx.Module) -> dict[str, jax.Array]:
    """What the mixtures of a model measured at its last call in training: means over those that were called, `[]` each.

    `expert_load_max` and `expert_load_min` are the largest and smallest share of an expert times their number.
    """
    each: dict[tuple[Any, ...], dict[str, jax.Array]] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(module, Measure)):
        each.setdefault(path[:-1], {})[str(path[-1])] = leaf.get_value()
    called = [jnp.sum(found["expert_load"], -1) > 0 for found in each.values()]
    count = jnp.maximum(sum(jnp.sum(one, dtype=jnp.float32) for one in called), 1.0)
    names = sorted({name for found in each.values() for name in found if name != "expert_load"})
    return {
        name: sum(jnp.sum(jnp.where(one, found[name], 0.0)) for one, found in zip(called, each.values(), strict=True))
        / count
        for name in names
    }


class MixtureOfExperts(nnx.Module):
    """`experts` two-layer perceptrons of `width`, of which each token is computed by those that its router names.

    A group is a sequence: an expert takes the first `room * k * L / experts` of its tokens and drops the others (None:
    takes all), so what a sequence comes to never hangs on others of its batch, nor a token on later ones, but under
    expert_choice, which a `causal` model cannot have. `shared` adds a perceptron that computes every token.
    `balance_weight` and `z_weight` scale what is added to the loss. With the name of a mesh axis as `axis`, to be
    called inside `jax.shard_map`, the experts are those of this device and the result is the sum over all.

    Sizes may be `Padded`; `k`, `router`, `activation` and `shared` `Picked`; the other numbers data.

    Raises: ValueError if a size does not fit another or an option is unknown.
    Source: Shazeer et al. 2017, arXiv:1701.06538; Fedus et al. 2021, Switch Transformer, arXiv:2101.03961, section
        2; Gale et al. 2022, MegaBlocks, arXiv:2211.15841, section 4 (blocks); Dai et al. 2024, DeepSeekMoE,
        arXiv:2401.06066, section 3.2 (shared).
    """

    def __init__(
        self,
        features: int | Padded,
        *,
        experts: int | Padded,
        width: int | Padded,
        k: int | Picked = 1,
        router: str | Picked = "softmax",
        room: Any = 1.25,
        shared: bool | Picked = False,
        activation: str | Picked = "gelu",
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
        if length is not None and all(isinstance(each, int | float) for each in (k, room, experts)):
            _check_room(k, length, room, experts)
        self.activation = chosen("activation", activation, ACTIVATIONS)
        self.room, self.balance_weight, self.z_weight = map(kept, (room, balance_weight, z_weight))
        self.axis = axis
        shape = (size(experts), size(features), size(width))
        self.inner = nnx.Param(lecun_stack(rngs.params(), shape))
        self.outer = nnx.Param(lecun_stack(rngs.params(), (shape[0], shape[2], shape[1])))
        self.shared_inner = linear(features, width, bias=False, rngs=rngs) if shared is not False else None
        self.shared_outer = linear(width, features, bias=False, rngs=rngs) if shared is not False else None
        self.shared = Selector(shared) if isinstance(shared, Picked) else shared
        self.drop = dropout(dropout_rate, rngs=rngs)
        self.deterministic = False
        self.penalty, self.expert_load = Penalty(jnp.zeros(())), Measure(jnp.zeros(shape[0]))
        self.drop_rate, self.router_entropy = Measure(jnp.zeros(())), Measure(jnp.zeros(()))
        self.expert_load_max, self.expert_load_min = Measure(jnp.zeros(())), Measure(jnp.zeros(()))

    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Tokens `[B, L, C]`, and `[B, L]`, true where there is one, to `[B, L, C]`, 0 where there is none.

        In training it leaves behind what it adds to the loss (`penalty`), each expert's share of what was sent
        (`expert_load`, `[E]`), the share of that which was dropped (`drop_rate`), and `router_entropy` in nats.
        """
        logits, routes = self.router(x, mask)
        held = self.inner.shape[0]  # fewer than there are where a device has some of them
        if self.axis is None:
            y, kept = self._mixed(x, routes, held)
        else:
            expert = routes.expert - jax.lax.axis_index(self.axis) * held
            expert = jnp.where((expert >= 0) & (expert < held), expert, held)
            own, weight = jax.lax.pcast((x, routes.weight), self.axis, to="varying")
            mixed = self._mixed(own, Routes(expert, routes.token, weight), held)
            y, kept = jax.lax.psum(mixed, self.axis)
        if self.shared_inner is not None and self.shared_outer is not None:
            inner, outer = self.shared_inner, self.shared_outer
            y = either(named(self.shared, True), lambda: y + outer(activate(self.activation, inner(x))), lambda: y)
        if not self.deterministic:
            self._measure(logits, routes, kept, mask)
        y: Any = self.drop(y)  # pyright: ignore[reportCallIssue]
        return y if mask is None else y * mask[..., None].astype(y.dtype)

    def _mixed(self, x: jax.Array, routes: Routes, held: int) -> tuple[jax.Array, jax.Array]:
        """The sum of what its experts make of each token, `[B, L, C]`, and how many entries there was room for."""
        groups, length, features = x.shape
        tokens = groups * length
        plan = planned(routes.expert, held, self._capacity(length))
        entries = jnp.arange(groups)[:, None] * length + routes.token
        owner = jnp.append(entries.reshape(-1), tokens)[plan.entry]
        weight = taken(routes.weight.reshape(-1, 1), plan.entry[:, None], plan.row[:, None]).astype(x.dtype)
        # A token's entries stand side by side unless experts choose; then its rows must be found.
        back = None if self.router.looks_ahead else plan.row.reshape(tokens, -1)
        flat = x.reshape(tokens, features)
        rows = flat.at[owner].get(mode="fill", fill_value=0) if back is None else taken(flat, owner[:, None], back)
        rows = activate(self.activation, products(rows, self.inner[...], plan.owner, plan.used))
        rows = products(rows, self.outer[...], plan.owner, plan.used) * weight
        y = jnp.zeros_like(flat).at[owner].add(rows, mode="drop") if back is None else taken(rows, back, owner[:, None])
        return y.reshape(x.shape), jnp.sum(plan.row < len(plan.entry))

    def _capacity(self, length: int) -> Any:
        """Tokens of a group that an expert has room for; None for all."""
        if self.room is None or self.router.kinds == ("expert_choice",):
            return None
        found = capacity(number(self.router.k), length, number(self.room), number(self.router.experts))
        return jnp.where(named(self.router.kind, "expert_choice"), length, found) if self.router.looks_ahead else found

    def _measure(self, logits: jax.Array, routes: Routes, kept: jax.Array, mask: jax.Array | None) -> None:
        size, experts = logits.shape[-1], number(self.router.experts)
        sent = jnp.zeros(size + 1, logits.dtype).at[routes.expert.reshape(-1)].add(1.0)[:size]
        total = jnp.maximum(jnp.sum(sent), 1.0)
        present = jnp.ones(logits.shape[:2], logits.dtype) if mask is None else mask.astype(logits.dtype)
        liked = self.router.probabilities(logits) * present[..., None]
        tokens = jnp.maximum(jnp.sum(present), 1.0)
        uneven = balance(jnp.sum(liked, (0, 1)) / tokens, sent / total, experts)
        uneven = jnp.where(named(self.router.kind, "expert_choice"), 0.0, uneven)
        found = (
            (self.penalty, number(self.balance_weight) * uneven + number(self.z_weight) * z_loss(logits, present)),
            (self.expert_load, sent / total),
            (self.expert_load_max, jnp.max(sent) * experts / total),
            (self.expert_load_min, jnp.min(jnp.where(jnp.arange(len(sent)) < experts, sent, total)) * experts / total),
            (self.drop_rate, 1.0 - kept / total),
            (self.router_entropy, -jnp.sum(liked * jnp.log(jnp.maximum(liked, 1e-30))) / tokens),
        )
        for variable, value in found:
            variable[...] = value.astype(variable[...].dtype)


def _check_room(k: Any, length: int, room: Any, experts: Any) -> None:
    if k * length * room / experts < 1:
        raise ValueError(
            f"a capacity under one token: {length} tokens, {k} experts for each, {experts} experts and a factor of "
            f"{room:g} leave {k * length * room / experts:.3g}; take fewer experts or a larger factor"
        )
