"""Merges the records of `benchmarks/candidates.py` into results.json, and draws and writes what they show.

    python experiments/throughput/figure.py [FILE ...]

A record replaces the one of the same workload and number of candidates. `figure.svg` has candidates a minute by their
number, and `README.md` gets the tables between its markers. Without files, both are made again from results.json.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import quality
import table

HERE = Path(__file__).parent
BEGIN, END = "<!-- tables: written by figure.py -->", "<!-- end of tables -->"
COLD = {"linestyle": "--", "markerfacecolor": "white"}
"""What tells a run from an empty compilation cache from one that finds its programs."""
LOOKS = {
    "flax cold": {"color": "#7f7f7f", "marker": "s", **COLD},
    "flax warm": {"color": "#7f7f7f", "marker": "s"},
    "torch": {"color": "#d1491b", "marker": "^"},
    "ray cold": {"color": "#b08900", "marker": "D", **COLD},
    "ray warm": {"color": "#b08900", "marker": "D"},
    "l2l cold": {"color": "#1f5fa8", "marker": "o", **COLD},
    "l2l warm": {"color": "#1f5fa8", "marker": "o"},
}
"""Colour and mark of each peer."""

Record = Mapping[str, Any]


def merge_records(old: Sequence[Record], new: Sequence[Record]) -> list[Record]:
    """All records by workload and number of candidates; a new one takes the place of an old one."""
    by_key = {(record["workload"], record["candidates"]): record for record in (*old, *new)}
    return [by_key[key] for key in sorted(by_key)]


def draw(records: Sequence[Record], path: Path) -> None:
    """One panel a workload: candidates a minute (median, smallest to largest) by the number of candidates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({record["workload"] for record in records})
    # The same records give the same file.
    with pyplot.rc_context({"svg.hashsalt": "throughput", "font.size": 9}):
        size = (1.2 + 3.6 * len(names), 3.8)
        figure, grid = pyplot.subplots(1, len(names), figsize=size, squeeze=False, sharey=True, layout="constrained")
        panels = list(grid[0])
        for panel, name in zip(panels, names, strict=True):
            _panel(panel, name, [record for record in records if record["workload"] == name])
        panels[0].set_ylabel("candidates a minute")
        labels = dict(
            pair for panel in panels for pair in zip(*reversed(panel.get_legend_handles_labels()), strict=True)
        )
        columns = min(3, len(names))
        figure.legend(labels.values(), labels.keys(), loc="outside lower center", ncols=columns, frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
        pyplot.close(figure)


def _panel(panel: Any, name: str, records: Sequence[Record]) -> None:
    for peer, style in LOOKS.items():
        measured = [record for record in records if peer in record["seconds"]]
        if not measured:
            continue
        counts = [record["candidates"] for record in measured]
        rates = [record["candidates_per_minute"][peer] for record in measured]
        all_rates = [[60 * record["candidates"] / s for s in record["seconds"][peer]["all"]] for record in measured]
        errors = [[r - min(e) for r, e in zip(rates, all_rates)], [max(e) - r for r, e in zip(rates, all_rates)]]  # noqa: B905
        panel.errorbar(counts, rates, yerr=errors, capsize=2, markersize=5, label=format_label(peer), **style)
    panel.set(xscale="log", yscale="log", title=f"workload {name}", xlabel="candidates")
    counts = sorted({record["candidates"] for record in records})
    panel.set_xticks(counts, [f"{record:,}" for record in counts])
    panel.minorticks_off()
    low, high = panel.get_ylim()
    ticks = [tick * 10**power for power in range(7) for tick in (1, 2, 5) if low <= tick * 10**power <= high]
    panel.set_yticks(ticks, [f"{record:,}" for record in ticks])
    panel.margins(x=0.15)
    panel.grid(alpha=0.3)


def format_label(peer: str) -> str:
    """The name of a peer without Markdown."""
    return table.NAMES.get(peer, peer).replace("*", "")


def format_tables(records: Sequence[Record]) -> str:
    """Machine, floor, table and quality of every record, as Markdown."""
    parts: list[str] = []
    for record in records:
        repeats = len(record["seconds"]["l2l cold"]["all"])
        about = ", ".join(
            f"{value}" if name == "machine" else f"{name} {value}" for name, value in record["about"].items()
        )
        parts += [
            f"### Workload {record['workload']}, {record['candidates']:,} candidates",
            f"{about}. {repeats} {'repeat' if repeats == 1 else 'repeats'}; median (smallest to largest). "
            f"Floor: {record['floor_seconds']:.2f} s at {record['peak_gflops']:.0f} GFLOP/s ({record['peak']['by']}).",
            table.format_table(record),
        ]
        if "quality" in record:
            parts.append(quality.describe_comparison(record["quality"]))
    return "\n\n".join(parts)


def replace_tables(text: str, tables: str) -> str:
    """The README with new tables between its markers. Raises: ValueError if they are not there once each."""
    pattern = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    if text.count(BEGIN) != 1 or len(pattern.findall(text)) != 1:
        raise ValueError(f"expected one {BEGIN!r} and one {END!r} behind it; put them where the tables belong.")
    return pattern.sub(lambda _: f"{BEGIN}\n\n{tables}\n\n{END}", text)


def main(files: Sequence[str], here: Path = HERE) -> None:
    """Merges, draws and writes."""
    store = here / "results.json"
    old = json.loads(store.read_text())["records"] if store.exists() else []
    records = merge_records(old, [json.loads(Path(file).read_text()) for file in files])
    if not records:
        raise SystemExit("there is no record yet: give figure.py the JSON files of benchmarks/candidates.py.")
    if old := [f"{record['workload']}, {record['candidates']}" for record in records if "command" not in record]:
        # What was measured in another way cannot stand in the same figure.
        raise SystemExit(f"records of an older benchmark ({'; '.join(old)}): measure them anew, or take them out.")
    store.write_text(json.dumps({"records": records}, indent=1) + "\n")
    draw(records, here / "figure.svg")
    readme = here / "README.md"
    readme.write_text(replace_tables(readme.read_text(), format_tables(records)))
    print(f"{len(records)} records in {store}")


if __name__ == "__main__":
    main(sys.argv[1:])
