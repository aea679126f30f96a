"""Shell completion: commands, groups and values."""

from __future__ import annotations

import pytest
from commands import Run


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("l2l ", "compare resume search show"),
        ("l2l s", "search show"),
        ("l2l search searcher=reinforce_l", "searcher=reinforce_lstm"),
        ("l2l search space=cnn tri", "trials="),
        ("l2l show space=m", "space=mixed space=mlp space=moe"),
        ("l2l compare see", "seed= seeds="),
        ("l2l resume ru", ""),
        ("l2l serch ru", ""),
    ],
)
def test_a_line_is_completed(run: Run, monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    ended = run("-sc", "query=bash")
    assert (ended.code, ended.out.strip(), ended.err) == (0, words, "")


def test_the_script_completes_l2l(run: Run) -> None:
    ended = run("-sc", "install=bash")
    assert ended.code == 0
    assert ended.out.splitlines()[-1].endswith("complete -o nospace -o default -F hydra_bash_completion l2l")
