#!/usr/bin/env python3
"""The shared library exports exactly what the public headers mark, and the threads of every former layout, which
programs that were compiled for it look for: exports.py INCLUDE-DIRECTORY LIBRARY"""

import re
import subprocess
import sys
from pathlib import Path

COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DIRECTIVE = re.compile(r"^\s*#.*(?:\\\n.*)*$", re.MULTILINE)
DECLARATION = re.compile(r"\bCOREPOOL_PUBLIC\b([^;]*);")
NAME = re.compile(r"(\w+)\s*(?:\(|$)")
VERSION = re.compile(r"^#define COREPOOL_LAYOUT_VERSION (\d+)$", re.MULTILINE)


def promised(include):
    names = set()
    for header in sorted(include.rglob("*.h")):
        text = DIRECTIVE.sub("", COMMENT.sub("", header.read_text(encoding="utf-8")))
        for declaration in DECLARATION.findall(text):
            names.add(NAME.search(declaration.strip())[1])
    return names


def former(include):
    version = VERSION.search((include / "corepool" / "layout.h").read_text(encoding="utf-8"))
    return {f"corepool_layout_{who}_{n}" for n in range(int(version[1])) for who in ("self", "client")}


def exported(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.strip()}


def main():
    wanted = promised(Path(sys.argv[1])) | former(Path(sys.argv[1]))
    there = exported(sys.argv[2])
    for name in sorted(wanted - there):
        print(f"{name}: declared public, not exported")
    for name in sorted(there - wanted):
        print(f"{name}: exported, not declared public")
    print(f"{len(wanted)} public, {len(there)} exported")
    return 0 if wanted and wanted == there else 1


sys.exit(main())
