"""Every YAML of the searcher group is the constructor call that it says, and its own groups can be exchanged."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from l2l.cli import config
from l2l.searchers.controllers.baseline import LeaveOneOut, MovingAverage, Ranks
from l2l.searchers.controllers.controller import Controller
from l2l.searchers.controllers.factorised import Factorised
from l2l.searchers.controllers.lstm import Lstm
from l2l.searchers.controllers.ppo import Ppo
from l2l.searchers.controllers.reinforce import Reinforce
from l2l.searchers.controllers.transformer import Transformer
from l2l.searchers.evolution import Evolution
from l2l.searchers.gp.gp_critic import GpCritic
from l2l.searchers.local_search import LocalSearch
from l2l.searchers.optuna_samplers import CmaEs, Nsga2, Qmc, Tpe
from l2l.searchers.predictor import Predictor
from l2l.searchers.random_search import Random

FOLDER = config.find_folder() / "searcher"
EXPECTED: dict[str, Any] = {
    "random": Random(),
    "reinforce": Controller(),
    "reinforce_lstm": Controller(policy=Lstm(), update=Reinforce(learning_rate=0.005)),
    "zoph2017": Controller(
        Lstm(), Reinforce(learning_rate=6e-4, entropy_weight=1e-4, minibatch=None), MovingAverage(normalise=False)
    ),
    "ppo": Controller(update=Ppo()),
    "ppo_transformer": Controller(policy=Transformer(), update=Ppo(learning_rate=0.003, entropy_weight=0.03)),
    "nasnet": Controller(
        policy=Lstm(units=100, layers=1, scale=0.1),
        update=Ppo(learning_rate=3.5e-4, entropy_weight=1e-5, minibatch=None),
    ),
    "local": LocalSearch(),
    "evolution": Evolution(),
    "evolution_nb201": Evolution(population=10, tournament=3),
    "reinforce_nb201": Controller(
        update=Reinforce(learning_rate=0.03, entropy_weight=0.0), baseline=MovingAverage(decay=0.9, normalise=False)
    ),
    "predictor": Predictor(),
    "gp_critic": GpCritic(),
    "tpe": Tpe(),
    "nsga2": Nsga2(),
    "qmc": Qmc(),
    "cmaes": CmaEs(),
}
PARTS: dict[str, Any] = {
    "policy/factorised": Factorised(),
    "policy/lstm": Lstm(),
    "policy/transformer": Transformer(),
    "update/reinforce": Reinforce(),
    "update/ppo": Ppo(),
    "baseline/moving_average": MovingAverage(),
    "baseline/leave_one_out": LeaveOneOut(),
    "baseline/ranks": Ranks(),
}


def searcher(*overrides: str) -> dict[str, Any]:
    """The searcher's node of `l2l search` with these overrides, as they are typed, checked."""
    config.register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config.find_folder()), version_base="1.3"):
        plain: Any = OmegaConf.to_container(compose("search", list(overrides)), resolve=True)
    config.check(plain)
    return plain["searcher"]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_yaml_gives_its_searcher(name: str) -> None:
    instance = instantiate(searcher(f"searcher={name}"), _convert_="all")
    assert instance == EXPECTED[name]
    assert type(instance) is type(EXPECTED[name])


@pytest.mark.parametrize("path", PARTS)
def test_a_part_of_a_controller_is_chosen_by_its_group(path: str) -> None:
    group, _, name = path.partition("/")
    part = getattr(instantiate(searcher("searcher=ppo", f"searcher/{group}={name}"), _convert_="all"), group)
    assert (type(part), part) == (type(PARTS[path]), PARTS[path])


def test_every_part_of_a_controller_has_a_yaml() -> None:
    assert {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yaml")} == set(PARTS)
    assert all(path.read_text().startswith("# ") for path in FOLDER.rglob("*.yaml"))


def test_no_argument_of_a_controller_is_said_to_be_what_it_is_anyway() -> None:
    for name, expected in EXPECTED.items():
        for group, part in searcher(f"searcher={name}").items():
            default = vars(type(getattr(expected, group))()) if isinstance(part, dict) else {}
            arguments = {key: value for key, value in part.items() if key != "_target_"} if default else {}
            assert [key for key, value in arguments.items() if default[key] == value] == [], name


def test_arguments_of_inner_parts_are_overridden() -> None:
    settings = searcher("++searcher.update.learning_rate=0.1", "searcher/policy=lstm", "++searcher.policy.units=8")
    assert instantiate(settings, _convert_="all") == Controller(
        policy=Lstm(units=8), update=Reinforce(learning_rate=0.1)
    )
