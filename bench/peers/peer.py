# SPDX-License-Identifier: Apache-2.0
"""What the peer programs share: inputs, the fp64 reference, memory, and the loop that answers compare.py.

A peer is a function that makes itself ready for a head and returns `run`, the work that is timed:

    @peer("name shown in the table", chunk=[256, 512])   # settings that are tried; the fastest is credited
    def example(head, task, chunk):
        ...                     # conversions that a user does once
        return lambda: result   # timed; result.errors(head) or a dict for `check`

Every peer program also runs by itself:  python3 torch_map.py --inputs FOLDER
The inputs come from:                    sparsight-bench --write_inputs=FOLDER --tokens=32760
"""
import argparse
import gc
import itertools
import json
import os
import sys
import time
import traceback

PEERS = {}


def peer(name, check=None, **settings):
    """Registers a peer. check(result, head, task) returns its errors as a dict."""

    def register(make):
        grid = [dict(zip(settings, values)) for values in itertools.product(*settings.values())]
        PEERS[name] = (make, check, grid)
        return make

    return register


class Head:
    """One head's tensors as sparsight-bench has them. Arrays are numpy, [tokens, dim]."""

    def __init__(self, folder, tokens=None):
        with open(os.path.join(folder, "inputs.json")) as file:
            facts = json.load(file)
        self.folder, self.dtype, self.dim, self.scale = folder, facts["dtype"], facts["dim"], facts["scale"]
        self.stored = facts["tokens"]
        self.tokens = min(tokens or self.stored, self.stored)

    def raw(self, name):
        """As stored; bf16 as its 16 bits."""
        import numpy as np

        kind = {"fp32": np.float32, "fp16": np.float16, "bf16": np.uint16}[self.dtype]
        values = np.fromfile(os.path.join(self.folder, name + ".bin"), dtype=kind, count=self.tokens * self.dim)
        return values.reshape(self.tokens, self.dim)

    def fp32(self, name):
        """The same values, exactly, as float32."""
        import numpy as np

        values = self.raw(name)
        if self.dtype == "bf16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float32)

    def start(self, clusters, seed):
        import numpy as np

        path = os.path.join(self.folder, f"start-k{clusters}-s{seed}.bin")
        return np.fromfile(path, dtype=np.float32).reshape(clusters, self.dim)


def reference_rows(head, rows):
    """Scores [len(rows), tokens] and their LSE in fp64."""
    import numpy as np

    q, k = head.fp32("q")[rows].astype(np.float64), head.fp32("k").astype(np.float64)
    scores = q @ k.T * head.scale
    top = scores.max(axis=1, keepdims=True)
    return scores, np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]


def map_errors(result, head, task):
    """Row LSE (absolute) and cells (relative, mean and max) of one map row in the middle, against fp64."""
    import numpy as np

    block, cells = result["block"], np.asarray(result["mean"], dtype=np.float64)
    middle = cells.shape[0] // 2
    rows = np.arange(middle * block, min((middle + 1) * block, head.tokens))
    scores, lse = reference_rows(head, rows)
    p = np.exp(scores - lse[:, None])
    starts = np.arange(0, head.tokens, block)
    width = np.diff(np.append(starts, head.tokens))
    mean = np.add.reduceat(p, starts, axis=1).sum(axis=0) / (width * len(rows))
    errors = {"cells_rel": float(np.max(np.abs(cells[middle] - mean) / mean))}
    if result.get("max") is not None:
        top = np.maximum.reduceat(p, starts, axis=1).max(axis=0)
        got = np.asarray(result["max"], dtype=np.float64)[middle]
        errors["cells_rel"] = max(errors["cells_rel"], float(np.max(np.abs(got - top) / top)))
    if result.get("lse") is not None:
        errors["lse_abs"] = float(np.max(np.abs(np.asarray(result["lse"], dtype=np.float64)[rows] - lse)))
    return errors


def attention_errors(out, head, task):
    """Largest error of eight rows of the output, relative to the row's norm, against fp64."""
    import numpy as np

    rows = np.arange(8) * (head.tokens - 1) // 7
    scores, lse = reference_rows(head, rows)
    want = np.exp(scores - lse[:, None]) @ head.fp32("v").astype(np.float64)
    difference = np.linalg.norm(np.asarray(out, dtype=np.float64)[rows] - want, axis=1)
    return {"out_rel": float(np.max(difference / np.linalg.norm(want, axis=1)))}


def status_mib(field):
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    return None


def beyond_inputs(work):
    """Runs work; returns (seconds, highest resident memory beyond what lay there before in MiB or None, result)."""
    gc.collect()
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # resets the high-water mark
    except OSError:
        seconds, result = timed(work, 0)
        return seconds, None, result
    before = status_mib("VmRSS")
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    return seconds, max(0.0, status_mib("VmHWM") - before), result


def timed(work, min_seconds):
    """Mean seconds of as many calls as fill min_seconds, at least one; and the last result."""
    calls, start = 0, time.perf_counter()
    while True:
        result = work()
        calls += 1
        total = time.perf_counter() - start
        if total >= min_seconds:
            return total / calls, result


class Worker:
    """One peer on one head; its answers are dicts."""

    def __init__(self, name, head, task):
        self.make, self.check, self.grid = PEERS[name]
        self.head, self.task = head, task
        self.setting = self.grid[0]
        self.ready = None

    def first(self):
        """Memory and errors of the first call. Libraries are loaded and warm: a small head went before."""
        if self.task.get("warm", True):
            small = Head(self.head.folder, 1024)
            self.make(small, {**self.task, "clusters": 100}, **self.setting)()
        self.ready = self.make(self.head, self.task, **self.setting)
        seconds, mib, result = beyond_inputs(self.ready)
        errors = self.check(result, self.head, self.task) if self.check else {}
        only = len(self.grid) == 1 and seconds > 1  # nothing to tune, and too long to be lost in the noise
        return {"seconds": seconds, "extra_mib": mib, "errors": errors, "setting": self.setting, "only": only}

    def tune(self):
        """Tries every setting, keeps the fastest."""
        trials = []
        for setting in self.grid:
            work = self.make(self.head, self.task, **setting)
            trials.append((timed(work, self.task.get("min_seconds", 0))[0], setting, work))
        seconds, self.setting, self.ready = min(trials, key=lambda trial: trial[0])
        return {"seconds": seconds, "setting": self.setting}

    def run(self):
        return {"seconds": timed(self.ready, self.task.get("min_seconds", 0))[0]}

    def change(self, **task):
        """Another task (a seed, say) on the same head: its errors only."""
        self.task = {**self.task, **task}
        result = self.make(self.head, self.task, **self.setting)()
        return {"errors": self.check(result, self.head, self.task)}


def serve(name, head, task, versions):
    """Answers one JSON line per JSON line; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(name, head, task)
    answers.write("{}\n")
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
            answer["versions"] = versions()
        except Exception as error:  # the driver says it and goes on with the others
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def main(versions, **defaults):
    parser = argparse.ArgumentParser(description="Runs these peers once each, or one of them for compare.py.")
    parser.add_argument("--inputs", required=True, help="folder written by sparsight-bench --write_inputs=FOLDER")
    parser.add_argument("--tokens", type=int, help="only the first tokens")
    parser.add_argument("--task", type=json.loads, default={}, help="JSON: tokens, heads, clusters, seed, min_seconds")
    parser.add_argument("--serve", metavar="PEER", help="answer compare.py")
    arguments = parser.parse_args()
    task = {**defaults, **arguments.task}
    head = Head(arguments.inputs, arguments.tokens or task.get("tokens"))
    if arguments.serve:
        serve(arguments.serve, head, task, versions)
        return
    for name in PEERS:
        if os.fork():  # a process each: what one leaves in memory is not there for the next
            os.wait()
            continue
        worker = Worker(name, head, task)
        first = worker.first()
        best = worker.tune()
        mib = "?" if first["extra_mib"] is None else f"{first['extra_mib']:.0f}"
        print(f"{name:35} {best['seconds']:9.4f} s  {best['setting']}  +{mib} MiB  {first['errors']}  {versions()}",
              flush=True)
        os._exit(0)
