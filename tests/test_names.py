"""The rule for names, held against the source: functions are verbs, variables are named after what they hold.

python tests/test_names.py [FOLDER]    # prints what breaks the rule, one name a line
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("l2l", "search_spaces")
VARIABLE_FOLDERS = ("tests", "benchmarks", "experiments", "tools")
"""Folders where only the variables are checked: test functions are sentences."""


def words(text: str) -> set[str]:
    """The words of a text."""
    return set(text.split())


IRREGULAR = words("""
    begun built brought bought caught chosen dealt done drawn driven fed felt found given gone got grown held hidden
    hung kept known laid learnt led lent lost made meant met paid said seen sent shown shut sought spelt spent spoken
    stood struck sunk taken taught thought told torn understood won worn written
""")
"""Participles without -ed; not those that are verbs or nouns as they stand (put, read, bound)."""

ADJECTIVES = words("""
    able absent accelerated active actual alike alive alone any apart arbitrary asleep awake bad bare best better big
    both broken cheap common dead deep different distinct early earlier easy either every exact exclusive existing few
    first flat foreign fresh full good greedy half hanging hidden high honest idle joint large larger largest last late
    later latest lazy likely little loaded long loose low many missing more most much narrow neat new old only own
    pending plain positive possible precise private public quick random ready real remaining right roomy running safe
    same several short silent single small smaller smallest spare static strict sure tall thick thin tiny true
    underlying unreadable usual valid visible vivid waiting warm whole wide worse worst wrong
""")
"""Not those that are verbs too (clean, close), that Python itself gives (main, next), or field terms (normal)."""

ADVERBS = words("""
    about above after again ahead along around aside away backwards behind below beside between beyond by down far
    forth forwards here inside off once out outside over there through together towards under up upwards with within
    without
""")
"""Words of place and time; not the two passes through a model, which every library calls forward and backward."""

NOUNS = words("""
    bed breed children embed exceed feed flatten garden happen lengthen listen need open proceed red reseed seed
    shed shorten speed spread succeed then token unflatten widen
""")
"""Words that end in -ed or -en and are no participles."""

EXCEPTIONS = {"active": "a length has a `size`, and an `active` part: the first ones, which are in use"}
"""Names of functions that break the rule, each with its reason."""

VARIABLES = words("found held kept made each given told own ours done several wanted said drawn")
"""What tells how a thing came about, and not what it is."""


def is_no_verb(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function's name begins with a participle, an adjective or an adverb."""
    first, *rest = function.name.strip("_").split("_")
    if function.name.startswith("__") or first in NOUNS or (first == "with" and rest):  # as in Python's `with_name`
        return False
    is_property = any("property" in ast.unparse(decorator) for decorator in function.decorator_list)
    if is_property and rest:  # a noun that an adjective belongs to
        return False
    return first.endswith(("ed", "en")) or first in IRREGULAR | ADJECTIVES | ADVERBS


def functions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every function whose name breaks the rule."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_no_verb(node):
            yield node.lineno, node.name


def variables(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, argument and attribute whose name breaks the rule."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name) | ast.Attribute(attr=name, ctx=ast.Store()):
                if name.strip("_") in VARIABLES:
                    yield node.lineno, name
            case _:
                pass


def source_files() -> list[Path]:
    """Every source file."""
    return [path for folder in FOLDERS + VARIABLE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def broken_rules(path: Path) -> list[str]:
    """What breaks the rule in a file, one sentence for each name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file = path.relative_to(ROOT)
    sentences = [
        f"{file}:{line}: function {name} is no verb"
        for line, name in functions(tree)
        if file.parts[0] in FOLDERS and name not in EXCEPTIONS
    ]
    return sentences + [f"{file}:{line}: variable {name} does not say what it holds" for line, name in variables(tree)]


def test_names_say_what_things_are() -> None:
    lines = [line for path in source_files() for line in broken_rules(path)]
    assert not lines, "\n".join(lines)


def test_the_rule_sees_what_it_should() -> None:
    tree = ast.parse(
        """
def kept(given, values):
    each = [1 for found in values]
    values.held = each
    def seed_key(): pass
    def open_file(): pass
    def drawn_points(): pass
class Thing:
    told: int = 0
    def _largest(self): pass
    @property
    def public_name(self): pass
    @property
    def hidden(self): pass
    def with_seed(self): pass
    def has_found(self): pass
    def __enter__(self): pass
"""
    )
    assert [name for _, name in functions(tree)] == ["kept", "drawn_points", "_largest", "hidden"]
    assert sorted(name for _, name in variables(tree)) == ["each", "found", "given", "held", "told"]
    assert {path.relative_to(ROOT).parts[0] for path in source_files()} == {*FOLDERS, *VARIABLE_FOLDERS}


if __name__ == "__main__":
    folders = sys.argv[1:] or FOLDERS + VARIABLE_FOLDERS
    files = [path for path in source_files() if any(path.is_relative_to((ROOT / name).resolve()) for name in folders)]
    lines = [line for path in files for line in broken_rules(path)]
    print("\n".join([*lines, f"{len(lines)} names"]))
    sys.exit(bool(lines))
