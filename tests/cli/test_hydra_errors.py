"""Bad words on the command line: one sentence, exit code 2, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import CUSTOM_SPACE, Run, read_files, refused

BAD = {
    "serch": "there is no command 'serch': did you mean 'search'?",
    "search trails=3": "the key 'trails' is unknown: did you mean 'trials' or 'task'?",
    "search +trails=3": "the key 'trails' is unknown: did you mean 'trials' or 'task'?",
    "search searcher=reinforc": "searcher has no value 'reinforc': did you mean 'reinforce' or 'reinforce_lstm' or "
    "'reinforce_nb201'?",
    "search searcher.learningrate=3": "searcher.learningrate is unknown: l2l.searchers.Controller does not "
    "take it; did you mean 'update.learning_rate'?",
    "search searcher/policy=lst": "searcher/policy has no value 'lst': did you mean 'lstm'?",
    "search searcher=random searcher/policy=lstm": "this searcher has no group 'policy' to choose from; `l2l search "
    "--help` lists all groups.",
    "search searcher.policy.units=3": "searcher.policy.units is unknown: l2l.searchers.controllers.Factorised does not "
    "take it; expected one of 'temperature'.",
    "search trials=many": "trials=many does not fit: Value 'many' of type 'str' could not be converted to Integer.",
    "search trials=0": "trials must be an integer of at least 1, got 0.",
    "search trials=1,2": "trials=1,2 gives several values: add -m to sweep over them, or write a list as KEY=[A,B].",
    "search trials": "an override could not be read (Error parsing override 'trials', missing EQUAL at '<EOF>'): "
    "expected GROUP=NAME or KEY=VALUE, special characters in quotes.",
    "search final=3": "final takes no such value: give final=NAME or final.ARGUMENT=VALUE.",
    "search space={a:1}": "space takes no such value: give space=NAME or space.ARGUMENT=VALUE.",
    "search space=null": "space names no _target_; choose one of the group's values: space=NAME.",
    "search final=null final.seeds=3": "final.seeds=3 has nothing to change: final=null leaves that part out.",
    "search rungs.eta=3": "rungs.eta=3 has nothing to change: there is no rungs here; choose one with rungs=NAME.",
    "search ~final final.seeds=3": "final.seeds=3 has nothing to change: there is no final here; choose one with "
    "final=NAME.",
    "search space._target_=nowhere.space": "space._target_ names 'nowhere.space', which cannot be imported (No module "
    "named 'nowhere'); expected the dotted path of a class or function that Python finds from this folder.",
    "search space.depth=[3,1]": "depth must be [low, high] with 1 <= low <= high, got [3, 1].",
    "search space.widths=8": "space.widths must be a list, each entry an integer, got 8.",
    "search space.activations=[rulu]": "activation 'rulu' is unknown: did you mean 'relu' or 'elu' or 'silu'?",
    "search executor=local executor.workers=0": "executor.workers must be an integer of at least 1 or null, got 0.",
    "search space.batch_sizes=[5000]": "space 'mlp': a batch_size of 5000 cannot be taken from the 1077 examples of "
    "the training split of 'digits'; leave it out of the space.",
    "search space._target_=wild.space space.batch=13": "wild.space could not be called: ValueError: thirteen "
    "is unlucky.",
    "resume": "resume takes one run folder: l2l resume RUN.",
    "resume nowhere trials=9": "resume takes one run folder: l2l resume RUN. For more trials give the search's own "
    "command again, with trials=N and out=RUN.",
    "resume nowhere": "nowhere/config.yaml is missing: expected the folder of a search that `l2l search` began; a "
    "search that was begun in Python continues with the same call of l2l.search(..., out=RUN).",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_sentence(run: Run, folder: Path, words: str) -> None:
    (folder / "wild.py").write_text(CUSTOM_SPACE)
    before = read_files(folder)
    command, *overrides = words.split()
    assert refused(run(command, *(("executor=inline",) if command == "search" else ()), *overrides)) == BAD[words]
    assert {name: content for name, content in read_files(folder).items() if "__pycache__" not in name} == before
    assert not (folder / "runs").exists()
