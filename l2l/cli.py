"""The command line: `l2l COMMAND [overrides]`. Here and nowhere else: argv, Hydra, exit codes and printing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable, Generator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from l2l.errors import InputError, SearchError, nearest

HELP = """\
l2l: search for neural architectures together with their training recipes

  l2l search [GROUP=NAME] [KEY=VALUE] ...   search, and hand the winner over as a Flax module
  l2l resume RUN                            continue the search in the run folder RUN

  l2l search --help     every group, its values and the configuration
  l2l search            64 perceptrons on the digits: a minute and a half on two cores
  l2l search space=cnn task=fashion_mnist searcher=evolution trials=12
  l2l search -m searcher=reinforce,tpe,random seed=0,1 trials=16
  l2l --version
"""
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}
DISCARDING = {"_xla_gc_callback", "__del__"}
"""Functions that the collector calls: Python throws away what they raise."""
RUNNING = {"_drive", "_conclude"}
"""The parts of `l2l.loop.search` that an interrupt ends in good order."""


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
    commands = {"search": _search, "resume": _resume}
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
        raise InputError(f"there is no command {word!r}: {nearest(word, commands)}")

    return refuse


def _guarded(command: Callable[[list[str]], None], words: list[str]) -> int:
    """The exit code of a command; every expected end is one sentence."""

    for number in INTERRUPTED:
        signal.signal(number, _interrupt)
    try:
        command(words)
    except InputError as error:
        print(f"l2l: {_sentence(error)}", file=sys.stderr)
        return 2
    except SearchError as error:
        print(f"l2l: {_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = getattr(error, "number", signal.SIGINT)
        place = next(iter(getattr(error, "__notes__", ())), None)
        then = f"nothing is lost: `l2l resume {place}` continues." if place else "no trial was running."
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


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())


def _search(words: list[str]) -> None:
    """`l2l search`: Hydra composes, checks and sweeps; each job is one call of `l2l.loop.search`."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from l2l import config

    config.register()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # its exceptions come to `_translated`, not to the screen
    sys.path.append(os.getcwd())  # a user's own space lies in the folder the command is typed in

    failures: list[Exception] = []
    composed: list[bool] = []

    @hydra.main(version_base="1.3", config_path=str(config.folder()), config_name="search")
    def job(cfg: Any) -> None:
        composed.append(True)
        # Kept from Hydra, which would print them its own way; a sweep goes on with its next job.
        try:
            plain: Any = OmegaConf.to_container(cfg, resolve=True)
            about = HydraConfig.get()
            if about.mode == RunMode.MULTIRUN:
                choices = "-".join(str(about.runtime.choices[name]) for name in ("space", "task", "searcher"))
                plain["out"] = plain["out"] or f"{about.sweep.dir}/{about.job.num}-{choices}"
                plain["group"] = plain["group"] or Path(about.sweep.dir).name
            _run(plain)
        except (InputError, SearchError) as error:
            if failures:
                print(f"l2l: {_sentence(error)}", file=sys.stderr)
            failures.append(error)

    sys.argv = ["l2l search", *_opened(words, config.GROUPS)]
    try:
        with _translated():
            job()
    except AssertionError as error:  # what OmegaConf makes of an argument of a part that is none
        if composed:
            raise
        raise InputError(_of_nothing(words)) from error
    except ValueError as error:  # some of Hydra's own checks raise no more than that
        if composed or isinstance(error, InputError):
            raise
        raise InputError(_hydra_sentence([error])) from error
    if failures:
        raise failures[0]


def _of_nothing(words: Sequence[str]) -> str:
    """Which argument has no part to change."""
    for word in words:
        group = word.lstrip("+~").partition(".")[0]
        if group in ("rungs", "final") and "." in word.partition("=")[0]:
            return f"{word} has nothing to change: there is no {group} here; choose one with {group}=NAME."
    return "an override changes a part that is none: choose one with GROUP=NAME first."


def _opened(words: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Overrides as Hydra wants them: `++` before arguments of a group's class, `~` for a group that is null."""
    # YAML files list only what differs from a class's defaults, so to Hydra any other argument is a new one.
    argument, nothing = (re.compile(rf"({'|'.join(groups)}){end}") for end in (r"\.[^=]+=.*", "=null"))
    gone = {found[1] for word in words if (found := nothing.fullmatch(word))}
    for word in words:
        if (found := argument.fullmatch(word)) and found[1] in gone:
            raise InputError(f"{word} has nothing to change: {found[1]}=null leaves that part out.")
    words = [f"++{word}" if argument.fullmatch(word) else word for word in words]
    return [f"~{word.removesuffix('=null')}" if nothing.fullmatch(word) else word for word in words]


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Hydra's complaints as one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        causes: list[BaseException] = [error]
        while causes[-1].__cause__ is not None:
            causes.append(causes[-1].__cause__)
        for cause in causes:
            if isinstance(cause, InputError | SearchError):
                raise cause from None
        raise InputError(_hydra_sentence(causes)) from error


def _hydra_sentence(causes: Sequence[BaseException]) -> str:
    """What Hydra said, with the nearest name where it said that one is unknown."""
    from l2l.config import SearchConfig

    text = "\n".join(str(cause) for cause in causes)
    known = [each.name for each in fields(SearchConfig) if not each.name.startswith("_")]
    if found := re.search(r"Could not override '(\w+)", text):
        if found[1] not in known:
            return f"the key {found[1]!r} is unknown: {nearest(found[1], known)}"
        return f"{found[1]} takes no such value: give {found[1]}=NAME or {found[1]}.ARGUMENT=VALUE."
    if found := re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text):
        options = re.search(r"Available options in '[^']+':\s*((?:\s+\S+\n?)+)", text)
        return f"{found[1]} has no value {found[2]!r}: {nearest(found[2], options[1].split() if options else ())}"
    if found := re.search(r"Error merging override (\S+)", text):
        reason = str(causes[-1]).splitlines()[0]
        return f"{found[1]} does not fit: {reason}."
    if "override_grammar" in text:
        reason = ", ".join(text.splitlines()[:-1])
        return f"an override could not be read ({reason}): expected GROUP=NAME or KEY=VALUE, special signs in quotes."
    if found := re.search(r"Ambiguous value for argument '(.*)'", text):
        return f"{found[1]} gives several values: add -m to sweep over them, or write a list as KEY=[A,B]."
    if found := re.search(r"Config group override must be a string or a list. Got (\w+)", text):
        return f"a group was given a value of type {found[1]}: expected the name of one of its values, GROUP=NAME."
    if found := re.search(r"Error in call to target '([^']+)'", text):
        return f"{found[1]} could not be called: {type(causes[-1]).__name__}: {_sentence(causes[-1]).rstrip('.')}."
    first = " ".join(text.split("\n\n")[0].split())
    return f"{first.split('. ')[0].rstrip('.')}."


def _resume(words: list[str]) -> None:
    """`l2l resume RUN`: the search that RUN's `config.yaml` describes, from where it stopped."""
    import yaml

    if len(words) != 1 or words[0].startswith("-"):
        raise InputError("resume takes one run folder: l2l resume RUN.")
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
        raise InputError(f"{place} is not YAML ({_sentence(error)}); restore it from a copy.") from None
    if not isinstance(plain, dict) or plain.get("_target_") != "l2l.loop.search":
        raise InputError(f"{place} is not the configuration of a search.")
    _run({**plain, "out": words[0]})


def _run(plain: dict[str, Any]) -> None:
    """Checks and instantiates a resolved configuration, calls it and prints how to use what was found."""
    from l2l import config

    os.environ.update(config.compilation_cache())  # before JAX is imported
    config.check(plain)
    from hydra.utils import instantiate

    with _translated():
        call = instantiate(plain, _convert_="all")
    if not call.keywords["executor"].in_process:
        import jax

        jax.config.update("jax_platforms", "cpu")  # the accelerators belong to the workers
    print(_ending(call(config=plain), plain))


def _ending(result: Any, plain: dict[str, Any]) -> str:
    """Where the winner lies, and three lines that load and score it."""
    from l2l.fingerprint import BUILT_IN

    test = result.record["test"]
    best = (result.directory / "best").resolve()
    if test is None:
        return f"results: {result.directory.resolve()}"
    space, task = plain["space"]["_target_"], plain["task"]
    own = space.rpartition(".")[0] not in BUILT_IN.values()
    modules = ["l2l", task["_target_"].rpartition(".")[0], *([space.rpartition(".")[0]] if own else [])]
    handed = f", space={_call(plain['space'])}" if own else ""
    spread = f", {test['mean']:.4f} ± {test['std']:.4f} over {test['seeds']} seeds" if test["seeds"] else ""
    warning = (
        "" if test["reproduced"] else "\nThe winner's training came out otherwise here; best/ has the scores above."
    )
    return f"""\
test {test["metric"]} {test["trial"]:.4f} (trial {result.best.number}{spread})
best: {best}{warning}

    import {", ".join(modules)}
    model = l2l.load({str(best)!r}{handed})
    print(l2l.evaluate(model, {_call(task)}))"""


def _call(node: dict[str, Any]) -> str:
    """The Python call that a configuration stands for."""
    arguments = ", ".join(f"{name}={value!r}" for name, value in node.items() if name != "_target_")
    return f"{node['_target_']}({arguments})"
