"""Loads every member of a front that a search of tiny_shakespeare found, scores it again and counts what it costs.

    L2L_DATA=... python experiments/pareto/members.py RUN --json FILE

Prints a table: the validation bits and the operations of one example that the search stated, those of the module that
was handed over (loaded here, in a process that did not train it), and what XLA says of the compiled module, which
counts what is elementwise, too.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax
from flax import nnx

import l2l
from l2l.engine.cost import count_operations
from l2l.tasks.text import TinyShakespeare

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import about


def measure_members(run: Path) -> list[dict[str, float]]:
    """What was stated and what is found, by member."""
    task = TinyShakespeare()
    x = task.load("validation")[0][:1]
    rows = list[dict[str, float]]()
    for member in json.loads((run / "result.json").read_text())["front"]["members"]:
        model: Any = l2l.load(run / member["folder"])
        graph, state = nnx.split(model)
        traced = jax.make_jaxpr(lambda x, graph=graph, state=state: nnx.merge(graph, state)(x))(x)
        compiled = jax.jit(lambda x, model=model: model(x)).lower(x).compile().cost_analysis()
        rows.append({
            "trial": member["number"], "bits": member["metrics"]["bits"], "flops": member["metrics"]["flops"],
            "parameters": member["metrics"]["parameters"],
            "bits_loaded": l2l.evaluate(model, task, "validation")["bits"],
            "flops_loaded": count_operations(traced.jaxpr), "flops_xla": float((compiled or {})["flops"]),
        })  # fmt: skip
    return rows


def main() -> None:
    """Prints the table; fails if a member is not what the search said."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = about.announce()
    members = measure_members(args.run)
    print("| trial | parameters | bits: stated | loaded | operations: stated | loaded | by XLA |")
    print("|---" * 7 + "|")
    for row in members:
        print(
            f"| {row['trial']} | {row['parameters']:,.0f} | {row['bits']:.6f} | {row['bits_loaded']:.6f} "
            f"| {row['flops']:,.0f} | {row['flops_loaded']:,.0f} | {row['flops_xla']:,.0f} |"
        )
    if args.json:
        args.json.write_text(
            json.dumps({"about": machine, "command": about.read_command(), "members": members}, indent=2) + "\n"
        )
    mismatches = [
        row["trial"] for row in members
        if row["flops"] != row["flops_loaded"] or abs(row["bits"] - row["bits_loaded"]) > 1e-5
    ]  # fmt: skip
    if mismatches:
        raise SystemExit(f"Not what was stated: {', '.join(map(str, mismatches))}.")


if __name__ == "__main__":
    main()
