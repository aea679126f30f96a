"""Every choice of trackers that the configuration offers can be built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

FOLDER = Path(__file__).parents[2] / "conf/tracker"


@pytest.mark.parametrize(
    ("name", "trackers"),
    [
        ("default", {"console": "Console", "wandb": "Wandb"}),
        ("console", {"console": "Console"}),
        ("wandb", {"wandb": "Wandb"}),
        ("none", {}),
    ],
)
def test_a_file_holds_trackers_by_name(name: str, trackers: dict[str, str]) -> None:
    built = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"), _convert_="all")
    assert {name: type(tracker).__name__ for name, tracker in built.items()} == trackers


def test_there_is_no_other_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {"default", "console", "wandb", "none"}
