"""Measure what a long life costs a node: an empty one beside one with 100,000 instances and 10,000 waiting batches.

    python -m tests.bench.bench_growth --out tests/bench/results/growth.txt

Receive rate over a real association, the time of each claim, the memory of each process, and the start-up after a
crash; the two nodes in turns, ratios within a round. The filling takes some minutes."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dicom_node.ledger import Ledger
from dicom_node.recover import recover
from dicom_node.settings import Assembly
from dicom_node.spool import Spool
from tests import node as nodes
from tests.bench import corpora, receivers
from tests.bench.bench_receive import send
from tests.bench.grown import OWNER, TO, Filling, Size, template
from tests.bench.measured import Spread, goal_of, machine, paired, real_disk, spread, table
from tests.bench.process_tree import Process, Sampler
from tests.bench.receivers import ledger_rows
from tests.peers import LOOPBACK, free_port

GROWN, EMPTY = Size(90_000, 10_000), Size(0, 100)
QUICK = Size(1_800, 200)
NAMES = ("empty", "grown")
LEASE_S = 600.0
SLOWER, FASTER = 0.9, 1.1
RECOVERY_S = 20.0
START_S = 180.0
DAY_S = 86400.0
ROLES = ("listen", "receive", "work", "deliver", "upkeep")
RULES = Assembly(quiet_s=3600, quiet_after_release_s=3600, cap_s=DAY_S)
"""Nothing becomes complete while it is measured."""


@dataclass(slots=True)
class Figures:
    """What was measured of one node. By round, or by name and round."""

    rates: dict[int, float] = field(default_factory=dict)
    ready_s: dict[int, float] = field(default_factory=dict)
    recover_s: dict[int, float] = field(default_factory=dict)
    claims: dict[str, dict[int, float]] = field(default_factory=dict)
    memory: dict[str, list[Process]] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 where an image was lost or a node did not start, 0 also where goals are missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=100, help="of each claim in a round")
    parser.add_argument("--run-s", type=float, default=20, help="how long the whole node runs while it is watched")
    parser.add_argument("--quick", action="store_true", help="a small ledger: does it work?")
    parser.add_argument("--work", type=Path, help="folder on a real disk to work in")
    parser.add_argument("--out", type=Path, help="file that the printed text is also saved to")
    options = parser.parse_args(arguments)
    size, rounds, calls = (QUICK, 2, 20) if options.quick else (GROWN, options.rounds, options.calls)
    base = real_disk(options.work, [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()])
    with tempfile.TemporaryDirectory(prefix="evenray-bench-", dir=base) as made:
        folder = Path(made)
        about = machine(folder)
        filled_s = _fill(folder, size)
        before = _ledger_mb(folder / "grown")
        found = {name: Figures() for name in NAMES}
        _claims(folder, found, rounds, calls)
        faults = _receive(folder, found, rounds, quick=options.quick)
        _start_up(folder, found, max(2, rounds // 2), 5.0 if options.quick else options.run_s)
        lines = [
            f"growth, {about[0]}",
            about[1],
            f"grown: {size.instances:,} instances, {size.waiting + size.decided:,} batches waiting (half of them still "
            f"open), ledger of {before:.0f} MB, filled in {filled_s:.0f} s; empty: {EMPTY.instances} instances",
            *(["QUICK: far too small for its figures to mean anything"] if options.quick else []),
            "",
            *_text(found),
            *faults,
        ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return int(bool(faults))


def _fill(folder: Path, size: Size) -> float:
    like, began = template(folder / "template"), time.perf_counter()
    for name, amount in zip(NAMES, (EMPTY, size), strict=True):
        _progress(f"filling {name}: {amount.instances:,} instances")
        filling = Filling(folder / name / "state", like, now=time.time())
        filling.fill(amount)
        filling.ledger.close()
    return time.perf_counter() - began


def _ledger_mb(node: Path) -> float:
    return sum(path.stat().st_size for path in (node / "state").glob("ledger.sqlite*")) / 1e6


def _claims(folder: Path, found: dict[str, Figures], rounds: int, calls: int) -> None:
    """Time of each claim, call by call in turns; what is claimed is given back at once."""
    ledgers = {name: Ledger(folder / name / "state" / "ledger.sqlite") for name in NAMES}
    try:
        for turn in range(rounds):
            for what, claim in CLAIMS.items():
                taken: dict[str, list[float]] = {name: [] for name in NAMES}
                for _ in range(calls):
                    for name, ledger in ledgers.items():
                        taken[name].append(claim(ledger))
                for name, seconds in taken.items():
                    found[name].claims.setdefault(what, {})[turn] = statistics.median(seconds)
            _progress(f"claims: round {turn + 1} of {rounds}")
    finally:
        for ledger in ledgers.values():
            ledger.close()


def _of_instances(ledger: Ledger) -> float:
    now, began = time.time(), time.perf_counter()
    row = ledger.instances.claim(OWNER, now=now, lease_s=LEASE_S)
    taken_s = time.perf_counter() - began
    assert row
    ledger.instances.release(row, "bench", next_try=0, counted=False, now=now)
    return taken_s


def _of_batches(ledger: Ledger) -> float:
    now, began = time.time(), time.perf_counter()
    row = ledger.batches.claim(OWNER, now=now, lease_s=LEASE_S)
    taken_s = time.perf_counter() - began
    assert row
    ledger.batches.release(row, "bench", next_try=0, counted=False, now=now)
    return taken_s


def _of_deliveries(ledger: Ledger) -> float:
    now, began = time.time(), time.perf_counter()
    rows = ledger.deliveries.claim(TO, OWNER, now=now, lease_s=LEASE_S, limit=32)
    taken_s = time.perf_counter() - began
    assert len(rows) == 32
    for row in rows:
        ledger.deliveries.release(row, "bench", next_try=0, failed=False, now=now)
    return taken_s


def _closing(ledger: Ledger) -> float:
    """One look at which open batches are complete, as the worker takes at every turn."""
    began = time.perf_counter()
    ledger.batches.to_decide(now=time.time(), rules=RULES)
    return time.perf_counter() - began


CLAIMS: dict[str, Callable[[Ledger], float]] = {
    "instances.claim": _of_instances,
    "batches.claim": _of_batches,
    "deliveries.claim": _of_deliveries,
    "batches.to_decide": _closing,
}


def _receive(folder: Path, found: dict[str, Figures], rounds: int, *, quick: bool) -> list[str]:
    """MB/s of the real listener, the small images over one association; what went wrong."""
    faults: list[str] = []
    corpus = corpora.generate(folder / "cr", "cr", (corpora.QUICK if quick else corpora.FULL)["cr"], 1)
    shares = corpus.shares(folder / "shares", 1)
    ours = receivers.evenray("evenray")
    for turn in range(rounds):
        scan_s = min(send(shares, "NOBODY", free_port())[0] for _ in range(3))
        for name in NAMES if turn % 2 else NAMES[::-1]:
            node = folder / name
            before = ledger_rows(node / "state")
            os.sync()
            try:
                with receivers.running(ours, node) as peer:
                    wall_s, codes, said = send(shares, ours.aet, peer.port)
                    arrived = ledger_rows(node / "state") - before
            except receivers.NotReady as fault:
                faults.append(f"FAULT receive, {name}, round {turn + 1}: did not start")
                _progress(f"{faults[-1]}\n{fault}")
                continue
            if arrived != len(corpus.files) or any(codes):
                faults.append(f"FAULT receive, {name}, round {turn + 1}: {arrived} of {len(corpus.files)} arrived")
                _progress(f"{faults[-1]}\n{said}{peer.log_end()}")
                continue
            found[name].rates[turn] = corpus.bytes / 1e6 / max(wall_s - scan_s, 1e-3)
        _progress(f"receive: round {turn + 1} of {rounds}")
    return faults


def _start_up(folder: Path, found: dict[str, Figures], rounds: int, run_s: float) -> None:
    """Seconds from a start after a kill until everything works, those of tidying up alone, and the memory then.

    The last to be measured: a running node works off what waits.
    """
    for turn in range(rounds):
        for name in NAMES:
            _orphans(folder / name / "state" / "spool")
            found[name].recover_s[turn] = _recovered_s(folder / name / "state")
            found[name].ready_s[turn], seen = _whole_node(folder / name, run_s)
            for role, process in seen.items():
                found[name].memory.setdefault(role, []).append(process)
        _progress(f"start-up: round {turn + 1} of {rounds}")


def _orphans(spool: Path, count: int = 200) -> None:
    """Files that no row names, as a kill between rename and commit leaves them."""
    content = next((spool / "originals").rglob("*.dcm")).read_bytes()
    for _ in range(count):
        name = uuid.uuid4().hex
        target = spool / "originals" / name[:2] / f"{name}.dcm"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


def _recovered_s(state: Path) -> float:
    """Of what a process does at its start: the sweep of lost claims and of files without a row."""
    ledger, now = Ledger(state / "ledger.sqlite"), time.time()
    try:
        began = time.perf_counter()
        ledger.sweep(lambda _name: False, now=now)
        recover(Spool(state / "spool"), ledger, now=now)
        return time.perf_counter() - began
    finally:
        ledger.close()


def _whole_node(folder: Path, run_s: float) -> tuple[float, dict[str, Process]]:
    """Start all processes, wait until they work, watch them, kill them."""
    nowhere = {"kind": "dimse", "ae_title": "NOBODY", "host": LOOPBACK, "port": free_port()}
    log = folder / "node.log"
    log.unlink(missing_ok=True)
    rules = RULES.model_dump()
    with nodes.node(folder, {TO: nowhere}, start=False, assembly=rules, work={"device": "cpu"}) as node:
        began = time.perf_counter()
        node.start(ready=False)
        assert node.process
        with Sampler(node.process.pid) as sampler:
            node.wait(lambda: "working on" in node.log(), START_S, "the worker works")
            node.wait(lambda: receivers.echo(node.port, "EVENRAY"), START_S, "a C-ECHO is answered")
            ready_s = time.perf_counter() - began
            time.sleep(run_s)
    seen: dict[str, Process] = {}
    for process in sampler.usage.processes.values():
        words = process.command.split()
        if "serve" in words:
            role = next((word for word in words[words.index("serve") + 1 :] if word in ROLES), "supervisor")
            one = seen.setdefault(role, Process(role))
            one.peak_rss, one.peak_pss = max(one.peak_rss, process.peak_rss), max(one.peak_pss, process.peak_pss)
    return ready_s, seen


def _text(found: dict[str, Figures]) -> list[str]:
    empty, grown = found["empty"], found["grown"]
    lines = ["medians [range]; a ratio is grown to empty within a round"]
    rate = paired(grown.rates, empty.rates)
    rows = [_row("receive, MB/s", empty.rates, grown.rates, 0)]
    ratios: dict[str, Spread | None] = {}
    for what in CLAIMS:
        ratios[what] = paired(grown.claims[what], empty.claims[what])
        in_ms = [{n: s * 1000 for n, s in figures.claims[what].items()} for figures in (empty, grown)]
        rows.append(_row(f"{what}, ms", in_ms[0], in_ms[1], 2))
    rows.append(_row("tidying up (sweep, recover), s", empty.recover_s, grown.recover_s, 2))
    rows.append(_row("start after a kill until all works, s", empty.ready_s, grown.ready_s, 1))
    lines += table(("", "empty", "grown", "ratio"), [row for row in rows if row])
    lines += ["", "memory, peak RSS and PSS of the greatest process of a kind, MB"]
    lines += table(("", "empty", "grown", "grown - empty, RSS"), _memory(empty, grown))
    goals = [goal_of("growth_receive_ratio", rate, ">=", SLOWER)]
    for what in ("instances.claim", "batches.claim", "deliveries.claim"):
        goals.append(goal_of(f"growth_{what.replace('.', '_')}_ratio", ratios[what], "<=", FASTER))
    ready = spread(grown.ready_s.values())
    return [*lines, "", *goals, goal_of("growth_start_up_s", replace(ready, median=ready.high), "<=", RECOVERY_S)]


def _row(name: str, empty: dict[int, float], grown: dict[int, float], digits: int) -> tuple[str, ...]:
    ratio = paired(grown, empty)
    if ratio is None:
        return ()
    return (
        name,
        spread(empty.values()).text(digits),
        spread(grown.values()).text(digits),
        ratio.text(2),
    )


def _memory(empty: Figures, grown: Figures) -> list[tuple[str, str, str, str]]:
    rows = []
    for role in (role for role in grown.memory if role in empty.memory):
        rss = [max(p.peak_rss for p in figures.memory[role]) / 1e6 for figures in (empty, grown)]
        pss = [max(p.peak_pss for p in figures.memory[role]) / 1e6 for figures in (empty, grown)]
        rows.append((role, f"{rss[0]:.0f} ({pss[0]:.0f})", f"{rss[1]:.0f} ({pss[1]:.0f})", f"{rss[1] - rss[0]:+.1f}"))
    return rows


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
