#!/usr/bin/env python3
"""The shared library exports exactly what the public headers mark: exports.py INCLUDE-DIRECTORY LIBRARY"""

import re
import subprocess
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DIRECTIVE = re.compile(r"^\s*#.*(?:\\\n.*)*$", re.MULTILINE)
DECLARATION = re.compile(r"\bCOREPOOL_PUBLIC\b([^;]*);")
NAME = re.compile(r"(\w+)\s*(?:\(|$)")


def promised(include):
    names = set()
    for header in sorted(include.rglob("*.h")):
        text = DIRECTIVE.sub("", COMMENT.sub("", header.read_text(encoding="utf-8")))
        for declaration in DECLARATION.findall(text):
            names.add(NAME.search(declaration.strip())[1])
    return names


def exported(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.strip()}


def main():
    wanted = promised(Path(sys.argv[1]))
    there = exported(sys.argv[2])
    for name in sorted(wanted - there):
        print(f"{name}: declared public, not exported")
    for name in sorted(there - wanted):
        print(f"{name}: exported, not declared public")
    print(f"{len(wanted)} public, {len(there)} exported")
    return 0 if wanted and wanted == there else 1


sys.exit(main())
