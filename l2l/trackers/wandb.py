"""Weights & Biases: one run per trial and one for the search, kept under RUN/wandb and offline without a key."""

from __future__ import annotations

import contextlib
import netrc
import os
import re
import secrets
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from l2l.errors import InputError, suggest_names
from l2l.types import SearchEnd, SearchInfo, Status, Trial

# wandb collects nothing of the machine, the code or the terminal: this tracker passes what is worth comparing.
_QUIET: Mapping[str, Any] = {
    "console": "off",
    "silent": True,
    "symlink": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
_MODES = ("online", "offline", "disabled")
# The public server under its older and its newer name; a login for either is enough.
_HOSTS = ("api.wandb.ai", "api.forge.coreweave.com")
_SECRET = re.compile(
    r"(^|[_.-])(pass(word|wd)?|pwd|secrets?|token|(api|access|private)[_-]?key|credentials?|auth)([_.-]|$)", re.I
)
_SECRET_VALUE = re.compile(r"://[^/@\s]*:[^/@\s]+@")
"""An address with a password in it."""


class Wandb:
    """A `Tracker` that logs every finished trial as a run of its own (group: the search's, job type: trial).

    One more run (job type: search) has the searcher's curves, the table of all trials and the files of
    `RUN/best` as an artifact of type model. A resumed search logs what is missing, and nothing twice.
    `mode` is online, offline or disabled; if it is None, `WANDB_MODE` decides, and without that it is online
    where a key is set (`WANDB_API_KEY`, or a login in the netrc file) and offline, with no network, elsewhere.

    Raises: InputError for an unknown mode; later what wandb raises, and OSError if RUN/wandb cannot be written.
    """

    def __init__(self, project: str = "l2l", mode: str | None = None, entity: str | None = None) -> None:
        if mode is not None and mode not in _MODES:
            raise InputError(f"wandb: there is no mode {mode!r}: {suggest_names(str(mode), _MODES)}")
        self._project = project
        self._entity = entity
        self._mode = mode or os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        if self._mode != "online":
            # An offline wandb still reports its errors home. Set here, where no other thread reads the environment.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._info: SearchInfo | None = None
        self._search_run: Any = None
        self._token = ""
        self._logged: set[str] = set()
        self._finished: dict[int, Trial] = {}
        self._learned_trials = 0
        self._best: float | None = None

    def start(self, info: SearchInfo, finished: Iterable[Trial]) -> None:
        """Opens the search's run and logs the finished trials that have none yet."""
        if self._mode == "disabled":
            return
        self._info = info._replace(directory=info.directory.resolve())
        # Made here: where wandb cannot make the folder, it silently uses the temporary one.
        self._folder.mkdir(parents=True, exist_ok=True)
        self._read_marker()
        # Otherwise the log of wandb's own service goes to the user's cache folder or to the terminal.
        with _environment("WANDB_CACHE_DIR", os.environ.get("WANDB_CACHE_DIR") or str(self._info.directory)):
            self._search_run = self._open("search", info.name, _list_settings(info))
        for trial in finished:
            self._log(trial)

    def tell(self, trial: Trial, seconds: Mapping[str, float]) -> None:
        """Logs a finished trial."""
        if self._search_run is not None:
            self._log(trial)

    def tell_batch(self, batch: Sequence[Trial], summary: Mapping[str, float]) -> None:
        """Logs one point of the search's curves, at the number of trials that the searcher has learnt from."""
        if self._search_run is None:
            return
        self._learned_trials += len(batch)
        figures = {name: float(value) for name, value in summary.items()}
        for trial in batch:
            if trial.reward and trial.status is not Status.PRUNED:
                self._best = trial.reward[0] if self._best is None else max(self._best, trial.reward[0])
        if self._best is not None:
            figures["best reward"] = self._best
        self._search_run.log(figures, step=self._learned_trials, commit=True)

    def finish(self, end: SearchEnd | None) -> None:
        """Logs the table of trials and the winner, and closes the search's run."""
        search_run, self._search_run = self._search_run, None
        if search_run is None:
            return
        # An upload needs the data folder: beside the runs, it can move with them to another machine.
        with _environment("WANDB_DATA_DIR", str(self._folder)):
            if self._finished:
                search_run.log({"trials": _make_table(self._finished)})
            if end is not None:
                self._log_winner(search_run, end)
        search_run.finish(exit_code=1 if end is None else 0)

    def _log_winner(self, search_run: Any, end: SearchEnd) -> None:
        import wandb

        assert self._info is not None
        figures = {part: dict(_flatten(values)) for part, values in end._asdict().items() if values}
        search_run.summary.update({f"{part}.{key}": value for part in figures for key, value in figures[part].items()})
        best = self._info.directory / "best"
        files = [path for path in sorted(best.rglob("*")) if path.is_file()]
        if files:
            artifact = wandb.Artifact(f"best-{self._token}", "model", metadata=figures.get("best", {}))
            for path in files:
                artifact.add_file(str(path), path.relative_to(best).as_posix())
            search_run.log_artifact(artifact)

    def _log(self, trial: Trial) -> None:
        """Logs a finished trial as a run unless it has one; the marker is written after all of it."""
        assert self._info is not None
        self._finished[trial.number] = trial
        name = f"trial-{trial.number:04d}"
        if name in self._logged:
            return
        run = self._open(name, name, {"trial": trial.number, **_list_settings(self._info), **trial.candidate.values})
        curve = trial.outcome.curve if trial.outcome else {}
        for epoch in range(max(map(len, curve.values()), default=0)):
            point = {key: float(values[epoch]) for key, values in curve.items() if epoch < len(values)}
            run.log(point, step=epoch + 1, commit=True)
        # After the curve, whose last point would otherwise replace the final metric of the same name.
        run.summary.update(_results(trial))
        run.finish(exit_code=1 if trial.status is Status.FAILED else 0)
        self._logged.add(name)
        with self._marker.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")

    def _open(self, identity: str, name: str, config: Mapping[str, Any]) -> Any:
        # Imported here: it takes a second, which a search without this tracker should not pay.
        import wandb

        assert self._info is not None
        return wandb.init(
            project=self._project,
            entity=self._entity,
            dir=str(self._info.directory),
            mode=self._mode,  # pyright: ignore[reportArgumentType]
            group=self._info.group,
            job_type=identity.partition("-")[0],
            name=name,
            id=f"{self._token}-{identity}",
            config=dict(config),
            reinit="create_new",
            settings=wandb.Settings(**_QUIET),
        )

    @property
    def _folder(self) -> Path:
        assert self._info is not None
        return self._info.directory / "wandb"

    @property
    def _marker(self) -> Path:
        """A text file: the token with which the ids of this search's runs begin, then the trials that are logged."""
        return self._folder / "logged.txt"

    def _read_marker(self) -> None:
        """Reads which runs are logged, and removes incomplete ones; the search's own run is always logged again."""
        text = self._marker.read_text(encoding="utf-8") if self._marker.is_file() else ""
        # A last line without its end was cut off by a kill.
        lines = text[: text.rfind("\n") + 1].split()
        if lines:
            self._token, self._logged = lines[0], set(lines[1:])
        else:
            self._token = secrets.token_hex(4)
        # Rewritten, so that an incomplete line does not spoil the next one; a kill here leaves the old file whole.
        fresh = self._marker.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in [self._token, *sorted(self._logged)]), encoding="utf-8")
        fresh.replace(self._marker)
        for folder in self._folder.glob(f"*run-*-{self._token}-*"):
            if folder.name.partition(f"-{self._token}-")[2] not in self._logged:
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self._folder / "artifacts", ignore_errors=True)


def _has_key() -> bool:
    """Whether wandb has a key to log in with."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL", "")).netloc
    hosts = (server,) if server and server not in _HOSTS else _HOSTS
    for path in [os.environ["NETRC"]] if "NETRC" in os.environ else ["~/.netrc", "~/_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            logins = netrc.netrc(os.path.expanduser(path))
            return any(logins.authenticators(host) is not None for host in hosts)
    return False


@contextlib.contextmanager
def _environment(name: str, value: str) -> Generator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _flatten(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The plain values of nested mappings under dotted names, without those that look like a secret."""
    for key, value in values.items():
        if _SECRET.search(str(key)) or (isinstance(value, str) and _SECRET_VALUE.search(value)):
            continue
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{key}.")
        elif value is None or isinstance(value, bool | int | float | str):
            yield f"{above}{key}", value


def _list_settings(info: SearchInfo) -> dict[str, Any]:
    """The settings that all runs of one search share."""
    settings = {"search.name": info.name, "search.space": info.space.name, "search.trials": info.trials}
    return {**settings, **dict(_flatten(info.config, "config."))}


def _results(trial: Trial) -> dict[str, Any]:
    """The results of a trial as a flat dict."""
    results: dict[str, Any] = {"status": str(trial.status)}
    for index, reward in enumerate(trial.reward or ()):
        results[f"reward.{index}" if index else "reward"] = reward
    if trial.outcome is not None:
        results.update({name: float(value) for name, value in trial.outcome.metrics.items()})
        results.update({f"seconds.{name}": float(value) for name, value in trial.outcome.seconds.items()})
        if trial.outcome.error is not None:
            results["error"] = trial.outcome.error
    return results


def _make_table(finished: Mapping[int, Trial]) -> Any:
    """All trials, a row each: number, results, values."""
    import wandb

    rows = [
        {"trial": number, **_results(trial), **trial.candidate.values} for number, trial in sorted(finished.items())
    ]
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    for name, cells in columns.items():
        # A column of a table has one type; a choice between numbers and words is words.
        kinds = {"number" if type(cell) in (int, float) else type(cell).__name__ for cell in cells if cell is not None}
        if len(kinds) > 1:
            columns[name] = [None if cell is None else str(cell) for cell in cells]
    return wandb.Table(columns=list(columns), data=[list(row) for row in zip(*columns.values(), strict=True)])
