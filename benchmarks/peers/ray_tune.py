"""Ray Tune and the usual Flax loop: `ray_tune.py FOLDER PART CORES`.

Ray starts an actor for every place and reuses it from trial to trial, so JAX is imported once an actor.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

# Before Ray is imported: nothing is reported over the network or logged beside what the search returns.
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}

import ray
from flax_loop import Work
from ray import tune


class Training(tune.Trainable):
    """One candidate's whole training as a single step."""

    def setup(self, config: dict[str, Any]) -> None:
        """Opens the data of the benchmark."""
        self.work = Work(Path(config["folder"]))

    def step(self) -> dict[str, Any]:
        """Trains the candidate of `config`."""
        accuracy = self.work.accuracy(self.config["candidate"])
        # Tune compares what is reported, and None compares with nothing.
        return {"accuracy": math.nan if accuracy is None else accuracy, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next candidate; the data stay."""
        return True


def main(folder: Path, part: int, cores: int) -> None:
    """Trains all candidates, one a core at a time, and writes their accuracies, null where a training diverged."""
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "ray"))
    count = len(json.loads((folder / "candidates.json").read_text()))
    tuner = tune.Tuner(
        tune.with_resources(Training, {"cpu": 1}),
        param_space={"folder": str(folder), "candidate": tune.grid_search(list(range(count)))},
        tune_config=tune.TuneConfig(
            metric="accuracy", mode="max", max_concurrent_trials=cores, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "ray_results"), verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )  # fmt: skip
    accuracies: dict[int, float | None] = {}
    for result in tuner.fit():
        if result.error:
            raise result.error
        assert result.config is not None
        assert result.metrics is not None
        accuracy = result.metrics["accuracy"]
        accuracies[result.config["candidate"]] = None if math.isnan(accuracy) else accuracy
    (folder / f"ray-{part}.json").write_text(json.dumps(accuracies))
    ray.shutdown()


if __name__ == "__main__":
    started = time.perf_counter()
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    print(f"{time.perf_counter() - started:.2f} s")
