"""RL controllers: a policy, an update and a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.searchers.controllers.baseline import LeaveOneOut as LeaveOneOut
    from l2l.searchers.controllers.baseline import MovingAverage as MovingAverage
    from l2l.searchers.controllers.baseline import Ranks as Ranks
    from l2l.searchers.controllers.controller import Controller as Controller
    from l2l.searchers.controllers.factorised import Factorised as Factorised
    from l2l.searchers.controllers.lstm import Lstm as Lstm
    from l2l.searchers.controllers.ppo import Ppo as Ppo
    from l2l.searchers.controllers.reinforce import Reinforce as Reinforce
    from l2l.searchers.controllers.transformer import Transformer as Transformer

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Controller": "l2l.searchers.controllers.controller",
        "Factorised": "l2l.searchers.controllers.factorised",
        "Lstm": "l2l.searchers.controllers.lstm",
        "Transformer": "l2l.searchers.controllers.transformer",
        "Reinforce": "l2l.searchers.controllers.reinforce",
        "Ppo": "l2l.searchers.controllers.ppo",
        "LeaveOneOut": "l2l.searchers.controllers.baseline",
        "MovingAverage": "l2l.searchers.controllers.baseline",
        "Ranks": "l2l.searchers.controllers.baseline",
    },
)
