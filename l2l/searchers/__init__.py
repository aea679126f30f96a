"""Searchers: they propose candidates and learn from rewards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from l2l.lazy import make_lazy_names

if TYPE_CHECKING:
    from l2l.searchers.controllers.controller import Controller as Controller
    from l2l.searchers.evolution import Evolution as Evolution
    from l2l.searchers.gp.gp_critic import GpCritic as GpCritic
    from l2l.searchers.local_search import LocalSearch as LocalSearch
    from l2l.searchers.optuna_samplers import CmaEs as CmaEs
    from l2l.searchers.optuna_samplers import Nsga2 as Nsga2
    from l2l.searchers.optuna_samplers import Qmc as Qmc
    from l2l.searchers.optuna_samplers import Tpe as Tpe
    from l2l.searchers.predictor import Predictor as Predictor
    from l2l.searchers.preferences import Preferences as Preferences
    from l2l.searchers.random_search import Random as Random

__getattr__, __all__ = make_lazy_names(
    __name__,
    {
        "Controller": "l2l.searchers.controllers.controller",
        "Evolution": "l2l.searchers.evolution",
        "GpCritic": "l2l.searchers.gp.gp_critic",
        "LocalSearch": "l2l.searchers.local_search",
        "Predictor": "l2l.searchers.predictor",
        "Preferences": "l2l.searchers.preferences",
        "Random": "l2l.searchers.random_search",
        "Tpe": "l2l.searchers.optuna_samplers",
        "Nsga2": "l2l.searchers.optuna_samplers",
        "Qmc": "l2l.searchers.optuna_samplers",
        "CmaEs": "l2l.searchers.optuna_samplers",
    },
)
