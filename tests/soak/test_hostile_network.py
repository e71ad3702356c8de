"""A million hostile inputs: streams against the slow reader, damaged files, and a real node under fire.

CASES (1000000), ATTACKS (5000), HELD (2000) and SEED come from the environment. The table goes to
tests/bench/results/soak_fuzz.txt. A case that finds something is named by its number; keep its input in `corpus/`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.upper_layer import read_request
from tests.attack import LINE, fire, holding, shape
from tests.bench.measured import goal
from tests.mutation import association, corpus, damaged
from tests.node import ROOT, Node, node, radiograph
from tests.raw_peer import command
from tests.two_readers import Case, compare

pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning")]
CASES = int(os.environ.get("CASES", "1000000"))
ATTACKS = int(os.environ.get("ATTACKS", "5000"))
HELD = int(os.environ.get("HELD", "2000"))
SEED = int(os.environ.get("SEED", "20260103"))
PROCESSES = 2
SHARES = {"streams": 0.6, "commands": 0.37, "files": 0.03}
"""Of the cases: a file takes ten times as long as a stream."""
RESULTS = ROOT / "tests" / "bench" / "results" / "soak_fuzz.txt"
MOST_GROWTH_KIB = 8192
HANG_S = 60.0


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Lines of the results, written when all is over."""
    lines = [f"A hostile network: {CASES} cases, {ATTACKS} attacks, {HELD} held connections, seed {SEED}", ""]
    yield lines
    RESULTS.write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))


def _kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def _streams(numbers: range) -> Counter[str]:
    seeds, told = corpus("associations"), Counter[str]()
    for number in numbers:
        chance = random.Random(number)
        try:
            story = compare(Case.by_chance(association(seeds, chance), chance))
        except AssertionError as fault:
            raise AssertionError(f"stream {number}: {fault}") from fault
        told[story.ending] += 1
    return told


def _commands(numbers: range) -> Counter[str]:
    seeds, told = [command(1), command(0x30), command(1, instance="1" * 64)], Counter[str]()
    for number in numbers:
        chance = random.Random(number)
        try:
            read_request(damaged(chance.choice(seeds), chance))
        except ValueError:
            told["no command"] += 1
        else:
            told["command"] += 1
    return told


def _part(work: tuple[str, int, int]) -> tuple[Counter[str], int]:
    """What became of some cases, and by how much the process grew over the later half of them."""
    kind, first, count = work
    run = {"streams": _streams, "commands": _commands}[kind]
    told = run(range(first, first + count // 2))
    before = _kib()
    told.update(run(range(first + count // 2, first + count)))
    return told, _kib() - before


@pytest.mark.parametrize("kind", ["streams", "commands"])
def test_no_input_is_read_otherwise_than_the_standard_says_and_none_makes_the_reader_grow(
    kind: str, table: list[str]
) -> None:
    count, began = int(CASES * SHARES[kind]), time.monotonic()
    each = count // PROCESSES
    work = [(kind, SEED + n * each, each) for n in range(PROCESSES)]
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        found = pool.map(_part, work, chunksize=1)
    took = time.monotonic() - began
    ends = sum((one for one, _ in found), Counter[str]())
    growth = max(grown for _, grown in found)
    table.append(f"{kind:<9} {each * PROCESSES:>8} cases in {took:5.0f} s: {_said(ends)}")
    # A difference, or anything but ValueError of a command, would have ended the test.
    what = "differences_from_the_slow_reader" if kind == "streams" else "faults_not_told_in_words"
    table.append(goal(f"fuzz_{kind}_{what}", 0, "<=", 0))
    table.append(goal(f"fuzz_{kind}_growth_kib", growth, "<=", MOST_GROWTH_KIB))
    assert growth <= MOST_GROWTH_KIB


def test_no_file_makes_a_reader_fail_in_another_way_than_in_words(tmp_path: Path, table: list[str]) -> None:
    count, began = int(CASES * SHARES["files"]), time.monotonic()
    ends, deaths, slowest, peak = Counter[str](), [], 0.0, 0
    number, end = SEED, SEED + count
    while number < end:
        command_line = [sys.executable, "-m", "tests.soak.damaged_files", str(number), str(end - number), str(tmp_path)]
        done = subprocess.run(command_line, cwd=ROOT, capture_output=True, text=True, timeout=3600, check=False)
        if done.returncode == 0:
            told = json.loads(done.stdout)
            ends.update(told["ends"])
            slowest, peak = max(slowest, told["slowest"][0]), max(peak, told["peak_kib"])
            break
        at = int((tmp_path / "number").read_text())
        assert done.returncode < 0, f"file {at}: {done.stderr[-2000:]}"
        deaths.append((at, -done.returncode))
        ends["not counted, before a death"] += at - number
        number = at + 1
    took = time.monotonic() - began
    told_faults = tmp_path / "faults"
    faults = told_faults.read_text().splitlines() if told_faults.exists() else []
    table.append(f"files     {count:>8} cases in {took:5.0f} s: {_said(ends)}")
    table.append(f"          slowest {slowest:.2f} s, {peak >> 10} MiB at most")
    table.append(f"          decoders that ended their process: {len(deaths)} {deaths[:20]}")
    table.append(goal("fuzz_files_faults_not_told_in_words", len(faults), "<=", 0))
    assert not faults


def test_a_node_under_fire_stays_what_it_was(tmp_path: Path, table: list[str]) -> None:
    folder, soon = tmp_path / "node", {"acse_timeout_s": 3, "dimse_timeout_s": 3, "network_timeout_s": 4}
    good = radiograph(tmp_path, "1.2.80.1", study="1.2.80", size=64)
    with node(folder, role="listen", listen={**soon, "processes": 2, "max_associations": 64}) as made:
        made.wait(lambda: len(made.pids("listen")) == 2, 30, "both receivers run")
        made.wait(lambda: min(shape(pid)[0] for pid in made.pids("listen")) >= 3, 30, "both receivers are up")
        pids, outside = made.pids("listen"), _files(tmp_path, folder)
        fire(made.port, range(SEED, SEED + ATTACKS // 5))
        _at_rest(made)
        before, began = [shape(pid) for pid in pids], time.monotonic()
        answers = fire(made.port, range(SEED + ATTACKS // 5, SEED + ATTACKS))
        took = time.monotonic() - began
        _at_rest(made)
        with holding(made.port, HELD, ["half a request"]):
            most = max(shape(pid)[0] for pid in pids)
            _at_rest(made)
        made.insist([good], 120)
        _at_rest(made)
        after = [shape(pid) for pid in pids]
        table.append(f"node      {ATTACKS:>8} attacks, the last {ATTACKS * 4 // 5} in {took:.0f} s: {_said(answers)}")
        table.append(f"          threads, sockets, KiB of each receiver before {before} after {after}")
        table.append(f"          {HELD} held connections at once made {most} threads at most in a receiver")
        lines = made.log().splitlines()
        said = [line for line in lines if "received instance" not in line]
        open_ones = made.one("SELECT count(*) FROM association WHERE how IS NULL")
        growth = max(b[2] - a[2] for a, b in zip(before, after, strict=True))
        left = _files(tmp_path, folder) - outside
        crashes = len(set(pids) - set(made.pids("listen")))
        table.append(f"          {len(said)} lines of log, {sum(map(len, said)) >> 10} KiB")
        table.append(goal("fuzz_receiver_crashes", crashes, "<=", 0))
        table.append(goal("fuzz_files_outside_of_the_state_directory", len(left), "<=", 0))
        table.append(goal("fuzz_receiver_growth_kib", growth, "<=", 2 * MOST_GROWTH_KIB))
        cases = sum(int(CASES * share) for share in SHARES.values()) + ATTACKS
        table.append(goal("fuzz_cases", cases, ">=", 1_000_000))
        assert (crashes, left, open_ones, answers["no answer"]) == (0, set(), 0, 0)
        assert growth <= 2 * MOST_GROWTH_KIB
        assert [line for line in lines if not LINE.match(line)] == []


def _at_rest(made: Node) -> None:
    seen: Callable[[], list[tuple[int, int, int]]] = lambda: [shape(pid) for pid in made.pids("listen")]  # noqa: E731
    made.wait(lambda: all(threads <= 4 and sockets <= 2 for threads, sockets, _ in seen()), 60, "all is let go")


def _files(root: Path, but: Path) -> set[Path]:
    return {path for path in root.rglob("*") if but not in path.parents and path != but}


def _said(ends: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in ends.most_common())
