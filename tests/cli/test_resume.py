"""`l2l resume`: a folder that holds no search is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run, read_files, refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("- a", "is not the configuration of a search"),
        ("_target_: os.system", "is not the configuration of a search"),
        ("_target_: l2l.search", "objective names no _target_"),
        ("_target_: l2l.search\nfoo: 3", "the key 'foo' is unknown: "),
    ],
)
def test_a_folder_that_cannot_be_resumed(run: Run, folder: Path, text: str, words: str) -> None:
    (folder / "config.yaml").write_text(text)
    assert words in refused(run("resume", "."))
    assert read_files(folder) == {"config.yaml": text.encode()}
