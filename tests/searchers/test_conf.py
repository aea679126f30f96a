"""Every YAML of the searcher group is the constructor call that it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from l2l.searchers.evolution import Evolution
from l2l.searchers.lstm import Lstm
from l2l.searchers.optuna import CmaEs, Nsga2, Qmc, Tpe
from l2l.searchers.random import Random
from l2l.searchers.reinforce import Reinforce

FOLDER = Path(__file__).parents[2] / "conf" / "searcher"
EXPECTED = {
    "random": Random(),
    "reinforce": Reinforce(),
    "reinforce_lstm": Reinforce(policy=Lstm(), learning_rate=0.005),
    "zoph2017": Reinforce(policy=Lstm(), learning_rate=6e-4, entropy_weight=1e-4, normalise=False, minibatch=None),
    "evolution": Evolution(),
    "tpe": Tpe(),
    "nsga2": Nsga2(),
    "qmc": Qmc(),
    "cmaes": CmaEs(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_yaml_gives_its_searcher(name: str) -> None:
    path = FOLDER / f"{name}.yaml"
    assert instantiate(OmegaConf.load(path), _convert_="all") == EXPECTED[name]
    assert path.read_text().startswith("# ")
