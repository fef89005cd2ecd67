#!/usr/bin/env python3
"""The README's programs are the examples that the build compiles: readme.py SOURCE-ROOT

A block says which file it is in its info string: ```c tools/examples/child.c"""

import re
import sys
from pathlib import Path

REQUIRED = ["tools/examples/quick.c"]
BLOCK = re.compile(r"^```c (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def main():
    root = Path(sys.argv[1])
    try:
        blocks = BLOCK.findall((root / "README.md").read_text(encoding="utf-8"))
    except OSError as error:
        print(error)
        return 1
    bad = [f"{name}: not in README.md" for name in REQUIRED if name not in dict(blocks)]
    for name, text in blocks:
        path = root / name
        if not path.is_file():
            bad.append(f"{name}: in README.md, no such file")
        elif path.read_text(encoding="utf-8") != text:
            bad.append(f"{name}: README.md has another text")
    print("\n".join(bad) or f"{len(blocks)} blocks as compiled")
    return 1 if bad else 0


sys.exit(main())
