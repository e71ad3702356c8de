"""A process that reads damaged DICOM files as the worker does, until it is done or dies of one. Prints what it saw.

Called as `python -m tests.soak.damaged_files FIRST COUNT FOLDER`. FOLDER gets the file in hand and its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

from dicom_node.errors import Unreadable
from dicom_node.header import dataset_digest, read_header
from dicom_node.pixels import read_display
from tests.mutation import corpus, damaged

MOST_MEMORY = 4 << 30
PIXELS = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")


def case(seeds: list[bytes], number: int) -> bytes:
    """The file of this number: hit anywhere, in its header, or in its pixel data."""
    chance = random.Random(number)
    content = chance.choice(seeds)
    start = max(content.find(tag) for tag in PIXELS)
    match chance.randrange(3):
        case 0:
            return damaged(content, chance)
        case 1 if start > 0:
            return content[:start] + damaged(content[start:], chance)
        case _:
            # Behind preamble and prefix, so that most are still taken for DICOM.
            end = start if start > 132 else len(content)
            return content[:132] + damaged(content[132:end], chance, most=3) + content[end:]


def read(path: Path) -> str:
    """What becomes of a file. Raises whatever the readers should not."""
    try:
        read_header(path)
    except Unreadable:
        return "no header"
    dataset_digest(path)
    try:
        read_display(path)
    except Unreadable:
        return "no picture"
    return "picture"


def main(first: int, count: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Native decoders write to it, sometimes much.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seeds, path = corpus("files"), folder / "in_hand.dcm"
    mark = os.open(folder / "number", os.O_WRONLY | os.O_CREAT, 0o600)
    ends: Counter[str] = Counter()
    faults: list[tuple[int, str]] = []
    slowest = (0.0, 0)
    for number in range(first, first + count):
        os.pwrite(mark, b"%12d" % number, 0)
        path.write_bytes(case(seeds, number))
        began = time.monotonic()
        try:
            ends[read(path)] += 1
        except Exception as fault:  # noqa: BLE001 - to be told
            faults.append((number, f"{type(fault).__name__}: {fault}"))
            # Kept should the process die of a later one.
            with (folder / "faults").open("a") as out:
                out.write(f"{number} {type(fault).__name__}: {fault}\n")
        slowest = max(slowest, (time.monotonic() - began, number))
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"ends": ends, "faults": faults, "slowest": slowest, "peak_kib": peak_kib}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
