"""`l2l show`: draws the best architecture of a run, or lists the choices of a space."""

from __future__ import annotations

import os
import re
from typing import Any

from l2l.cli import config
from l2l.cli.compose import instantiate_config, run_jobs
from l2l.cli.overrides import SWEEP_FLAGS
from l2l.errors import InputError, check_part
from l2l.machine import compilation_cache

USAGE = "l2l show RUN [out=FILE], or l2l show space=NAME [space.ARGUMENT=VALUE] [task=NAME] [trials=N] ..."


def show(words: list[str]) -> None:
    """Draws the best architecture in a run folder, or prints a space as a table. Raises: InputError."""
    if {"-h", "--help"}.intersection(words):
        print(USAGE)
        return
    if flags := SWEEP_FLAGS.intersection(words):
        raise InputError(f"show takes no {flags.pop()}: it shows one space, or one run.")
    if not words:
        raise InputError(f"show takes the folder of a run, or a space: {USAGE}")
    space_words = [word for word in words if re.match(r"[+~]*(space|experiment)\b", word)]
    os.environ.update(compilation_cache())  # before JAX is imported
    if os.path.isdir(words[0]) or not re.search(r"^[-+~]|=", words[0]):
        _show_run(words[0], words[1:], space_words)
    else:
        _show_space(words, space_words)


def _show_space(words: list[str], space_words: list[str]) -> None:
    """Prints the choices of a space as a table, and the number of its programs if there is a task."""

    def print_listing(plain: dict[str, Any]) -> None:
        from l2l.show.space_listing import list_choices

        space = _build_space(plain)
        if not space_words:
            raise InputError(f"show takes the folder of a run, or a space: {USAGE}")
        if plain["out"] is not None:
            raise InputError("show space=NAME prints a table and takes no out=; out=FILE is for the picture of a run.")
        lines = [list_choices(space)]
        if any(re.match(r"[+~]*task\b", word) for word in words):
            lines.append(_describe_programs(space, plain))
        print("\n".join(lines))

    run_jobs("search", words, print_listing)


def _describe_programs(space: Any, plain: dict[str, Any]) -> str:
    """How many programs a search of this configuration needs. Raises: InputError if task and space do not fit."""
    import jax

    from l2l.show.programs import describe_programs

    jax.config.update("jax_platforms", "cpu")  # nothing is trained
    task = instantiate_config(plain["task"])
    task.check()
    objective = instantiate_config(plain["objective"])(space=space, task=task, seed=0)
    objective.check()
    return describe_programs(space, objective, plain["trials"])


def _show_run(folder: str, words: list[str], space_words: list[str]) -> None:
    """Draws the best architecture of a run; `space_words` choose the space if it is not a built-in one."""
    files = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    others = [word for word in words if word not in space_words and not word.startswith("out=")]
    if others or len(files) > 1 or "" in files:
        word = others[0] if others else f"out={files[-1]}"
        raise InputError(f"show RUN takes one out=FILE and, where the space is your own, space=..., got {word}.")

    def draw(plain: dict[str, Any] | None) -> None:
        import jax

        from l2l.show.architecture import draw_architecture

        jax.config.update("jax_platforms", "cpu")  # nothing is trained
        space = _build_space(plain) if plain else None
        print(draw_architecture(folder, files[0] if files else None, space))

    if space_words:
        run_jobs("search", space_words, draw)
    else:
        draw(None)


def _build_space(plain: dict[str, Any]) -> Any:
    """The space of a configuration; the whole configuration is checked."""
    config.check(plain)

    from l2l.space import SearchSpace

    space = instantiate_config(plain["space"])
    check_part("space", space, "a SearchSpace", SearchSpace)
    return space
