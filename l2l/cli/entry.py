"""The entry point of the command line: which command runs, and how the process exits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from l2l.cli.compare import compare
from l2l.cli.completion import complete
from l2l.cli.resume import resume
from l2l.cli.search import search
from l2l.cli.show import show
from l2l.cli.signals import EXIT_CODES, install_handlers, restore_handlers, signal_number
from l2l.errors import InputError, SearchError, flatten_message, suggest_names
from l2l.run.interrupts import SearchInterrupted

HELP = """\
l2l: search for neural architectures together with their training recipes

  l2l search [GROUP=NAME] [KEY=VALUE] ...   search, and export the best model as a Flax module
  l2l resume RUN                            continue the search in the run folder RUN
  l2l compare [searcher=[NAME,NAME]] ...    compare searchers, with equal budgets and paired seeds
  l2l show RUN [out=FILE]                   draw the architecture that a search found
  l2l show space=NAME ...                   list the choices of a search space

  l2l search --help     all groups with their values, and the configuration
  l2l search            64 perceptrons on the digits; takes 90 seconds on two cores
  l2l search space=cnn task=fashion_mnist searcher=evolution trials=12
  l2l search -m searcher=reinforce,tpe,random seed=0,1 trials=16
  l2l compare --help    the searchers and the budget of a comparison
  l2l show runs/mine    writes the picture runs/mine/architecture.svg and prints an outline
  l2l show space=transformer space.depth=[1,2]
  l2l --version
  eval "$(l2l -sc install=bash)"    completes commands, groups and values with the Tab key
"""
COMMANDS = {"search": search, "resume": resume, "compare": compare, "show": show}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 done, 1 the search failed, 2 bad input, 130 or 143 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if words[0] == "--version":
        from l2l import __version__

        print(f"l2l {__version__}")
        return
    handlers = install_handlers()
    code = _run_command(words[0], words[1:])
    if arguments is not None:  # a Python program called this and continues
        restore_handlers(handlers)
    _exit(code)


def _run_command(name: str, words: list[str]) -> int:
    """Runs a command and returns its exit code; every expected end prints one sentence."""
    try:
        if name in ("-sc", "--shell-completion"):
            complete(words, COMMANDS)
            return 0
        if name not in COMMANDS:
            raise InputError(f"there is no command {name!r}: {suggest_names(name, COMMANDS)}")
        COMMANDS[name](words)
    except InputError as error:
        print(f"l2l: {flatten_message(error)}", file=sys.stderr)
        return 2
    except SearchError as error:
        print(f"l2l: {flatten_message(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        number = signal_number(error)
        print(f"l2l: interrupted by {number.name}; {_describe_continuation(name, error)}", file=sys.stderr)
        return EXIT_CODES[number]
    return 0


def _describe_continuation(command: str, interrupt: KeyboardInterrupt) -> str:
    """How to continue after an interrupt."""
    if command == "compare":
        return "the same command continues searches that train; those on a tabular benchmark start again."
    if isinstance(interrupt, SearchInterrupted):
        return f"nothing is lost: `l2l resume {interrupt.directory}` continues."
    return "no trial was running."


def _exit(code: int) -> None:
    """Ends the process, at once if a tracker was left behind: its thread would hold up a normal exit."""
    from l2l.trackers.background import is_any_running

    if is_any_running():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
