"""Text, attention and experts from the command line: what cannot be trained is one sentence, before anything begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run, refused

FILES = {
    "good.txt": b"To be, or not to be: " * 100,
    "short.txt": b"To be, or not to be: " * 10,
    "empty.txt": b"",
    "one.txt": b"a" * 100,
    "latin.txt": b"abc\xff" * 50,
    "labelled.txt": b"a\tx\nb\ty\n" * 10,
    "plain.txt": b"a\tx\nno label\n",
    "single.csv": b"a,x\na,y\n",
    "zero.txt": b"a\tx\nb\ty\0\n",
}
TEXT = "task=text task.path="
LABELLED = "task=labelled_text task.path="
ONCE = ("executor=inline", "tracker=none", "final=null", "trials=1", "batch=1", "objective.limits.parameters=1")
SMALL = (
    *("space.depth=[1,1]", "space.widths=[8]", "space.experts=[4]", "space.ks=[1]", "space.capacities=[1.0]"),
    *("space.mlp_ratios=[1]", "space.expert_ratios=[1]", "space.batch_sizes=[32]", "space.optimizers=[adamw]"),
)
BAD = {
    f"{TEXT}good.txt space.heads=[3]": "heads must be 1 or even, so that two can share keys, got 3.",
    f"{TEXT}good.txt space.head_sizes=[7]": "head_sizes must be even, for rotary positions rotate pairs of features, "
    "got 7.",
    f"{TEXT}good.txt space.windows=[0]": "windows must be integers of at least 1, got 0.",
    f"{TEXT}good.txt space.ks=[4] space.experts=[2]": "ks must be at most the number of experts, got 4 of 2.",
    f"{TEXT}good.txt space.capacities=[0]": "capacities must be numbers above 0, got 0.",
    f"{TEXT}good.txt space.routers=[softmx]": "router 'softmx' is unknown: did you mean 'softmax'?",
    "task=text": "task.path has no value; give task.path=VALUE.",
    f"{TEXT}": "a text's path must be the name of a text file, got ''.",
    f"{TEXT}empty.txt": "HERE/empty.txt is empty; a text to learn needs at least two different characters.",
    f"{TEXT}one.txt": "HERE/one.txt consists of one character only, 'a'; a text to learn needs at least two "
    "different characters.",
    f"{TEXT}latin.txt": "HERE/latin.txt is not UTF-8 (byte 3 is 0xff); convert it, or give task.unit=byte.",
    f"{TEXT}good.txt task.context=5000": "HERE/good.txt: the train part has 1890 characters, too few for a context of "
    "5000 and its successor; choose a shorter task.context or another share.",
    f"{TEXT}short.txt": "HERE/short.txt: the validation part has 11 characters, too few for a context of 64 and its "
    "successor; choose a shorter task.context or another share.",
    f"{TEXT}.": "HERE is a folder; give the path of a text file.",
    f"{TEXT}gone.txt": "there is no text gone.txt; give the path of a text file, or set L2L_DATA to the folder that it "
    "is relative to.",
    f"{TEXT}good.txt task.unit=word": "good: unit must be one of character, byte, got 'word'.",
    f"{TEXT}good.txt task.context=0": "good: context must be an integer of at least 1, got 0.",
    f"{TEXT}good.txt task.context=64.5": "task.context must be an integer, got 64.5.",
    f"{TEXT}good.txt task.test=1": "good: validation and test must be shares above 0 whose sum is below 1, got 0.05 "
    "and 1.",
    f"{LABELLED}plain.txt": "HERE/plain.txt: line 2 has no tab; expected a label, a tab and a text.",
    f"{LABELLED}single.csv": "HERE/single.csv has one class only, 'a'; expected at least two different labels.",
    f"{LABELLED}zero.txt task.unit=byte": "HERE/zero.txt: line 2 has the byte 0, which marks padding; remove it.",
    f"{LABELLED}labelled.txt": "space 'transformer': a batch_size of 64 cannot be taken from the 16 examples of the "
    "training split of 'labelled'; leave it out of the space.",
}
MISFITS = {
    f"space=transformer {TEXT}good.txt space.windows=[128]": "a window of 128 tokens is longer than the context of 64; "
    "take smaller ones.",
    "space=attention task=digits space.windows=[4,64]": "a window of 64 tokens is longer than the context of 16; take "
    "smaller ones.",
    f"space=moe {TEXT}good.txt space.capacities=[0.001]": "a capacity of 0.001 leaves an expert less than one of 64 "
    "tokens, with k=1 and 8 experts; take larger capacities, or fewer experts.",
    f"space=moe {TEXT}good.txt space.routers=[expert_choice]": "the router expert_choice looks ahead, which a "
    "next-token model must not; take other routers.",
    f"space=cnn {LABELLED}labelled.txt": "a convolutional network needs images [H, W, C], and the task has inputs "
    "[64]: take space=mlp, transformer, attention or moe.",
    f"space=mlp {TEXT}good.txt": "a perceptron or convolutional network has one answer for an example, and the task "
    "asks for one for each token: take space=transformer, attention or moe.",
}


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts."""
    monkeypatch.delenv("L2L_DATA", raising=False)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def sentence(run: Run, here: Path, words: str) -> str:
    """What a search is refused with, once it has left the folder as it was."""
    message = refused(run("search", *ONCE, *words.split()))
    assert {path.name: path.read_bytes() for path in here.iterdir()} == FILES
    return message


@pytest.mark.parametrize("words", BAD)
def test_what_cannot_be_trained_is_one_sentence(run: Run, here: Path, words: str) -> None:
    assert sentence(run, here, f"space=transformer {words}") == BAD[words].replace("HERE", str(here))


@pytest.mark.parametrize("words", MISFITS)
def test_what_does_not_fit_the_task_is_one_sentence(run: Run, here: Path, words: str) -> None:
    assert sentence(run, here, words) == MISFITS[words]


def test_rows_and_images_may_look_ahead(run: Run, here: Path) -> None:
    ended = run("search", *ONCE, *SMALL, "searcher=random", "space=moe", "task=digits", "space.routers=[expert_choice]")
    assert (ended.code, ended.out) == (1, "")  # nothing but the limit is in its way
    assert ended.err.startswith("l2l: the only trial failed: refused: ")
    assert ended.err.endswith("parameters, objective.limits.parameters is 1\n")
