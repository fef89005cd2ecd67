#!/usr/bin/env python3
"""Includes point down only: includes.py SOURCE-ROOT

  src/LAYER/  its own layer and those below, public headers; the core neither libuv nor a clock nor a lock
  include/    public headers and the system's
  tools/ bench/ tests/examples/  public headers, the system's and their own
  bench/layers/  also src/ up to the core: each program times one piece of it by itself, and plays those above
  tests/      may reach inside

Quoted includes in src/ are written from there ("base/error.h"); but a header of which each platform has its own has no
folder in its name: the build chooses the folder, below the layer's."""

import re
import sys
from pathlib import Path

LAYERS = ["base", "machine", "core", "shard", "front", "workers"]
OUTSIDE = ["tools", "bench", "tests/examples"]
PIECES = "bench/layers"
IMPURE = {"uv.h", "time.h", "sys/time.h", "pthread.h", "threads.h", "semaphore.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1] == '"', match[2]


def sources(directory):
    return sorted(p for p in directory.rglob("*") if p.suffix in {".c", ".h", ".S", ".cc"}) if directory.is_dir() else []


def check_layer(root, path, layer, quoted, name):
    if not quoted:
        return "the core is pure" if layer == "core" and name in IMPURE else None
    if "/" not in name and any((root / "src" / layer).glob(f"*/{name}")):
        return None
    target = name.split("/")[0]
    if "/" not in name or target not in LAYERS or not (root / "src" / name).is_file():
        return "not a file of src/, written from there"
    if LAYERS.index(target) > LAYERS.index(layer):
        return f"{layer} is below {target}"
    return None


def check_public(root, path, quoted, name):
    if quoted:
        return "a public header includes with <…> only"
    if name.startswith("corepool") and not (root / "include" / name).is_file():
        return "no public header"
    return None


def check_outside(root, path, quoted, name):
    if quoted:
        return None if (path.parent / name).is_file() and ".." not in name else "sees the public headers only"
    return check_public(root, path, quoted, name) if name.startswith("corepool") else None


def check_piece(root, path, quoted, name):
    if quoted and name == "bench.h":
        return None
    return check_layer(root, path, "core", True, name) if quoted and "/" in name else check_outside(root, path, quoted, name)


def main():
    root = Path(sys.argv[1])
    checked = 0
    bad = []
    work = [(p, lambda p, q, n, layer=layer: check_layer(root, p, layer, q, n))
            for layer in LAYERS for p in sources(root / "src" / layer)]
    work += [(p, lambda p, q, n: check_public(root, p, q, n)) for p in sources(root / "include")]
    pieces = sources(root / PIECES)
    work += [(p, lambda p, q, n: check_piece(root, p, q, n)) for p in pieces]
    work += [(p, lambda p, q, n: check_outside(root, p, q, n)) for top in OUTSIDE for p in sources(root / top) if p not in pieces]
    for path, check in work:
        for number, quoted, name in includes(path):
            checked += 1
            why = check(path, quoted, name)
            if why:
                bad.append(f"{path.relative_to(root)}:{number}: {name}: {why}")
    strays = [p for p in sources(root / "src") if p.relative_to(root / "src").parts[0] not in LAYERS]
    bad += [f"{p.relative_to(root)}: in no layer" for p in strays]
    print("\n".join(bad) or f"{checked} includes, all downwards")
    return 1 if bad or not checked else 0


sys.exit(main())
