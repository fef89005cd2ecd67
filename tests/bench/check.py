#!/usr/bin/env python3
"""`corepool bench` keeps what its help says, for runs of a few hundredths of a second: check.py COREPOOL [peers]

Figures are not looked at, but whether they agree with each other. With "peers" their module has to be there, without it not."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COREPOOL = sys.argv[1]
PEERS = "peers" in sys.argv[2:]
POLICIES = ["local", "local-only", "round-robin", "random", "two-choices", "least-loaded", "hash", "single", "managed"]
CALLERS = ["blocking", "loop"]
SHORT = ["--seconds", "0.05", "--rounds", "1"]
failures = []
checked = 0


def check(condition, words):
    global checked
    checked += 1
    if not condition:
        failures.append(words)


def bench(*arguments, env=None):
    return subprocess.run([COREPOOL, "bench", *arguments], capture_output=True, text=True, timeout=100, env=env, check=False)


# ---- bad input ----

def refused(arguments, option, status=2):
    done = bench(*arguments)
    label = " ".join(arguments)
    check(done.returncode == status, f"{label}: exit code {done.returncode}, not {status}")
    check(option in done.stderr, f"{label}: {option} is not named: {done.stderr!r}")
    check("pairs/s" not in done.stdout, f"{label}: there is a table")


def check_bad_input():
    for policy in ["", "locale", "local,", ",", "local,,hash", "custom"]:
        refused(["--policy", policy], "--policy")
    for number in ["0", "-1", "x", "1x", "", "1.5", "4097", "99999999999999999999"]:
        refused(["--threads", number], "--threads")
    refused(["--threads", ",".join(["1"] * 65)], "--threads")
    for number in ["0", "1000001", "-3", " 4"]:
        refused(["--size", number], "--size")
    for hold in ["-1", "x", "5us", "sleep", "nan", "inf", "1e30", "5sleepsleep"]:
        refused(["--hold", hold], "--hold")
    refused(["--skew", "even"], "--skew")
    refused(["--callers", "both"], "--callers")
    for rate in ["0", "-5", "fast", "1e12"]:
        refused(["--rate", rate], "--rate")
    refused(["--rate", "1e8", "--seconds", "2"], "--rate")
    for seconds in ["0", "-1", "1s", "1e9"]:
        refused(["--seconds", seconds], "--seconds")
    for rounds in ["0", "1002", "two"]:
        refused(["--rounds", rounds], "--rounds")
    refused(["--shelf", "rack"], "--shelf")
    refused(["--synthetic", "nonsense"], "--synthetic")
    refused(["surplus"], "surplus")
    refused(["--frobnicate"], "frobnicate")


def check_contradictions():
    refused(["--pin", "--free"], "--free")
    refused(["--closed", "--rate", "10"], "--rate")
    refused(["--free", "--skew", "uniform,one-cpu"], "--free")
    refused(["--pin", "--synthetic", "pu:64"], "--pin")
    refused(["--shelf", "rseq", "--synthetic", "pu:64"], "--shelf")
    refused(["--callers", "loop", "--free"], "--free")
    refused(["--callers", "loop", "--peers"], "--peers")
    refused(["--callers", "loop", "--hold", "500sleep"], "--hold")
    refused(["--json", "-", "--csv", "-"], "--csv")
    refused(["--json", "a", "--csv", "a"], "--csv")
    many = ",".join(["1"] * 64)
    refused(["--threads", many, "--size", many, "--hold", many], "configurations")


def check_output_is_tried_first(folder):
    for option in ["--json", "--csv"]:
        refused([option, f"{folder}/none/file"], option, status=1)
    refused(["--plot", f"{folder}/none/plots"], "--plot", status=1)
    done = bench("--plot", f"{folder}/plots", *SHORT, env={"PATH": folder})
    check(done.returncode == 1 and "gnuplot" in done.stderr, f"--plot without gnuplot: {done.stderr!r}")
    check("machine" not in done.stdout, "--plot without gnuplot: something was measured")


# ---- runs ----

def near(a, b):
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b), 1)


def check_run(label, run, first):
    check(run["pairs"] <= run["checkouts"], f"{label}: more pairs than checkouts")
    check(run["seconds"] >= 0.05, f"{label}: {run['seconds']} s")
    check(near(run["pairs_per_s"], run["pairs"] / run["seconds"]), f"{label}: the rate is not pairs by seconds")
    if first["pairs"] > 0:
        check(near(run["ratio"], run["pairs_per_s"] / first["pairs_per_s"]), f"{label}: ratio {run['ratio']}")
    if "history" in run:
        check(run["stolen"] >= 0, f"{label}: {run['stolen']} stolen")
        last = [0] * len(run["history"][0]["checkouts"])
        for moment in run["history"]:
            counts = [count or 0 for count in moment["checkouts"]]
            check(all(a <= b for a, b in zip(last, counts)), f"{label}: a shard counts backwards")
            last = counts
        check(sum(last) <= run["checkouts"], f"{label}: the shards count more than the pool")


def check_waits(label, waits):
    values = [waits[name] for name in ["p50", "p99", "p99.9", "p99.99", "max"]]
    check(values == sorted(values), f"{label}: percentiles fall: {values}")
    classes = waits["classes"]
    check([c[1] for c in classes] == sorted(c[1] for c in classes), f"{label}: classes are not cumulative")
    check(not classes or classes[-1][1] == waits["count"], f"{label}: the classes have not all waits")


def check_arrivals(label, result, cell, run):
    """Each is begun or left behind, once; who has begun one ends it unless time is up. Each caller's schedule says how many, to
    one burst."""
    arrivals, callers = run["arrivals"], cell["threads"]
    burst = 64 if cell["skew"] == "bursts" else 1
    due = result["rate"] * run["seconds"]
    check(abs(arrivals - due) <= callers * burst, f"{label}: {arrivals} arrivals, {due:.1f} were due")
    check(arrivals % burst == 0, f"{label}: {arrivals} arrivals in bursts of {burst}")
    missing = arrivals - run["pairs"] - run["behind"]
    check(0 <= missing <= callers, f"{label}: {arrivals} arrivals, {run['pairs']} pairs, {run['behind']} behind")


OWN_SHELF = ["local", "local-only"]  # each takes on its own CPU only


def shelf_of(result, cell):
    """Of pools with a slice for each CPU; what takes on other CPUs has the portable one."""
    if cell["peer"]:
        return None
    if cell["contender"] == "managed":
        return "none"
    own = cell["contender"] in OWN_SHELF and cell["size"] >= result["cpus"]
    return result["shelf"] if own else "portable"


def measure(*arguments, rounds=1, expect=None, seconds="0.05"):
    """Runs it; returns its JSON."""
    label = " ".join(arguments)
    done = bench(*arguments, "--seconds", seconds, "--rounds", str(rounds), "--json", "-")
    check(done.returncode == 0, f"{label}: exit code {done.returncode}: {done.stderr}")
    if done.returncode != 0:
        return None
    result = json.loads(done.stdout)
    check("pairs/s" in done.stderr, f"{label}: no table on standard error")
    cells = result["configurations"]
    if expect is not None:
        check(len(cells) == expect, f"{label}: {len(cells)} configurations, not {expect}")
    check(result["complete"], f"{label}: not complete")
    contenders = len({cell["contender"] for cell in cells})
    for number, cell in enumerate(cells):
        name = f"{label}: {cell['contender']}"
        check(len(cell["runs"]) == rounds, f"{name}: {len(cell['runs'])} runs")
        check(cell["shelf"] == shelf_of(result, cell), f"{name}: {cell['shelf']} shelf")
        for run, first in zip(cell["runs"], cells[number - number % contenders]["runs"]):
            check_run(name, run, first)
            if result["rate"] is not None:
                check_arrivals(name, result, cell, run)
        if result["rate"] is not None:
            arrivals = sum(run["arrivals"] for run in cell["runs"])
            check(cell["wait_us"]["count"] == arrivals, f"{name}: {cell['wait_us']['count']} waits of {arrivals} arrivals")
        spread = cell["pairs_per_s"]
        check(spread["least"] <= spread["median"] <= spread["most"], f"{name}: {spread}")
        check_waits(name, cell["wait_us"])
    return result


def check_every_option():
    result = measure("--policy", "all", "--threads", "4", expect=len(POLICIES))
    check([c["contender"] for c in result["configurations"]] == POLICIES, "--policy all: not all of them")
    measure("--policy", "local,managed", "--threads", "1,3", "--size", "1,4", "--hold", "0,2", rounds=3, expect=16)
    measure("--policy", "local", "--hold", "1000sleep", "--threads", "8", "--size", "2")
    measure("--policy", "local", "--skew", "uniform,one-cpu,hot,bursts", "--threads", "4", expect=4)
    measure("--policy", "local,managed", "--free", "--threads", "20", "--size", "3")
    measure("--policy", "local", "--pin", "--closed", "--callers", "blocking", "--shelf", "portable")
    measure("--policy", "local,managed", "--callers", "loop", "--threads", "9", "--size", "2", "--hold", "0,3,1000sleep",
            "--skew", "uniform,one-cpu,hot,bursts", expect=24)


def check_stealing():
    """With workers on both shards and all callers on one, the others come over, once; not where that is off."""
    if os.sched_getaffinity(0) == {min(os.sched_getaffinity(0))}:
        print("one CPU: stealing is not checked")
        return
    result = measure("--policy", "local,local-only", "--skew", "one-cpu", "--threads", "8", "--size", "8", "--hold", "200sleep")
    stolen = [cell["runs"][0]["stolen"] for cell in result["configurations"]]
    check(0 < stolen[0] <= 8 and stolen[1] == 0, f"--skew one-cpu: {stolen} stolen")


def check_synthetic():
    result = measure("--policy", "local,two-choices,managed", "--synthetic", "pack:2 l3:4 core:8 pu:1", "--threads", "64",
                     "--size", "128", expect=3)
    run = result["configurations"][0]["runs"][0]
    check(len(run["history"][0]["checkouts"]) == 64, "--synthetic: not 64 shards")
    check(sum(1 for count in run["history"][-1]["checkouts"] if count is not None) == 64, "--synthetic: a shard has no slice")
    done = bench("--policy", "local", "--synthetic", "pu:64", *SHORT)
    check("unpinned" in done.stdout and "portable shelf" in done.stdout, "--synthetic: it is not said what its shards are")
    measure("--policy", "local", "--synthetic", "pu:64", "--callers", "loop", "--threads", "128")


def check_open_loop(callers):
    """What arrives is what the rate says, begun or not; a caller that is too slow for it shows in the waits."""
    load = ["--policy", "local", "--callers", callers]
    measure("--policy", "local,managed,hash", "--callers", callers, "--rate", "2000", "--threads", "3", "--hold", "0,20,1000sleep",
            rounds=2, expect=9)
    measure("--policy", "local,managed", "--callers", callers, "--rate", "3000", "--threads", "2", "--size", "1",
            "--skew", "uniform,one-cpu,hot,bursts", expect=8)
    result = measure(*load, "--rate", "1000", "--threads", "1", "--hold", "10000sleep")
    cell = result["configurations"][0]
    check(cell["runs"][0]["behind"] >= 30, f"{callers}, --rate: one caller of 10 ms each keeps up with an arrival each ms")
    check(cell["wait_us"]["p50"] >= 10000, f"{callers}, --rate: a slow caller hides what waits behind it")


def check_open_loop_skews(callers):
    """They say on which CPU it arrives."""
    if os.sched_getaffinity(0) == {min(os.sched_getaffinity(0))}:
        print("one CPU: skews of an open loop are not checked")
        return
    result = measure("--policy", "local", "--callers", callers, "--rate", "2000", "--threads", "4", "--skew", "one-cpu,hot",
                     expect=2)
    one_cpu, hot = ([count for count in cell["runs"][0]["history"][-1]["checkouts"] if count is not None]
                    for cell in result["configurations"])
    check(one_cpu[0] > 0 and not any(one_cpu[1:]), f"{callers}, --rate, one-cpu: {one_cpu} checkouts")
    if result["configurations"][1]["runs"][0]["behind"] == 0:
        check(all(hot[0] > other for other in hot[1:]), f"{callers}, --rate, hot: {hot} checkouts")


def check_overload(callers):
    """Of twice as many arrivals as can be served in T seconds that one waits longest which begins last or, not begun, came when
    the last to begin did: T / 2. The median is T / 4. A closed loop knows its own queue only, however long it runs."""
    seconds = 0.5
    load = ["--policy", "local", "--callers", callers, "--threads", "8", "--size", "2", "--hold", "10000sleep"]
    open_loop = measure(*load, "--rate", "400", seconds=str(seconds))["configurations"][0]
    closed_loop = measure(*load, seconds=str(seconds))["configurations"][0]
    p50 = open_loop["wait_us"]["p50"]
    check(open_loop["runs"][0]["behind"] > 0, f"{callers}: twice what can be served is served")
    check(p50 >= seconds / 6 * 1e6, f"{callers}: twice what can be served waits for {p50} us")
    check(p50 > closed_loop["wait_us"]["p50"], f"{callers}: an open loop's waits are a closed loop's")


def check_bursts(callers):
    """Of 64 that arrive at one moment each waits for the work of all before it, from that moment."""
    load = ["--policy", "local", "--callers", callers, "--threads", "1", "--hold", "1000"]
    result = measure(*load, "--rate", "160", "--skew", "bursts", seconds="0.2")
    p50 = result["configurations"][0]["wait_us"]["p50"]
    check(p50 >= 10000, f"{callers}: half of 64 that arrive at once, with 1 ms of work each, wait for less than {p50} us")


def check_loops_wake_in_time():
    """Not only at whole ms. (The machine may be busy with something else, but not each time.)"""
    load = ["--policy", "local", "--callers", "loop", "--threads", "2", "--rate", "700"]
    p50 = min(measure(*load)["configurations"][0]["wait_us"]["p50"] for _ in range(5))
    check(p50 < 300, f"a loop that is idle makes what arrives wait for {p50} us")


def check_loops_end():
    """Soon, whatever they are at: asleep for many seconds, or with each caller waiting for the same worker."""
    load = ["--policy", "local,managed", "--callers", "loop", "--size", "1"]
    result = measure(*load, "--threads", "400", "--rate", "1")
    for cell in result["configurations"]:
        check(cell["runs"][0]["arrivals"] == 1, f"--rate 1: {cell['runs'][0]['arrivals']} arrivals")
    measure(*load, "--threads", "8", "--rate", "1000", "--hold", "50000sleep")
    measure("--policy", "local", "--synthetic", "pu:64", "--callers", "loop", "--threads", "100", "--rate", "5000",
            "--skew", "uniform,one-cpu,hot,bursts", "--hold", "0,100", expect=8)


def check_peers():
    if not PEERS:
        refused(["--peers"], "-Dbench=true", status=1)
        return
    for threads in ["1", "4"]:
        result = measure("--policy", "local", "--peers", "--threads", threads, "--size", "2", "--hold", "1")
        names = [cell["contender"] for cell in result["configurations"]]
        check("mutex free list" in names and "thread-local" in names, f"--peers: {names}")
    done = bench("--policy", "local", "--peers", *SHORT)
    for peer in ["apr_reslist", "ck_stack", "ck_ring", "rte_mempool"]:
        check(peer in done.stdout, f"--peers: {peer} is neither measured nor said to be missing")


def check_interrupt():
    """What was whole by then is shown."""
    with subprocess.Popen([COREPOOL, "bench", "--policy", "local", "--seconds", "0.05", "--rounds", "1000", "--json", "-"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        time.sleep(1.5)
        child.send_signal(signal.SIGINT)
        out, words = child.communicate(timeout=60)
    check(child.returncode == 0 and "ended early" in words, f"SIGINT: exit code {child.returncode}: {words}")
    runs = json.loads(out)["configurations"][0]["runs"] if out else []
    check(not json.loads(out)["complete"] if out else False, "SIGINT: called complete")
    check(0 < len(runs) < 1000 and all(run["ratio"] == 1 for run in runs), f"SIGINT: {len(runs)} runs")


def check_early_interrupt():
    """Before anything is measured nothing has arrived: it ends at once. Once it talks a signal waits for it."""
    for callers in CALLERS:
        with subprocess.Popen([COREPOOL, "bench", "--policy", "local", "--rate", "1e6", "--callers", callers, "--seconds", "10"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            child.stdout.readline()
            child.send_signal(signal.SIGINT)
            out, words = child.communicate(timeout=60)
        check(child.returncode == 0 and "ended early" in out, f"SIGINT while warming up: exit code {child.returncode}: {words}")


# ---- files ----

OPEN_ON_LOOPS = ["--callers", "loop", "--rate", "2000"]


def check_files(folder, load):
    done = bench("--policy", "local,managed", "--threads", "1,2", *load, "--json", f"{folder}/a.json", "--csv", f"{folder}/a.csv",
                 "--seconds", "0.05", "--rounds", "2")
    check(done.returncode == 0, f"--json --csv: {done.stderr}")
    check("pairs/s" in done.stdout, "--json FILE: no table on standard output")
    result = json.loads(Path(f"{folder}/a.json").read_text(encoding="utf-8"))
    with open(f"{folder}/a.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    check(len(rows) == 8, f"--csv: {len(rows)} rows")
    for field in ["pairs", "arrivals", "behind"]:
        counts = sorted(run[field] for cell in result["configurations"] for run in cell["runs"])
        check(sorted(int(row[field]) for row in rows) == counts, f"--csv: other {field} than --json")
    done = bench("--policy", "local", *SHORT, "--csv", "-")
    check(done.stdout.startswith("contender,") and done.stdout.count("\n") == 2, f"--csv -: {done.stdout!r}")


def has_gnuplot():
    return any(os.access(f"{place}/gnuplot", os.X_OK) for place in os.environ["PATH"].split(":"))


def check_plots(folder):
    if not has_gnuplot():
        print("no gnuplot: its plots are not checked")
        return
    plots = Path(folder) / "it's plots"
    for load in [[], ["--synthetic", "pu:64"], OPEN_ON_LOOPS]:
        done = bench("--policy", "local,managed", "--threads", "1,2", "--plot", str(plots), *load, *SHORT)
        check(done.returncode == 0 and done.stderr == "", f"--plot: {done.stderr}")
        for name in ["throughput", "wait", "balance-01", "balance-04"]:
            svg, png = plots / f"{name}.svg", plots / f"{name}.png"
            check(svg.is_file() and b"</svg>" in svg.read_bytes(), f"--plot: {svg} is no SVG")
            check(png.is_file() and png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n", f"--plot: {png} is no PNG")


def main():
    with tempfile.TemporaryDirectory() as folder:
        check_bad_input()
        check_contradictions()
        check_output_is_tried_first(folder)
        check_every_option()
        check_stealing()
        check_synthetic()
        for callers in CALLERS:
            check_open_loop(callers)
            check_open_loop_skews(callers)
            check_overload(callers)
            check_bursts(callers)
        check_loops_wake_in_time()
        check_loops_end()
        check_peers()
        check_interrupt()
        check_early_interrupt()
        check_files(folder, [])
        check_files(folder, OPEN_ON_LOOPS)
        check_plots(folder)
    print("\n".join(failures) or f"{checked} checks")
    return 1 if failures or not checked else 0


sys.exit(main())
