#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with the number of tokens and of heads: ours and PyTorch's, with the fitted exponents.

    python3 bench/peers/growth.py --bench build/release/bin/sparsight-bench
"""
import argparse
import math
import os

from compare import QUIET_DRIFT, SLOW, Ours, Peer, add_common, drift_of, has, loads, say, start, time_text

TOKENS = (8192, 16384, 32760, 65536, 118800)
HEADS = (1, 2, 4, 8, 16)
HEAD_TOKENS = 8192
PEERS = ("torch naive fp32 (mean only)", "torch tuned fp32 (LSE, mean, max)", "torch tuned bf16 (LSE, mean, max)")


def exponent(points):
    """Slope of log y over log x by least squares; None with fewer than two points above zero."""
    logs = [(math.log(x), math.log(y)) for x, y in points if y and y > 0]
    if len(logs) < 2:
        return None
    mx, my = (sum(v) / len(logs) for v in zip(*logs))
    spread = sum((x - mx) ** 2 for x, _ in logs)
    return sum((x - mx) * (y - my) for x, y in logs) / spread if spread else None


def point(bench, contender, reps):
    """(seconds, MiB) of one contender at one size: the median of a few runs, one where it is slow; None: cannot run."""
    try:
        if not contender.prepare(bench):
            return None
        if contender.first > SLOW:
            return contender.first, contender.row()["extra_mib"]
        contender.seconds = []
        for _ in range(reps):
            contender.run()
        ordered = sorted(contender.seconds)
        return ordered[len(ordered) // 2], contender.row()["extra_mib"]
    finally:
        contender.close()


def series(bench, arguments, title, sizes, contender_of, names, work_of):
    """Rows of {"name", "x", "seconds", "mib", exponents}. A size that would take longer than --limit is left out."""
    say(f"\n{title}")
    before = bench.peaks()
    rows = []
    for name in names:
        row = {"name": name, "x": [], "seconds": [], "mib": []}
        for x in sizes:
            if row["x"]:
                expected = row["seconds"][-1] * work_of(x) / work_of(row["x"][-1])
                if expected > arguments.limit:
                    say(f"  {name}: {x} left out, it would take about {time_text(expected)}")
                    continue
            found = point(bench, contender_of(name, x), arguments.repetitions)
            if found:
                row["x"].append(x)
                row["seconds"].append(found[0])
                row["mib"].append(found[1])
        row["time_exponent"] = exponent(list(zip(row["x"], row["seconds"])))
        row["memory_exponent"] = exponent([(x, m) for x, m in zip(row["x"], row["mib"]) if m is not None])
        rows.append(row)
        if row["x"]:
            print_row(row, work_of)
    after = bench.peaks()
    drift = drift_of(before, after)
    say(f"  peak moved {100 * drift:.1f} %{'' if drift <= QUIET_DRIFT else '   NOT QUIET: do not quote these figures'}")
    return {"title": title, "rows": rows, "probe_before": before, "probe_after": after, "drift": drift,
            "quiet": drift <= QUIET_DRIFT}


def print_row(row, work_of):
    say(f"  {row['name']}")
    base = row["seconds"][0] / work_of(row["x"][0])
    for x, seconds, mib in zip(row["x"], row["seconds"], row["mib"]):
        memory = "?" if mib is None else f"{mib:.1f}"
        say(f"    {x:7}  {time_text(seconds):>9}  per unit of work {seconds / work_of(x) / base:5.2f}x  {memory:>7} MiB beyond inputs")
    slopes = [f"{what} ~ x^{slope:.2f}" for what, slope in
              (("time", row["time_exponent"]), ("memory", row["memory_exponent"])) if slope is not None]
    if slopes:
        say(f"    {', '.join(slopes)}")


def run(bench, arguments):
    torch = has("numpy") and loads("torch")
    policies = arguments.policies.split(",")
    names = ["ours, bf16 input", *(PEERS if torch else ())]
    largest = max(x for x in TOKENS if x <= arguments.largest)
    folder = bench.write_inputs(os.path.join(bench.folder, str(largest)), largest)

    def at_tokens(name, n):
        if name.startswith("ours"):
            return Ours(name, f"map_heads/bf16/d128/{n}/heads:1/threads:{bench.threads}")
        return Peer(name, "torch_map.py", folder, {"tokens": n}, policies)

    def at_heads(name, heads):
        if name.startswith("ours"):
            return Ours(name, f"map_heads/bf16/d128/{HEAD_TOKENS}/heads:{heads}/threads:{bench.threads}")
        return Peer(name, "torch_map.py", folder, {"tokens": HEAD_TOKENS, "heads": heads}, policies)

    blocks = [series(bench, arguments, "Pooled map of one head, d = 128, over N (work: N^2)",
                     [x for x in TOKENS if x <= arguments.largest], at_tokens, names, lambda n: n * n),
              series(bench, arguments, f"Pooled maps of h heads, N = {HEAD_TOKENS}, d = 128, over h", HEADS, at_heads,
                     names, lambda heads: heads)]
    return {"blocks": blocks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common(parser)
    parser.add_argument("--largest", type=int, default=TOKENS[-1], help="no more tokens than this")
    parser.add_argument("--limit", type=float, default=20.0, help="leave out what takes longer than so many seconds once")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.set_defaults(policies="default")
    start(parser, "growth", run)


if __name__ == "__main__":
    main()
