"""The command line: `l2l COMMAND [overrides]`. Here and nowhere else: argv, Hydra, exit codes and printing."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from l2l import machine
from l2l.cli.overrides import hydra_sentence, of_nothing, opened, sentence, translated
from l2l.errors import InputError, SearchError, suggest_names

HELP = """\
l2l: search for neural architectures together with their training recipes

  l2l search [GROUP=NAME] [KEY=VALUE] ...   search, and hand the winner over as a Flax module
  l2l resume RUN                            continue the search in the run folder RUN
  l2l compare [searcher=[NAME,NAME]] ...    compare searchers, with equal budgets and paired seeds
  l2l show RUN [out=FILE]                   draw the architecture that was found
  l2l show space=NAME ...                   list what a space lets a search choose

  l2l search --help     every group, its values and the configuration
  l2l search            64 perceptrons on the digits: a minute and a half on two cores
  l2l search space=cnn task=fashion_mnist searcher=evolution trials=12
  l2l search -m searcher=reinforce,tpe,random seed=0,1 trials=16
  l2l compare --help    the rows and the budget of a comparison
  l2l show runs/mine    its picture, runs/mine/architecture.svg, and an outline
  l2l show space=transformer space.depth=[1,2]
  l2l --version
"""
SHOWING = "l2l show RUN [out=FILE], or l2l show space=NAME [space.ARGUMENT=VALUE] ..."
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}
DISCARDING = {"_xla_gc_callback", "__del__"}
"""Functions that the collector calls: Python throws away what they raise."""
SWEEP = {"-m", "--multirun"}
RUNNING = {"_drive", "_conclude", "_pooled"}
"""What an interrupt ends in good order: parts of `l2l.search`, and of a comparison on a table."""


class _Interrupt(KeyboardInterrupt):
    """A signal that ends the search in good order."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point; exits with 0, 1 (the search failed), 2 (bad input), 130 or 143 (interrupted)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if words[0] == "--version":
        from l2l import __version__

        print(f"l2l {__version__}")
        return
    commands = {"search": _search, "resume": _resume, "compare": _compare, "show": _show}
    before = {number: signal.getsignal(number) for number in INTERRUPTED}
    code = _guarded(commands.get(words[0]) or _unknown(words[0], commands), words[1:])
    if arguments is not None:  # the caller goes on after this
        for number, handler in before.items():
            signal.signal(number, handler)
    if any(thread.name.startswith("tracker ") for thread in threading.enumerate()):
        # A tracker was left behind: what it hangs in would hold up the interpreter's own end as well.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _unknown(word: str, commands: dict[str, Any]) -> Callable[[list[str]], None]:
    def refuse(_: list[str]) -> None:
        raise InputError(f"there is no command {word!r}: {suggest_names(word, commands)}")

    return refuse


def _guarded(command: Callable[[list[str]], None], words: list[str]) -> int:
    """The exit code of a command; every expected end is one sentence."""
    for number in INTERRUPTED:
        signal.signal(number, _interrupt)
    try:
        command(words)
    except InputError as error:
        print(f"l2l: {sentence(error)}", file=sys.stderr)
        return 2
    except SearchError as error:
        print(f"l2l: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        place = next(iter(getattr(error, "__notes__", ())), None)
        then = f"nothing is lost: `l2l resume {place}` continues." if place else "no trial was running."
        if command is _compare:
            then = "searches that train are continued by the same command, those on a table begin again."
        print(f"l2l: interrupted by {number.name}; {then}", file=sys.stderr)
        return INTERRUPTED[number]
    return 0


def _interrupt(number: int, frame: types.FrameType | None) -> None:
    """Answers a signal: a search that runs is ended in good order, anything before it at once."""
    called = [each.f_code.co_name for each, _ in traceback.walk_stack(frame)]
    signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once
    if not DISCARDING.isdisjoint(called):
        # What is raised here is thrown away, so it is raised a moment later.
        signal.signal(signal.SIGALRM, lambda _, later: _interrupt(number, later))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        return
    if not RUNNING.isdisjoint(called):
        raise _Interrupt(number)
    # Imports swallow what is raised in them, and a process that is killed loses nothing either.
    with contextlib.suppress(Exception):  # the signal may have come in the midst of a write
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"l2l: interrupted by {signal.Signals(number).name}; no trial was running.\n".encode())
    os._exit(INTERRUPTED[signal.Signals(number)])


def _search(words: list[str]) -> None:
    """`l2l search`: Hydra composes, checks and sweeps; each job is one call of `l2l.search`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from l2l.cli import config

    def job(plain: dict[str, Any]) -> None:
        about = HydraConfig.get()
        if about.mode == RunMode.MULTIRUN:
            choices = "-".join(str(about.runtime.choices[name]) for name in ("space", "task", "searcher"))
            plain["out"] = plain["out"] or f"{about.sweep.dir}/{about.job.num}-{choices}"
            plain["group"] = plain["group"] or Path(about.sweep.dir).name
        _run(config.anchored(plain))

    _composed("search", words, job)


def _compare(words: list[str]) -> None:
    """`l2l compare`: the rows are searchers by name, each composed as a search would have it."""
    from l2l.cli import config

    def job(plain: dict[str, Any]) -> None:
        names = plain.pop("rows")
        if twice := [row for place, row in enumerate(names) if row in names[:place]]:
            raise InputError(f"the row {twice[0]!r} is given twice; a searcher runs once with each seed.")
        plain["searcher"] = {row: _row(row) for row in names}
        os.environ.update(machine.compilation_cache())  # before JAX is imported
        config.check(plain, config.CompareConfig)
        import jax
        from hydra.utils import instantiate

        with translated():
            call = instantiate(plain, _convert_="all")
        if not call.keywords["executor"].in_process:
            jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the workers
        out = Path(plain["out"]).resolve()
        comparison = call(command=f"l2l compare {shlex.join(words)}".strip(), say=functools.partial(print, flush=True))
        print((out / "compare.md").read_text().partition("## What it took")[0])
        print(f"recommended: {comparison.recommended or 'none, since none is better than random'}\nresults: {out}")

    for word in words:
        if word in SWEEP:
            raise InputError(f"compare takes no {word}: its rows are searcher=[NAME,NAME], in one comparison.")
        if word.lstrip("+~").startswith(("searcher.", "searcher/")):
            raise InputError(
                f"{word} says not which row it is for: give a row its arguments, 'searcher=[\"NAME KEY=VALUE\"]'."
            )
    given = [re.sub(r"^searcher=([^\[].*)", r"searcher=[\1]", word) for word in words]
    _composed("compare", [re.sub(r"^searcher=", "rows=", word) for word in given], job)


def _row(row: str) -> dict[str, Any]:
    """The searcher of a row: a name, and arguments as `population=10` or `searcher/policy=lstm`."""
    from hydra import compose
    from omegaconf import OmegaConf

    name, *words = row.split() or [""]
    for word in words:
        if "=" not in word or word.partition("=")[0] in ("trials", "batch", "seed", "seeds"):
            raise InputError(f"the row {row!r} may have arguments of the searcher alone, got {word}.")
    given = [word if word.startswith("searcher/") else f"++searcher.{word.removeprefix('searcher.')}" for word in words]
    with translated():
        found: Any = OmegaConf.to_container(compose(f"searcher/{name}", given), resolve=True)
    return found["searcher"]


def _composed(root: str, words: list[str], run: Callable[[dict[str, Any]], None]) -> None:
    """Calls `run` with every configuration that the words make of a root's YAML."""
    import hydra
    from omegaconf import OmegaConf

    from l2l.cli import config

    config.register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # its exceptions come to `translated`, not to the screen
    sys.path.append(os.getcwd())  # a user's own space lies in the folder the command is typed in

    failures: list[Exception] = []
    composed: list[bool] = []

    @hydra.main(version_base="1.3", config_path=str(config.folder()), config_name=root)
    def job(cfg: Any) -> None:
        composed.append(True)
        # Kept from Hydra, which would print them its own way; a sweep goes on with its next job.
        try:
            plain: Any = OmegaConf.to_container(cfg, resolve=True)
            run(plain)
        except (InputError, SearchError) as error:
            if failures:
                print(f"l2l: {sentence(error)}", file=sys.stderr)
            failures.append(error)

    words = [*SWEEP.intersection(words), *(word for word in words if word not in SWEEP)]  # it goes nowhere between
    sys.argv = [f"l2l {root}", *opened(words, config.GROUPS)]
    try:
        with translated():
            job()
    except AssertionError as error:  # what OmegaConf makes of an argument of a part that is none
        if composed:
            raise
        raise InputError(of_nothing(words)) from error
    except ValueError as error:  # some of Hydra's own checks raise no more than that
        if composed or isinstance(error, InputError):
            raise
        raise InputError(hydra_sentence([error])) from error
    if failures:
        raise failures[0]


def _resume(words: list[str]) -> None:
    """`l2l resume RUN`: the search that RUN's `config.yaml` describes, from where it stopped."""
    import yaml

    if len(words) != 1 or words[0].startswith("-"):
        more = " For more trials give the search's own command again, with trials=N and out=RUN." if words[1:] else ""
        raise InputError(f"resume takes one run folder: l2l resume RUN.{more}")
    place = Path(words[0]) / "config.yaml"
    if not place.is_file():
        raise InputError(
            f"{place} is missing: expected the folder of a search that `l2l search` began; "
            "one that was begun in Python continues with the same call of l2l.search(..., out=RUN)."
        )
    sys.path.append(os.getcwd())
    try:
        plain = yaml.safe_load(place.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{place} is not YAML ({sentence(error)}); restore it from a copy.") from None
    if not isinstance(plain, dict) or plain.get("_target_") != "l2l.search":
        raise InputError(f"{place} is not the configuration of a search.")
    _run({**plain, "out": words[0]})


def _show(words: list[str]) -> None:
    """`l2l show`: what the run in a folder found as a picture, or what a space is made of as a table."""

    if {"-h", "--help"}.intersection(words):
        print(SHOWING)
        return
    if sweeps := SWEEP.intersection(words):
        raise InputError(f"show takes no {sweeps.pop()}: it shows one space, or one run.")
    spaces = [word for word in words if re.match(r"[+~]*(space|experiment)\b", word)]
    os.environ.update(machine.compilation_cache())  # before JAX is imported
    if words and (os.path.isdir(words[0]) or not re.search(r"^[-+~]|=", words[0])):
        _draw(words[0], words[1:], spaces)
        return

    def job(plain: dict[str, Any]) -> None:
        from l2l.show.space_listing import listing

        found = _space(plain)
        if not spaces:
            raise InputError(f"show takes the folder of a run, or a space: {SHOWING}")
        if plain["out"] is not None:
            raise InputError("show space=NAME prints a table and takes no out=; out=FILE is for the picture of a run.")
        print(listing(found))

    if not words:
        raise InputError(f"show takes the folder of a run, or a space: {SHOWING}")
    _composed("search", words, job)


def _draw(place: str, words: list[str], spaces: list[str]) -> None:
    """Draws what was found in a folder; `spaces` are those words that say which space of one's own it was found in."""
    outs = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    others = [word for word in words if word not in spaces and not word.startswith("out=")]
    if others or len(outs) > 1 or "" in outs:
        wrong = others[0] if others else f"out={outs[-1]}"
        raise InputError(f"show RUN takes one out=FILE and, where the space is your own, space=..., got {wrong}.")

    def draw(plain: dict[str, Any] | None) -> None:
        import jax

        from l2l.show import architecture

        jax.config.update("jax_platforms", "cpu")  # nothing is trained
        print(architecture.architecture(place, outs[0] if outs else None, _space(plain) if plain else None))

    if spaces:
        _composed("search", spaces, draw)
    else:
        draw(None)


def _space(plain: dict[str, Any]) -> Any:
    """The space of a configuration, all of which is checked."""
    from l2l.cli import config

    config.check(plain)
    from hydra.utils import instantiate

    from l2l.space import SearchSpace

    with translated():
        found = instantiate(plain["space"], _convert_="all")
    if not isinstance(found, SearchSpace):
        raise InputError(f"space must be a SearchSpace, got {found!r:.80}.")
    return found


def _run(plain: dict[str, Any]) -> None:
    """Checks and instantiates a resolved configuration, calls it and prints how to use what was found."""
    from l2l.cli import config

    os.environ.update(machine.compilation_cache())  # before JAX is imported
    config.check(plain)
    from hydra.utils import instantiate

    with translated():
        call = instantiate(plain, _convert_="all")
    if not call.keywords["executor"].in_process:
        import jax

        jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the workers
    print(_ending(call(config=plain), plain))


def _ending(result: Any, plain: dict[str, Any]) -> str:
    """Where the winner lies, and three lines that load and score it."""
    from l2l.builtin import BUILT_IN
    from l2l.run.front import FIGURE

    test = result.record["test"]
    best = (result.directory / "best").resolve()
    front = result.record.get("front")
    members = front and f"front: {len(front['members'])} trials, knee {front['knee']}: {result.directory / FIGURE}\n"
    if test is None:
        return f"{members or ''}results: {result.directory.resolve()}"
    space, task = plain["space"]["_target_"], plain["task"]
    own = space.rpartition(".")[0] not in BUILT_IN.values()
    modules = ["l2l", task["_target_"].rpartition(".")[0], *([space.rpartition(".")[0]] if own else [])]
    handed = f", space={_call(plain['space'])}" if own else ""
    spread = f", {test['mean']:.4f} ± {test['std']:.4f} over {test['seeds']} seeds" if test["seeds"] else ""
    warning = (
        "" if test["reproduced"] else "\nThe winner's training came out otherwise here; best/ has the scores above."
    )
    return f"""\
{members or ""}test {test["metric"]} {test["trial"]:.4f} (trial {result.best.number}{spread})
best: {best}{warning}

    import {", ".join(modules)}
    model = l2l.load({str(best)!r}{handed})
    print(l2l.evaluate(model, {_call(task)}))"""


def _call(node: dict[str, Any]) -> str:
    """The Python call that a configuration stands for."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in node.items() if name != "_target_")
    return f"{node['_target_']}({arguments})"
