"""Measure how fast receivers take images over real associations, side by side in one run, and judge our goals.

    python -m tests.bench.bench_receive --rounds 3 --out tests/bench/results/receive.txt

Each run has a fresh receiver, an empty folder and a quiet disk. Within a round the receivers come in random order, and
ratios are taken within rounds. The senders' start-up and file scan, timed against a closed port, is subtracted."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import corpora, receivers
from tests.bench.corpora import Corpus
from tests.bench.measured import (
    Spread,
    goal_of,
    machine,
    paired,
    program,
    real_disk,
    spread,
    table,
)
from tests.bench.process_tree import Sampler
from tests.bench.receivers import Receiver
from tests.peers import LOOPBACK, free_port

SEED = 20260101
LONGEST_S = 300.0
SCANS = 3
OURS, PLAIN = "evenray", "evenray plain"
ORTHANC, FSYNC, BITS = "Orthanc", "storescp --fork, fsync", "storescp --fork +B, fsync"
TO_ORTHANC, TO_LARGE, TO_SMALL = 1.5, 1.0, 0.8
HEAD = ("receiver", "n", "MB/s", "inst/s", "wall s", "CPU s/GB (user+sys)", "tree RSS", "process RSS", "PSS, MB")
PROCESS_MB, FLAT_MB, CPU_S_PER_GB = 60.0, 8.0, 1.5


@dataclass(frozen=True, slots=True)
class Run:
    """One receiver taking one corpus once. Bytes, seconds."""

    corpus: str
    senders: int
    receiver: str
    round: int
    bytes: int
    files: int
    wall_s: float
    user_s: float
    system_s: float
    tree_rss: int
    process_rss: int
    process_pss: int
    processes: int

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.bytes / 1e6 / self.wall_s

    @property
    def cpu_per_gb(self) -> float:
        return (self.user_s + self.system_s) / (self.bytes / 1e9)


class Bench:
    """The runs of one invocation, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.runs: list[Run] = []
        self.faults: list[str] = []
        self.broken = False
        self._folder = folder
        self._number = 0

    def scan_s(self, shares: Sequence[Path]) -> float:
        """What the senders need before they connect: the least of some tries, or more than that were subtracted."""
        return min(send(shares, "NOBODY", free_port())[0] for _ in range(SCANS))

    def measure(self, receiver: Receiver, corpus: Corpus, senders: int, turn: int, scan_s: float) -> None:
        """One run, checked: what did not arrive, or was refused, is a fault."""
        shares = corpus.shares(self._folder / "shares", senders)
        self._number += 1
        folder = self._folder / f"run-{self._number}"
        os.sync()
        where = f"{receiver.name}, {corpus.name}, {senders} associations, round {turn + 1}"
        try:
            with receivers.running(receiver, folder) as peer:
                with Sampler(peer.process.pid) as sampler:
                    wall_s, codes, said = send(shares, receiver.aet, peer.port)
                held = receiver.held(folder, peer.port)
                log = peer.log_end()
        except receivers.NotReady as fault:
            return self._failed(receiver, f"FAULT {where}: did not start", str(fault))
        usage = sampler.usage
        process = usage.peak_of(receiver.is_receiver)
        if held != len(corpus.files) or any(codes):
            sentence = f"FAULT {where}: holds {held} of {len(corpus.files)}, senders ended with {codes}"
            self._failed(receiver, sentence, said + log)
        else:
            self.runs.append(
                Run(
                    corpus.name,
                    senders,
                    receiver.name,
                    turn,
                    corpus.bytes,
                    len(corpus.files),
                    max(wall_s - scan_s, 1e-3),
                    usage.user_s,
                    usage.system_s,
                    usage.peak_rss,
                    process.peak_rss,
                    process.peak_pss,
                    usage.count_of(receiver.is_receiver),
                )
            )
        _empty(folder)

    def _failed(self, receiver: Receiver, sentence: str, details: str) -> None:
        self.faults.append(sentence)
        self.broken |= receiver.ours
        _progress(f"{sentence}\n{details}")

    def of(self, receiver: str, corpus: str, senders: int) -> list[Run]:
        return [r for r in self.runs if (r.receiver, r.corpus, r.senders) == (receiver, corpus, senders)]


def _empty(folder: Path) -> None:
    """Give the room on the disk back, but keep the files' names until the end.

    ext4 does not use the inodes of the last minutes' deletions again and looks through all of them for every new file:
    whoever is measured after a deletion of thousands of files would pay 0.5 to 1 ms of kernel time a file for it.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.truncate(path, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save; 1 where an image of ours was lost, 0 also where goals are missed."""
    options = _options(arguments)
    for name in ("storescu", "storescp", "echoscu"):
        if program(name) is None:
            raise SystemExit(f"{name} not installed: run `make peers`")
    base = real_disk(options.work, [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()])
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="evenray-bench-", dir=base) as made:
        folder = Path(made)
        about = machine(folder)
        found, notes = _receivers(folder, options.processes)
        if options.only:
            found = [r for r in found if any(r.name.startswith(name) for name in options.only.split(","))]
        sent = _corpora(folder, options)
        bench = Bench(folder)
        senders = [int(n) for n in options.senders.split(",")]
        _rounds(bench, found, sent, senders, options.rounds)
        delayed = [] if options.only else _delayed(folder, sent)
    lines = [
        f"receive, {about[0]}",
        about[1],
        f"{options.rounds} rounds, senders: storescu +sd +r -R with TCP_NODELAY=1, on the same machine; "
        f"{(time.monotonic() - began) / 60:.1f} min in all",
        *(["QUICK: the corpora are too small for their figures to mean anything"] if options.quick else []),
        *(c.text() for c in sent),
        "MB = 10^6 bytes, GB = 10^9; CPU of the receiver's whole process tree; RSS tree: the sum, shared pages counted "
        "in each process; process: the greatest receiving process",
        *(f"{r.name}: {r.about}{_processes(bench, r)}" for r in found),
        *notes,
        "",
        *_tables(bench, sent, senders, found),
        *delayed,
        *bench.faults,
        *goals(bench.runs, sent, senders),
    ]
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return int(bench.broken)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", default="dx,cr", help="of those that are generated")
    parser.add_argument("--senders", default="1,4,8", help="numbers of associations")
    parser.add_argument("--input", type=Path, help="a folder of DICOM files, sent instead of the generated ones")
    parser.add_argument("--quick", action="store_true", help="small corpora: does it work?")
    parser.add_argument("--only", default="", help="beginnings of the receivers' names, by comma")
    parser.add_argument("--processes", type=int, help="receiver processes of ours; by default what the node does")
    parser.add_argument("--work", type=Path, help="folder on a real disk to work in")
    parser.add_argument("--out", type=Path, help="file that the printed text is also saved to")
    return parser.parse_args(arguments)


def _receivers(folder: Path, processes: int | None) -> tuple[list[Receiver], list[str]]:
    """What is compared, and what is left out and why."""
    known, notes = receivers.evenray_settings(), []
    several = {"processes": processes} if processes and "listen.processes" in known else {}
    fast = {"fast": True} if "listen.fast" in known else {}
    found = [receivers.evenray(OURS, **several, **fast)]
    if fast:
        found.append(receivers.evenray(PLAIN, receivers.ASIDE, **several, fast=False))
    else:
        notes.append(f"left out: {PLAIN} (this version has no setting listen.fast)")
    shim = receivers.compiled_shim(folder)
    pdu, durable = ("-pdu", "131072"), "made durable by a preloaded library that syncs file and folder (fsync_shim.c)"
    if shim:
        found.append(receivers.storescp(FSYNC, *pdu, about=durable, shim=shim))
        found.append(receivers.storescp(BITS, "+B", *pdu, about=f"bit preserving; {durable}", shim=shim))
    else:
        notes.append("left out: storescp with fsync (no C compiler: install cc); its goals can't be judged")
    found.append(
        receivers.storescp("storescp --fork", *pdu, about="not durable, for information", rounds=receivers.ASIDE)
    )
    if program("Orthanc"):
        found.append(receivers.orthanc(ORTHANC))
    else:
        notes.append("left out: Orthanc (not installed: run `make peers`); its goals can't be judged")
    found.append(receivers.pynetdicom_app("pynetdicom storescp"))
    return found, notes


def _corpora(folder: Path, options: argparse.Namespace) -> list[Corpus]:
    if options.input:
        return [corpora.given(options.input)]
    shapes = corpora.QUICK if options.quick else corpora.FULL
    return [corpora.generate(folder / name, name, shapes[name], SEED) for name in options.corpus.split(",")]


def _rounds(bench: Bench, found: list[Receiver], sent: list[Corpus], senders: list[int], rounds: int) -> None:
    order = random.Random(SEED)
    for turn in range(rounds):
        cells = [(corpus, n) for corpus in sent for n in senders]
        order.shuffle(cells)
        for corpus, n in cells:
            scan_s = bench.scan_s(corpus.shares(bench._folder / "shares", n))
            for receiver in order.sample(found, len(found)):
                if turn < receiver.rounds:
                    bench.measure(receiver, corpus, n, turn, scan_s)
            _progress(f"round {turn + 1} of {rounds}: {corpus.name}, {n} associations, done")


def send(shares: Sequence[Path], aet: str, port: int) -> tuple[float, list[int], str]:
    """One sender a folder, all at once; seconds until the last has ended, their exit codes and what they said."""
    sender = [program("storescu") or "storescu", "-ll", "error", "-R", "-aec", aet, "+sd", "+r", LOOPBACK, str(port)]
    environment, codes = os.environ | receivers.UNDELAYED, []
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        started = [subprocess.Popen([*sender, str(share)], env=environment, stderr=said) for share in shares]
        for process in started:
            try:
                codes.append(process.wait(max(0.1, LONGEST_S - (time.perf_counter() - began))))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        took_s = time.perf_counter() - began
        said.seek(0)
        return took_s, codes, said.read().decode(errors="replace")


def _delayed(folder: Path, sent: list[Corpus]) -> list[str]:
    """What Nagle's algorithm costs peers whose environment has no TCP_NODELAY: a few files, one association."""
    peers = [receivers.storescp("storescp --fork", "-pdu", "131072", about="", undelayed=False)]
    if program("Orthanc"):
        peers.append(receivers.orthanc("Orthanc", undelayed=False))
    lines = ["as they come, without TCP_NODELAY=1 (1 association, few files, for information):"]
    for place, corpus in enumerate(sent, start=1):
        files = corpus.files[: 8 if corpus.large else 40]
        part = Corpus(f"{corpus.name}-few", files, sum(path.stat().st_size for path in files))
        few = Bench(folder)
        few._number = 10_000 * place
        scan_s = few.scan_s(part.shares(folder / "shares", 1))
        for peer in peers:
            few.measure(peer, part, 1, 0, scan_s)
        for r in few.runs:
            lines.append(f"  {r.receiver}, {corpus.name}: {r.rate:.0f} MB/s, {r.files / r.wall_s:.0f} inst/s")
        lines += few.faults
    return [*lines, ""]


def _tables(bench: Bench, sent: list[Corpus], senders: list[int], found: list[Receiver]) -> list[str]:
    lines = []
    for corpus in sent:
        for n in senders:
            of_cell = [runs for receiver in found if (runs := bench.of(receiver.name, corpus.name, n))]
            of_cell.sort(key=lambda runs: -spread(r.rate for r in runs).median)
            lines += [f"{corpus.name}, {n} association{'s' * (n > 1)}", *table(HEAD, [_row(r) for r in of_cell]), ""]
    return lines


def _processes(bench: Bench, receiver: Receiver) -> str:
    """How many receiving processes there were, of ours."""
    counts = {r.processes for r in bench.runs if r.receiver == receiver.name}
    return f"; receiver processes: {', '.join(map(str, sorted(counts)))}" if receiver.ours and counts else ""


def _row(runs: list[Run]) -> list[str]:
    def median(value: Callable[[Run], float]) -> float:
        return spread(map(value, runs)).median

    user, system = median(lambda r: r.user_s / r.bytes * 1e9), median(lambda r: r.system_s / r.bytes * 1e9)
    return [
        runs[0].receiver,
        str(len(runs)),
        spread(r.rate for r in runs).text(),
        spread(r.files / r.wall_s for r in runs).text(),
        f"{median(lambda r: r.wall_s):.2f}",
        f"{median(lambda r: r.cpu_per_gb):.2f} ({user:.2f}+{system:.2f})",
        *(f"{median(size) / 1e6:.0f}" for size in (lambda r: r.tree_rss, lambda r: r.process_rss)),
        f"{median(lambda r: r.process_pss) / 1e6:.0f}",
    ]


def goals(runs: Iterable[Run], sent: Sequence[Corpus], senders: Sequence[int]) -> list[str]:
    """What ours has to reach, each line computed."""
    runs = list(runs)

    def rates(receiver: str, corpus: Corpus, n: int) -> dict[int, float]:
        return {r.round: r.rate for r in runs if (r.receiver, r.corpus, r.senders) == (receiver, corpus.name, n)}

    lines, ratios = [], []
    for other, short in ((ORTHANC, "orthanc"), (FSYNC, "storescp_fsync")):
        for corpus in sent:
            least = TO_ORTHANC if other == ORTHANC else TO_LARGE if corpus.large else TO_SMALL
            for n in senders:
                found = paired(rates(OURS, corpus, n), rates(other, corpus, n))
                name = f"receive_vs_{short}_{corpus.name}_{n}"
                lines.append(goal_of(name, found, ">=", least))
                ratios += [f"{name}: {found.text(2)} over {found.count} rounds"] if found else []
    return ["ratios, ours to theirs within a round, median and range:", *ratios, "", *lines, *_own(runs, sent, senders)]


def _own(runs: Sequence[Run], sent: Sequence[Corpus], senders: Sequence[int]) -> list[str]:
    """The goals that need nobody to compare with: memory and CPU."""
    ours = [r for r in runs if r.receiver == OURS]
    lines = []
    worst = max((r.process_rss / 1e6 for r in ours), default=None)
    lines.append(goal_of("receiver_process_peak_rss_mb", spread([worst]) if worst else None, "<=", PROCESS_MB))
    large = {c.name for c in sent if c.large}
    if large and len(large) < len(sent):
        lines.append(goal_of("receiver_memory_large_minus_small_mb", _growth(ours, large), "<=", FLAT_MB))
    for corpus in sent:
        alone = [r.cpu_per_gb for r in ours if r.corpus == corpus.name and r.senders == 1]
        if corpus.large and 1 in senders:
            name = f"cpu_s_per_gb_{corpus.name}_1"
            lines.append(goal_of(name, spread(alone) if alone else None, "<=", CPU_S_PER_GB))
    return lines


def _growth(ours: Sequence[Run], large: set[str]) -> Spread | None:
    """Peak memory with large objects less that with small ones, within each round and number of senders; MB."""
    peaks: dict[tuple[int, int], dict[bool, int]] = {}
    for r in ours:
        peaks.setdefault((r.round, r.senders), {})[r.corpus in large] = r.process_rss
    grown = [(both[True] - both[False]) / 1e6 for both in peaks.values() if len(both) == 2]
    return spread(grown) if grown else None


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
