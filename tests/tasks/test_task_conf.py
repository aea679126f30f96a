"""Every task that the configuration offers can be built, and says what a loop needs to know."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from l2l.tasks.digits import Digits
from l2l.tasks.idx_images import FashionMnist, IdxImages

FOLDER = Path(__file__).parents[2] / "conf/task"


@pytest.mark.parametrize(
    ("file", "overrides", "expected"),
    [
        ("digits", {}, Digits()),
        ("digits", {"epochs": 3}, Digits(epochs=3)),
        ("fashion_mnist", {}, FashionMnist()),
        ("idx_images", {"name": "kmnist", "path": "/data"}, IdxImages("kmnist", path="/data")),
        (
            "idx_images",
            {"name": "kmnist", "downloads": {"http://host/a.gz": "md5:0"}},
            IdxImages("kmnist", downloads={"http://host/a.gz": "md5:0"}),
        ),
    ],
)
def test_a_file_builds_its_task(file: str, overrides: dict[str, object], expected: Digits | IdxImages) -> None:
    task = instantiate(OmegaConf.merge(OmegaConf.load(FOLDER / f"{file}.yaml"), overrides), _convert_="all")
    assert task == expected
    assert (task.metric, task.outputs, task.normalise) == ("accuracy", 10, True)
    # Tasks travel to worker processes and are keys of caches.
    assert hash(task) == hash(expected)
