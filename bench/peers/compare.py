#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sparsight's kernels beside PyTorch, FAISS, scikit-learn and h5py, interleaved in one run.

    python3 bench/peers/compare.py --bench build/release/bin/sparsight-bench [--quick]

Needs only Python; every peer whose packages are missing is skipped with a message. How to read the result, and how to
get the packages: bench/README.md, "Peers".
"""
import argparse
import datetime
import glob
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# What OpenMP's threads do between two loops: unset (a short spin), sleep at once, spin on. Each peer is credited its best.
POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}, "active": {"OMP_WAIT_POLICY": "active"}}
SLOWER_IS_DROPPED = 1.10
SLOW, SLOW_REPETITIONS = 4.0, 3  # seconds; what takes longer is not measured more often than that
QUIET_DRIFT = 0.03
QUIET_LOAD = 0.05


def say(text=""):
    print(text, flush=True)


# --- the machine ------------------------------------------------------------------------------------------------------

def busy_share(seconds=1.0):
    """Share of all cores that other programs use."""
    def ticks():
        with open("/proc/stat") as file:
            numbers = [int(x) for x in file.readline().split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # idle, iowait

    total, idle = ticks()
    time.sleep(seconds)
    total2, idle2 = ticks()
    return 1 - (idle2 - idle) / max(1, total2 - total)


def machine_facts():
    facts = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
        for key, name in (("model name", "cpu"), ("cpu family", "cpu_family"), ("model", "cpu_model")):
            found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
            facts[name] = found.group(1) if found else "?"
        flags = re.search(r"^flags\s*:\s*(.*)$", text, re.MULTILINE)
        wanted = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16")
        facts["isa"] = [flag for flag in wanted if flags and flag in flags.group(1).split()]
        with open("/proc/meminfo") as file:
            facts["memory_gib"] = round(int(file.readline().split()[1]) / 2**20, 1)
    except OSError:
        facts["cpu"] = platform.processor() or "?"
    return facts


def commit():
    """Of this checkout, with + where files differ; None outside of one."""
    git = ["git", "-C", HERE]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
        if name.returncode:
            return None
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
        return name.stdout.strip() + ("+" if dirty else "")
    except OSError:
        return None


# --- ours -------------------------------------------------------------------------------------------------------------

class Bench:
    """sparsight-bench."""

    def __init__(self, program, threads):
        self.program, self.threads = program, threads
        self.context = {}

    def run(self, pattern, min_time, variables=None, repetitions=1):
        """{case: counters} of all cases whose name matches; a fresh process. Several repetitions: their median."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
        environment.update(variables or {})
        command = [self.program, f"--benchmark_filter={pattern}", f"--benchmark_min_time={min_time}",
                   f"--benchmark_repetitions={repetitions}", "--benchmark_format=json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if "Failed to match any benchmarks" in done.stderr:
            return {}
        if done.returncode or not done.stdout.strip():
            raise SystemExit(f"{' '.join(command)}\nfailed: {done.stderr.strip()[-500:]}")
        report = json.loads(done.stdout)
        self.context = report["context"]
        unit = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
        for case in report["benchmarks"]:
            if case.get("error_occurred"):
                raise SystemExit(f"{case['name']}: {case.get('error_message')}")
            case["seconds"] = case["real_time"] * unit[case["time_unit"]]
        wanted = "iteration" if repetitions == 1 else "median"
        return {case["run_name"]: case for case in report["benchmarks"]
                if case.get("aggregate_name", case["run_type"]) == wanted}

    def peaks(self):
        """{"fp32": GFLOP/s, "bf16": GFLOP/s, "memory": GB/s}: what this build knows to probe, on our threads."""
        pattern = f"^peak/([^/]*|.*threads:{self.threads})$"
        return {name.split("/")[1]: case.get("gflops", case.get("gb_per_s"))
                for name, case in self.run(pattern, 0.001, repetitions=7).items()}

    def write_inputs(self, folder, tokens, dtype="bf16"):
        if not os.path.exists(os.path.join(folder, "inputs.json")):
            subprocess.run([self.program, f"--write_inputs={folder}", f"--tokens={tokens}", f"--dtype={dtype}"], check=True)
        return folder


# --- contenders -------------------------------------------------------------------------------------------------------

class Ours:
    """One case of sparsight-bench, or a library inside of it; every run is a process of its own."""

    def __init__(self, title, case, min_time=0.001, trace=None, variables=None):
        self.title, self.case, self.min_time = title, case, min_time
        self.variables = {**(variables or {}), **({"SPARSIGHT_BENCH_TRACE": trace} if trace else {})}
        self.ours = not case.startswith("baseline/")
        self.seconds, self.counters = [], {}
        self.setting = " ".join(f"{k}={v}" for k, v in (variables or {}).items())

    def prepare(self, bench):
        self.bench = bench
        self.first = self.measure()
        return self.first is not None

    def measure(self):
        found = self.bench.run(f"^{re.escape(self.case)}$", self.min_time, self.variables)
        if self.case not in found:
            say(f"  {self.title}: skipped, this sparsight-bench has no case {self.case}")
            return None
        self.counters = found[self.case]
        return self.counters["seconds"]

    def run(self):
        self.seconds.append(self.measure())

    def row(self):
        names = {"max_abs_error": "lse_abs", "max_rel_error": "cells_rel"}
        if "attention" in self.case:
            names = {"max_rel_error": "out_rel"}
        if "kmeans" in self.case:
            names = {"objective": "objective"}
        errors = {short: self.counters[name] for name, short in names.items() if name in self.counters}
        known = ("seconds", "real_time", "cpu_time", "time_unit", "name", "run_name", "run_type", "threads",
                 "repetitions", "repetition_index", "family_index", "per_family_instance_index", "iterations")
        return {"errors": errors, "extra_mib": self.counters.get("extra_mib"),
                "fraction_of_peak": self.counters.get("fraction_of_peak"), "case": self.case,
                "counters": {k: v for k, v in self.counters.items() if k not in known}}

    def close(self):
        pass


class Process:
    """A peer program that stays loaded between its runs; stopped (SIGSTOP) while others are measured, so that threads
    that wait by spinning take nothing from them."""

    def __init__(self, program, peer, folder, task, environment, log):
        command = [sys.executable, os.path.join(HERE, program), "--inputs", folder, "--task", json.dumps(task),
                   "--serve", peer]
        self.process = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"ended with code {self.process.wait()}"}

    def ask(self, do, **request):
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps({"do": do, **request}) + "\n")
        answer = self.answer()
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGSTOP)
        return answer

    def close(self):
        self.process.kill()
        self.process.wait()


class Peer:
    """One peer under every wait policy; those clearly slower than its best are dropped before the rounds begin."""

    ours = False

    def __init__(self, title, program, folder, task=None, policies=("default", "passive"), environments=({},)):
        self.title, self.program, self.folder, self.task = title, program, folder, task or {}
        self.settings = [(policy, environment) for policy in policies for environment in environments]
        self.variants, self.versions, self.trials = [], {}, []

    def prepare(self, bench):
        log = open(os.path.join(bench.logs, "peers.log"), "a")
        for policy, environment in self.settings:
            variables = {"OMP_NUM_THREADS": str(bench.threads), **POLICIES[policy], **environment}
            process = Process(self.program, self.title, self.folder, self.task, variables, log)
            first = process.ask("first")
            tuned = first if "failed" in first or first["only"] else process.ask("tune")
            if "failed" in tuned:
                say(f"  {self.title} ({policy}): {tuned['failed']}")
                process.close()
                continue
            self.versions.update(first["versions"])
            setting = " ".join([*(f"{k}={v}" for k, v in {**tuned["setting"], **environment}.items()), f"OMP {policy}"])
            self.variants.append({"process": process, "trial": tuned["seconds"], "setting": setting, "seconds": [],
                                  "errors": first["errors"], "extra_mib": first["extra_mib"]})
            self.trials.append({"setting": setting, "seconds": tuned["seconds"]})
        if not self.variants:
            return False
        best = min(v["trial"] for v in self.variants)
        for variant in self.variants:
            if variant["trial"] > SLOWER_IS_DROPPED * best:
                variant["process"].close()
        self.variants = [v for v in self.variants if v["trial"] <= SLOWER_IS_DROPPED * best]
        self.first = best
        return True

    def run(self):
        for variant in self.variants:
            if variant["trial"] > SLOW and len(variant["seconds"]) >= SLOW_REPETITIONS:
                continue
            answer = variant["process"].ask("run")
            if "failed" in answer:
                raise SystemExit(f"{self.title}: {answer['failed']}")
            variant["seconds"].append(answer["seconds"])

    @property
    def best(self):
        return min(self.variants, key=lambda v: statistics.median(v["seconds"] or [v["trial"]]))

    @property
    def seconds(self):
        return self.best["seconds"]

    @seconds.setter
    def seconds(self, value):
        for variant in self.variants:
            variant["seconds"] = list(value)

    @property
    def setting(self):
        return self.best["setting"]

    def row(self):
        return {"errors": self.best["errors"], "extra_mib": self.best["extra_mib"], "versions": self.versions,
                "tried": self.trials,
                "also": [{"setting": v["setting"], "seconds": v["seconds"]} for v in self.variants if v is not self.best]}

    def close(self):
        for variant in self.variants:
            variant["process"].close()


# --- a block: contenders taken in turn, the machine probed before and after ------------------------------------------

def drift_of(before, after):
    """Largest relative difference of two probes of arithmetic. Memory wavers by itself: it is reported, not judged."""
    drifts = [abs(after[k] - before[k]) / max(after[k], before[k]) for k in before if k in after and k != "memory"]
    return max(drifts, default=0.0)


def measure_block(bench, title, contenders, reps, flops=0, retries=1):
    """Returns {"title", "rows", "drift", "quiet", ...}; rows in the order of the contenders that could run."""
    say(f"\n{title}")
    contenders = [c for c in contenders if c.prepare(bench)]
    try:
        for attempt in range(retries + 1):
            for contender in contenders:
                contender.seconds = []
            before = bench.peaks()
            for rep in range(reps):
                shift = rep % max(1, len(contenders))
                for contender in contenders[shift:] + contenders[:shift]:
                    contender.run()
            after = bench.peaks()
            drift = drift_of(before, after)
            if drift <= QUIET_DRIFT or attempt == retries:
                break
            say(f"  the machine's peak moved by {100 * drift:.1f} % meanwhile: once more")
        rows = []
        for contender in contenders:
            seconds = contender.seconds
            row = {"name": contender.title, "ours": contender.ours, "setting": contender.setting,
                   "seconds": seconds, "median": statistics.median(seconds), "min": min(seconds), "max": max(seconds),
                   **contender.row()}
            if flops:
                done = row.get("counters", {}).get("kept_fraction", 1.0)
                row["gflops"] = flops * done / row["median"] / 1e9
            rows.append(row)
    finally:
        for contender in contenders:
            contender.close()
    block = {"title": title, "rows": rows, "probe_before": before, "probe_after": after, "drift": drift,
             "quiet": drift <= QUIET_DRIFT, "repetitions": reps}
    print_block(block)
    return block


def time_text(seconds):
    return f"{seconds:.3f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2f} ms"


def error_text(errors):
    names = {"lse_abs": "LSE", "cells_rel": "cells", "out_rel": "out"}
    parts = [f"{names[k]} {v:.0e}" for k, v in errors.items() if k in names]
    return ", ".join(parts) if parts else ", ".join(f"{k} {v:.6g}" for k, v in errors.items())


def print_block(block):
    ours = next((row for row in block["rows"] if row["ours"]), None)
    table = [("", "median", "min - max", "to ours", "GFLOP/s", "error against fp64", "MiB", "setting")]
    for row in block["rows"]:
        mib = row.get("extra_mib")
        table.append((row["name"], time_text(row["median"]), f"{time_text(row['min'])} - {time_text(row['max'])}",
                      f"{row['median'] / ours['median']:.2f}x" if ours else "", f"{row['gflops']:.0f}" if "gflops" in row else "",
                      error_text(row["errors"]), "" if mib is None else f"{mib:.0f}", row["setting"]))
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = [c.ljust(w) if i in (0, 5, 7) else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))]
        say("  " + "  ".join(cells).rstrip())
    peaks = ", ".join(f"{name} {value:.0f}" for name, value in block["probe_after"].items())
    verdict = "" if block["quiet"] else "   NOT QUIET: do not quote these figures"
    say(f"  peak: {peaks}; moved {100 * block['drift']:.1f} %{verdict}")


def median_of(blocks, title, name):
    for block in blocks:
        if block["title"] == title:
            for row in block["rows"]:
                if row["name"] == name:
                    return row["median"]
    return None


# --- the comparison ---------------------------------------------------------------------------------------------------

def has(*modules):
    code = "import importlib.util as u, sys; sys.exit(not all(u.find_spec(m) for m in sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", code, *modules]).returncode == 0


def loads(module):
    """Found and loadable; says why not."""
    if not has(module):
        say(f"  {module} is not installed for {sys.executable}: its peers are skipped")
        return False
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True)
    if done.returncode:
        say(f"  {module} does not load ({done.stderr.strip().splitlines()[-1][:150]}): its peers are skipped")
    return done.returncode == 0


def compare(bench, arguments):
    n = arguments.tokens
    folder = bench.write_inputs(os.path.join(bench.folder, str(n)), n)
    t, reps = bench.threads, arguments.repetitions
    policies = arguments.policies.split(",")
    say("Packages")
    torch = loads("torch") if has("numpy") else False
    if not has("numpy"):
        say(f"  numpy is not installed for {sys.executable}: all peers are skipped")
    numpy = has("numpy")
    found_faiss, found_sklearn = numpy and loads("faiss"), numpy and loads("sklearn")
    found_h5py = numpy and loads("h5py")
    chosen = [part for part in ("map", "attention", "kmeans", "objective", "read") if re.search(arguments.only, part)]
    # OpenBLAS takes AVX2 kernels on AMD's CPUs with AVX-512 unless told otherwise.
    wide = {"OPENBLAS_CORETYPE": "SKYLAKEX"} if "avx512f" in machine_facts().get("isa", ()) else None
    blocks, goals = [], []

    def goal(text, value, bar, at_least=True):
        if value is not None:
            met = value >= bar if at_least else value <= bar
            goals.append({"text": text, "value": value, "bar": bar, "at_least": at_least, "met": met})

    def ratio_goal(text, title, peer, ours, bar):
        theirs, mine = median_of(blocks, title, peer), median_of(blocks, title, ours)
        goal(text, theirs / mine if theirs and mine else None, bar)

    if "map" in chosen:
        title = f"Row LSE + mean + max map of one head, N = {n}, d = 128, {t} threads"
        contenders = [Ours("ours, bf16 input", f"map_exact/bf16/d128/{n}/threads:{t}"),
                      Ours("ours, fp16 input", f"map_exact/fp16/d128/{n}/threads:{t}"),
                      Ours("ours, fp32 input", f"map_exact/fp32/d128/{n}/threads:{t}")]
        if t > 1:
            contenders.append(Ours("ours, bf16 input, 1 thread", f"map_exact/bf16/d128/{n}/threads:1"))
        contenders += [Ours("OpenBLAS fp32 + exp, native", f"baseline/openblas/map/fp32/d128/{n}/threads:{t}",
                            variables=wide),
                       Ours("oneDNN bf16 + exp, native", f"baseline/onednn/map/bf16/d128/{n}/threads:{t}")]
        names = ["torch naive fp32 (mean only)", "torch naive fp32 (LSE, mean, max)",
                 "torch tuned fp32 (LSE, mean, max)", "torch tuned bf16 (LSE, mean, max)"]
        if torch:
            contenders += [Peer(name, "torch_map.py", folder, policies=policies) for name in names]
        blocks.append(measure_block(bench, title, contenders, reps, flops=2.0 * n * n * 128))
        for peer, bar in zip(names, (8, 8, 4.5, 1.8)):
            ratio_goal(f"map, bf16 input: faster than {peer}", title, peer, "ours, bf16 input", bar)
        ratio_goal("map, fp16 input: faster than torch naive fp32 (mean only)", title, names[0], "ours, fp16 input", 4)
        one, all_ = median_of(blocks, title, "ours, bf16 input, 1 thread"), median_of(blocks, title, "ours, bf16 input")
        if one and t == 2:
            goal("map, bf16 input: 2 threads against 1", one / all_, 1.9)
        for name, bar in (("ours, bf16 input", 0.85), ("ours, fp16 input", 0.80)):
            for row in blocks[-1]["rows"]:
                if row["name"] == name:
                    kind = "bf16" if "bf16" in name else "fp32"
                    peak = min(blocks[-1]["probe_before"].get(kind, 0), blocks[-1]["probe_after"].get(kind, 0))
                    goal(f"map, {name[6:]}: share of the {kind} peak", row["gflops"] / peak if peak else None, bar)
                    if name == "ours, bf16 input":
                        goal("map: MiB beyond Q and K", row["extra_mib"], 20, at_least=False)
                        goal("map: LSE error", row["errors"]["lse_abs"], 1e-5, at_least=False)
                        goal("map: relative error of cells", row["errors"]["cells_rel"], 1e-4, at_least=False)

    if "attention" in chosen:
        title = f"Dense and sparse attention of one head with output, N = {n}, d = 128, {t} threads"
        contenders = [Ours("ours, dense, bf16", f"dense_attention/bf16/d128/{n}/threads:{t}"),
                      Ours("ours, 25 % kept, bf16", f"sparse_attention/kept25/bf16/d128/{n}/threads:{t}")]
        if torch:
            contenders += [Peer(name, "torch_attention.py", folder, policies=policies)
                           for name in ("torch SDPA fp32", "torch SDPA bf16")]
        blocks.append(measure_block(bench, title, contenders, reps, flops=4.0 * n * n * 128))
        dense, sparse = (median_of(blocks, title, name) for name in ("ours, dense, bf16", "ours, 25 % kept, bf16"))
        if dense and sparse:
            kept = next(row for row in blocks[-1]["rows"] if "kept" in row["name"])["counters"]["kept_fraction"]
            goal("attention, 25 % kept: share of our dense GFLOP/s", dense * kept / sparse, 0.8)
        ratio_goal("attention, 25 % kept: faster than torch SDPA bf16 (dense)", title, "torch SDPA bf16",
                   "ours, 25 % kept, bf16", 6)

    def kmeans_peers(clusters):
        task = {"clusters": clusters, "seed": 0, "min_seconds": 0.2}
        found = []
        if found_faiss:
            # Threads of OpenBLAS below FAISS's own often cost more than they bring: both are tried.
            environments = [{"OPENBLAS_NUM_THREADS": "1"}, {"OPENBLAS_NUM_THREADS": str(t)}]
            environments += [{"OPENBLAS_NUM_THREADS": "1", **wide}] if wide else []
            found.append(Peer("FAISS k-means", "kmeans.py", folder, task, policies, environments))
        if found_sklearn:
            found.append(Peer("scikit-learn k-means (Lloyd)", "kmeans.py", folder, task, policies))
        return found

    if "kmeans" in chosen:
        for clusters in (1000,) if arguments.quick else (100, 500, 1000):
            title = f"K-means, 10 rounds, K = {clusters}, N = {n}, d = 128, {t} threads"
            ours = Ours("ours, fp32-grade", f"kmeans_lloyd/k{clusters}/bf16/d128/{n}/seed:0/threads:{t}", 0.2)
            low = Ours("ours, bf16 centroids", f"kmeans_lloyd_bf16/k{clusters}/bf16/d128/{n}/seed:0/threads:{t}", 0.2)
            native = Ours("FAISS, native", f"baseline/faiss/kmeans/k{clusters}/fp32/d128/{n}/threads:{t}", 0.2,
                          variables={"OPENBLAS_NUM_THREADS": "1"})
            blocks.append(measure_block(bench, title, [ours, low, native, *kmeans_peers(clusters)], reps,
                                        flops=20.0 * n * clusters * 128))
            if clusters == 1000:
                ratio_goal("k-means K = 1000: faster than FAISS", title, "FAISS k-means", ours.title, 2.8)
                ratio_goal("k-means K = 1000: faster than scikit-learn", title, "scikit-learn k-means (Lloyd)", ours.title, 1.5)
                ratio_goal("k-means K = 1000, bf16 centroids: faster than FAISS", title, "FAISS k-means", low.title, 5)

    if "objective" in chosen:
        seeds = 3 if arguments.quick else 10
        block = {"title": f"K-means objective after 10 rounds, medians of {seeds} starts", "rows": []}
        say(f"\n{block['title']}")
        for clusters in (1000,) if arguments.quick else (100, 500, 1000):
            cases = bench.run(f"^kmeans_lloyd/k{clusters}/bf16/d128/{n}/seed:[0-{seeds - 1}]/threads:{t}$", 0.001)
            row = {"clusters": clusters, "ours": [case["objective"] for case in cases.values()]}
            text = f"  K = {clusters:4}: ours {statistics.median(row['ours']):.6g}"
            for peer, key in (("FAISS k-means", "faiss"), ("scikit-learn k-means (Lloyd)", "sklearn")):
                if not (found_faiss if key == "faiss" else found_sklearn):
                    continue
                environment = {"OMP_NUM_THREADS": str(t), "OPENBLAS_NUM_THREADS": "1"}
                with open(os.path.join(bench.logs, "peers.log"), "a") as log:
                    process = Process("kmeans.py", peer, folder, {"clusters": clusters}, environment, log)
                    answers = [process.ask("change", seed=seed) for seed in range(seeds)]
                    process.close()
                row[key] = [answer["errors"]["objective"] for answer in answers if "errors" in answer]
                if len(row[key]) != seeds:
                    say(f"  {peer}: {answers[-1].get('failed')}")
                    continue
                relative = statistics.median(row["ours"]) / statistics.median(row[key]) - 1
                text += f", {peer} {statistics.median(row[key]):.6g} (ours {100 * relative:+.3f} %)"
                if key == "faiss":
                    goal(f"k-means K = {clusters}: median objective above FAISS's, %", 100 * relative, 0.1, at_least=False)
            say(text)
            block["rows"].append(row)
        blocks.append(block)

    if "read" in chosen:
        title = f"Q, K and V of one head from a trace (contiguous, in the page cache), N = {n}, bf16"
        task = {"min_seconds": 0.2, "warm": False}
        contenders = [Ours("ours: load and check", f"load_head/bf16/d128/{n}", 0.2, trace=os.path.join(folder, "trace.h5"))]
        names = ["plain read, into given memory", "plain read, into new memory", "h5py, into given arrays", "h5py, new arrays"]
        if found_h5py:
            contenders += [Peer(name, "read_head.py", folder, task, ["default"]) for name in names]
        blocks.append(measure_block(bench, title, contenders, max(reps, 5)))
        for name in names[:2]:
            ratio_goal(f"one head from HDF5: share of the rate of a {name}", title, name, contenders[0].title, 0.7)
    return blocks, goals


def print_goals(goals):
    if not goals:
        return
    say("\nGoals (this machine, this run)")
    for g in goals:
        sign = ">=" if g["at_least"] else "<="
        say(f"  {'met    ' if g['met'] else 'NOT met'}  {g['value']:9.3g}  {sign} {g['bar']:<6g}  {g['text']}")


def find_bench():
    for pattern in ("../../build/release/bin/sparsight-bench", "../../build/*/bin/sparsight-bench"):
        found = sorted(glob.glob(os.path.join(HERE, pattern)))
        if found:
            return os.path.normpath(found[0])
    return shutil.which("sparsight-bench")


def add_common(parser):
    parser.add_argument("--bench", default=find_bench(), help="the sparsight-bench to measure")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="1 or all cores (default)")
    parser.add_argument("--policies", default="default,passive", help="OMP wait policies to try: default,passive,active")
    parser.add_argument("--allow-noise", action="store_true", help="measure although other programs are running")
    parser.add_argument("--folder", help="where inputs are kept (default: a temporary folder)")
    parser.add_argument("--out", help="JSON file (default: bench/results/local/<date>-<what>.json)")


def start(parser, what, run):
    """Checks the machine, runs `run(bench, arguments)` and writes its dict with the facts as JSON."""
    arguments = parser.parse_args()
    if not arguments.bench or not os.access(arguments.bench, os.X_OK):
        raise SystemExit("sparsight-bench was not found; build it (./dev build) or say --bench PATH")
    unknown = set(arguments.policies.split(",")) - set(POLICIES)
    if unknown:
        raise SystemExit(f"--policies: known are {', '.join(POLICIES)}")
    began = time.time()
    busy = busy_share()
    if busy > QUIET_LOAD:
        say(f"Other programs use {100 * busy:.0f} % of this machine; figures taken now mean nothing.")
        if not arguments.allow_noise:
            raise SystemExit("Stop them, or say --allow-noise to try the script itself.")
    own = None if arguments.folder else tempfile.mkdtemp(prefix="sparsight-peers-")
    bench = Bench(arguments.bench, arguments.threads)
    bench.folder = bench.logs = arguments.folder or own
    os.makedirs(bench.folder, exist_ok=True)
    try:
        bench.peaks()
        facts = {"what": what, "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                 "commit": commit(), "machine": machine_facts(), "threads": arguments.threads,
                 "instruction_set": bench.context.get("instruction set"), "busy_before": busy}
        say(f"{facts['machine'].get('cpu')} (family {facts['machine'].get('cpu_family')}), {facts['instruction_set']}, "
            f"{arguments.threads} threads, commit {facts['commit']}\n")
        result = run(bench, arguments)
    finally:
        if own:
            shutil.rmtree(own)
    blocks = result.get("blocks", [])
    versions = {}
    for block in blocks:
        for row in block["rows"]:
            versions.update(row.get("versions") or {})
    quiet = busy <= QUIET_LOAD and all(block.get("quiet", True) for block in blocks)
    facts.update(versions=versions, quiet=quiet, seconds=round(time.time() - began, 1))
    name = re.sub(r"[^a-z0-9]+", "-", facts["machine"].get("cpu", "cpu").lower()).strip("-")
    out = arguments.out or os.path.join(HERE, "..", "results", "local", f"{facts['date'][:10]}-{name}-{what}.json")
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    with open(out, "w") as file:
        json.dump({**facts, **result}, file, indent=1)
        file.write("\n")
    say(f"\n{facts['seconds']:.0f} s; {', '.join(f'{k} {v}' for k, v in versions.items())}")
    say(f"Written: {os.path.normpath(out)}")
    if not quiet:
        say("The machine was not quiet: do not quote these figures.")
        raise SystemExit(3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="Exit code 3: measured, but the machine was not quiet.")
    add_common(parser)
    parser.add_argument("--tokens", type=int, help="N: 32760, 8192 with --quick; a size that sparsight-bench has")
    parser.add_argument("--repetitions", type=int, help="per contender and block (default 5, 3 with --quick)")
    parser.add_argument("--only", default="", metavar="REGEX", help="of map, attention, kmeans, objective, read")
    parser.add_argument("--quick", action="store_true", help="a small N, fewer repetitions: does everything work?")

    def run(bench, arguments):
        arguments.tokens = arguments.tokens or (8192 if arguments.quick else 32760)
        arguments.repetitions = arguments.repetitions or (3 if arguments.quick else 5)
        blocks, goals = compare(bench, arguments)
        print_goals(goals)
        return {"tokens": arguments.tokens, "blocks": blocks, "goals": goals}

    start(parser, "peers", run)


if __name__ == "__main__":
    main()
