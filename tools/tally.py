#!/usr/bin/env python3
"""Counts the tests of one `meson test` run: tally.py LABEL LOG.json LIST

LOG.json has one object a line for each program that ended; LIST names each program that should have. A Criterion
program counts as many tests as it holds. Nothing is taken on trust: a program that is missing, that ran no test,
or that passed beside a sanitizer's report (Criterion ignores how the process of a test ends after its test: that is
when leaks are reported) is a failure. Prints "PASSED FAILED" on stdout, the output of what failed on stderr."""

import json
import re
import sys

CRITERION_SUITES = {"unit", "integration"}
SUMMARY = re.compile(r"Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
REPORT = re.compile(r"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|: runtime error: ")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def say(text):
    print(text, file=sys.stderr)


def suites_of(test):
    """Of a name such as "corepool:unit / slice_test"; meson joins several suites with a plus sign."""
    suites, separator, _ = test["name"].partition(" / ")
    return set(suites.split(":")[-1].split("+")) if separator else set()


def judge(test, output):
    """(passed, failed, why) of one program."""
    passed, failed, why = 1, 0, ""
    found = SUMMARY.findall(output)
    if found or suites_of(test) & CRITERION_SUITES:
        passed = sum(int(one[1]) for one in found)
        failed = sum(int(one[0]) - int(one[1]) for one in found)
        if passed + failed == 0:
            return 0, 1, "no test ran"
        if failed:
            return passed, failed, "tests failed"
    if test["result"] == "SKIP":
        return 0, 0, "skipped"
    if test["result"] != "OK":
        return max(passed - 1, 0), failed + 1, f"ended with {test['result']}, status {test['returncode']}"
    if REPORT.search(output):
        return max(passed - 1, 0), failed + 1, "a sanitizer reported"
    return passed, failed, why


def read_log(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            return [json.loads(line) for line in log if line.strip()]
    except (OSError, ValueError) as error:
        say(f"{path}: {error}")
        return []


def main():
    label, log, listing = sys.argv[1:]
    with open(listing, encoding="utf-8", errors="replace") as names:
        expected = sum(1 for line in names if " / " in line)
    tests = read_log(log)
    total_passed = total_failed = 0
    for test in tests:
        output = COLOUR.sub("", test.get("stdout", "") + "\n" + test.get("stderr", ""))
        passed, failed, why = judge(test, output)
        total_passed += passed
        total_failed += failed
        if failed:
            say(f"FAILED: {label}: {test['name']}: {why}\n{output.strip()}\n")
        elif why:
            say(f"{label}: {test['name']}: {why}")
    missing = max(expected - len(tests), 0) if expected else 1
    if missing:
        say(f"FAILED: {label}: {missing} of {expected} programs did not report" if expected else
            f"FAILED: {label}: there is no program to run")
    total_failed += missing
    say(f"{label}: {total_passed} passed, {total_failed} failed")
    print(total_passed, total_failed)


main()
