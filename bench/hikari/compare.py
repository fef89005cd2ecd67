#!/usr/bin/env python3
"""corepool's pair next to HikariCP's ConcurrentBag (a JVM's), in turn: compare.py PATH-OF-bench/pair [ROUNDS [PAIRS]]

Wants Debian's default-jdk-headless and libhikaricp-java. Each round runs both once for each number of threads; figures are
medians of the rounds, and of the rounds' ratios. With more than 16 threads at once entries may run out, so there are 16."""

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

JARS = ["/usr/share/java/HikariCP.jar", "/usr/share/java/slf4j-api.jar", "/usr/share/java/slf4j-nop.jar"]
HEADING = re.compile(r"^((\d+) (?:pinned|free) threads?)")
FIGURE = re.compile(r"^\s+(corepool, rseq shelf|corepool, rseq, inline|rte_mempool)[\s*]+([\d.]+)")


def corepool(pair, pairs):
    """threads, in words and number → name → ns"""
    figures, threads = {}, None
    for line in subprocess.run([pair, "1", str(pairs)], check=True, capture_output=True, text=True).stdout.splitlines():
        if heading := HEADING.match(line):
            threads = (heading[1], int(heading[2]))
            figures[threads] = {}
        elif (figure := FIGURE.match(line)) and threads:
            figures[threads][figure[1]] = float(figure[2])
    return figures


def main():
    if len(sys.argv) not in (2, 3, 4) or not Path(sys.argv[1]).is_file():
        sys.exit(__doc__.splitlines()[0])
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 2000000
    missing = [jar for jar in JARS if not Path(jar).is_file()] + [tool for tool in ("java", "javac") if not shutil.which(tool)]
    if missing:
        sys.exit(f"compare.py: not there: {', '.join(missing)}")
    seen, ratios = {}, {}
    with tempfile.TemporaryDirectory() as classes:
        path = ":".join([*JARS, classes])
        subprocess.run(["javac", "-cp", path, "-d", classes, str(Path(__file__).parent / "Bag.java")], check=True)
        for _ in range(rounds):
            for threads, figures in corepool(sys.argv[1], pairs).items():
                bag = subprocess.run(["java", "-cp", path, "Bag", str(threads[1]), str(pairs)], check=True, capture_output=True,
                                     text=True).stdout
                figures["ConcurrentBag"] = float(bag)
                for name, ns in figures.items():
                    seen.setdefault((threads, name), []).append(ns)
                    ratios.setdefault((threads, name), []).append(ns / figures["ConcurrentBag"])
    print(f"{rounds} rounds of {pairs} pairs; ns per pair and CPU, and to ConcurrentBag's")
    for threads, name in seen:
        print(f"{threads[0]:16} {name:24} {statistics.median(seen[threads, name]):8.2f}"
              f"  {statistics.median(ratios[threads, name]):6.2f}")


main()
