#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Time from the start of the process to the painted start page, with nothing of it in the page cache.

    sudo xvfb-run -a -s "-screen 0 1920x1200x24" python3 bench/gui/cold_start.py build/release/bin/sparsight-bench-gui

Drops the system's page cache before every start, so it needs root, and nothing else that uses Qt may run: pages that a
running program maps stay where they are. Warm starts take turns with the cold ones.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

DROP = "/proc/sys/vm/drop_caches"


def start_ms(program):
    """Milliseconds until the program says that the page was painted."""
    begin = time.monotonic()
    with subprocess.Popen([program, "--start-page"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        line = child.stdout.readline()
        took = (time.monotonic() - begin) * 1e3
    if line.strip() != b"painted" or child.returncode != 0:
        sys.exit(f"{program} --start-page ended with {child.returncode} and did not paint: is there a display?")
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="sparsight-bench-gui")
    parser.add_argument("--times", type=int, default=7)
    args = parser.parse_args()
    if not os.access(DROP, os.W_OK):
        sys.exit(f"{DROP} cannot be written: run this as root, outside a container")
    cold, warm = [], []
    for _ in range(args.times):
        os.sync()
        with open(DROP, "w") as drop:
            drop.write("3\n")
        cold.append(start_ms(args.program))
        warm.append(start_ms(args.program))
    for name, times in (("cold", cold), ("warm", warm)):
        print(f"{name}: median {statistics.median(times):.0f} ms, {min(times):.0f} to {max(times):.0f}, "
              f"{len(times)} starts")


if __name__ == "__main__":
    main()
