"""Measure how long after the last image its results are in the archive, beyond the engine's time and the quiet time.

    python -m tests.bench.bench_latency --out tests/bench/results/latency.txt

A real node in all its processes, Orthanc as the archive (the embedded one without it), phantoms of the embedded bank's
exam. When a result is there, the archive says; where the time went, the ledger's history says."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import node as nodes
from tests.bench.measured import Spread, goal_of, machine, program, real_disk, spread, table
from tests.node import Node
from tests.peers import LOOPBACK, free_port, orthanc

QUIET_S, RELEASED_S = 3.0, 1.0
"""Quiet times of the node under test: short, because they are subtracted."""
LONGEST_S = 120.0
LATEST_S = 1.0
SETTLE_S = 5.0
LOOK_S = 0.01
VENDORS = ("Meridian", "Umbra", "Pallas")
"""Phantoms that are harmonized, so that there is a secondary capture to wait for."""


@dataclass(slots=True)
class Sent:
    """One study as the modality saw it. Seconds since the epoch."""

    uid: str
    images: int
    last_at: float
    released_at: float


@dataclass(slots=True)
class Seen:
    """When each object was first seen in the archive."""

    look: Callable[[], Iterable[str]]
    """The archive's identifiers of what is there, or of what is there since the last look."""
    at: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What became of one study."""

    sent: Sent
    report_s: float
    capture_s: float | None
    stages: dict[str, float]
    costs: list[dict[str, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=8, help="studies of one image; half as many have four")
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of an image")
    parser.add_argument("--quick", action="store_true", help="few small studies: does it work?")
    parser.add_argument("--embedded", action="store_true", help="the embedded archive, also where Orthanc is installed")
    parser.add_argument("--work", type=Path, help="folder on a real disk to work in")
    parser.add_argument("--out", type=Path, help="file that the printed text is also saved to")
    options = parser.parse_args(arguments)
    studies, size = (2, 512) if options.quick else (options.studies, options.size)
    real = program("Orthanc") is not None and not options.embedded
    base = real_disk(options.work, [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()])
    with tempfile.TemporaryDirectory(prefix="evenray-bench-", dir=base) as made:
        folder = Path(made)
        about = machine(folder)
        lines = [
            f"latency, {about[0]}",
            about[1],
            f"archive: {'Orthanc' if real else 'the embedded one (Orthanc is not installed)'}; images of "
            f"{size} x {size}; quiet time {QUIET_S:g} s, {RELEASED_S:g} s after the release",
            "capture: last C-STORE response to the last secondary capture in the archive, less the engine's time for "
            "what was not yet decided at that response",
            "report: from the end of the quiet time, or of the engine's time if that is later, to the report in the "
            "archive",
            "",
        ]
        for commitment in (False, True):
            found = _measured(folder / f"commitment-{commitment}", studies, size, commitment=commitment, real=real)
            lines += _text(found, "with commitment" if commitment else "without commitment")
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return 0


def _measured(folder: Path, studies: int, size: int, *, commitment: bool, real: bool) -> list[Found]:
    port = free_port()
    quiet = {"quiet_s": QUIET_S, "quiet_after_release_s": RELEASED_S}
    with _archive(folder, port, real=real) as (where, look, uids):
        destinations = {"pacs": {**where, "commitment": commitment}}
        with nodes.node(folder / "node", destinations, port=port, assembly=quiet) as node:
            # The worker has loaded the engine once it has decided the first study, which is not measured.
            seen = Seen(look)
            with _watching(seen):
                sent = [
                    _send(node, folder / f"{n}", n, images, size)
                    for n, images in enumerate([1, *[1] * studies, *[4] * max(1, studies // 2)])
                ]
            at = {uid: seen.at[key] for key, uid in uids().items() if key in seen.at}
            return [_found(node, one, at) for one in sent[1:]]


@contextmanager
def _archive(
    folder: Path, node_port: int, *, real: bool
) -> Iterator[tuple[dict[str, Any], Callable[[], list[str]], Callable[[], Mapping[str, str]]]]:
    """An archive: where it is, how to ask it for its identifiers, and how those become SOP Instance UIDs."""
    folder.mkdir(parents=True)
    if real:
        with orthanc(folder, node=("EVENRAY", LOOPBACK, node_port), more={"Plugins": []}) as held:
            since = 0

            def look() -> list[str]:
                nonlocal since
                told = held.json(f"/changes?since={since}&limit=1000")
                since = told["Last"]
                return [change["ID"] for change in told["Changes"] if change["ChangeType"] == "NewInstance"]

            where = {"kind": "dimse", "ae_title": held.aet, "host": LOOPBACK, "port": held.dicom_port}
            yield where, look, lambda: {i["ID"]: i["MainDicomTags"]["SOPInstanceUID"] for i in held.instances()}
        return
    with nodes.archive(folder, node_port) as embedded:

        def names() -> list[str]:
            return [one.sop_instance_uid for one in embedded.instances()]

        yield nodes.to_archive(embedded.port)["pacs"], names, lambda: {name: name for name in names()}


@contextmanager
def _watching(seen: Seen) -> Iterator[None]:
    """Ask the archive again and again, and note when an object was first there."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(LOOK_S):
            asked_at = time.time()
            for key in seen.look():
                # The moment of the question: by then it was there, up to one look earlier.
                seen.at.setdefault(key, asked_at)

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _send(node: Node, folder: Path, number: int, images: int, size: int) -> Sent:
    """Send one study like a modality, and wait until nothing is left to do about it."""
    uid = f"1.2.826.0.1.3680043.8.498.78.{number + 1}"
    files = [
        nodes.radiograph(folder, f"{uid}.{n + 1}", study=uid, vendor=VENDORS[n % len(VENDORS)], size=size)
        for n in range(images)
    ]
    with nodes.association(node.port, files) as link:
        for path in files:
            if nodes.store(link, path) != 0:
                raise SystemExit(f"an image was not accepted\n{node.log()[-2000:]}")
        last_at = time.time()
    sent = Sent(uid, images, last_at, time.time())
    node.wait(lambda: _reported(node, uid), LONGEST_S, "the study's results are in the archive")
    # Commitments may still come: they belong to the next study's time only where they never end.
    deadline = time.monotonic() + SETTLE_S
    while not node.settled() and time.monotonic() < deadline:
        time.sleep(0.1)
    return sent


def _reported(node: Node, study: str) -> bool:
    """Whether the study has its report, and nothing is left to be sent."""
    done = "SELECT 1 FROM batch WHERE study_instance_uid = ? AND state = 'reported'"
    left = "SELECT count(*) FROM delivery WHERE state IN ('pending', 'sending')"
    return bool(node.rows(done, study)) and node.one(left) == 0


def _found(node: Node, sent: Sent, at: Mapping[str, float]) -> Found:
    """One study's latencies: results as the archive had them, the engine's time from the ledger."""
    batches = node.rows("SELECT id, first_at, last_at FROM batch WHERE study_instance_uid = ?", sent.uid)
    if len(batches) != 1:
        raise SystemExit(f"study {sent.uid} was split into {len(batches)} batches: raise the quiet times")
    batch = batches[0]
    instances = node.rows("SELECT id, decision FROM instance WHERE batch = ? ORDER BY id", batch["id"])
    steps = _History(node)
    seconds = {row["id"]: json.loads(row["decision"])["seconds"] for row in instances}
    left_s = sum(
        seconds[ref].get("engine", 0.0) for ref in seconds if steps.at("instance", ref, "decide") > sent.last_at
    )
    quiet_end = min(batch["last_at"] + QUIET_S, max(sent.released_at, batch["last_at"]) + RELEASED_S)
    report = node.rows("SELECT id, sop_instance_uid AS uid FROM object WHERE batch = ?", batch["id"])[0]
    query = "SELECT id, instance, sop_instance_uid AS uid FROM object WHERE kind = 'secondary_capture' AND instance = ?"
    captures = [row for ref in seconds for row in node.rows(query, ref)]
    last_capture = max((at[row["uid"]] for row in captures), default=None)
    return Found(
        sent,
        at[report["uid"]] - max(quiet_end, sent.last_at + left_s),
        last_capture - sent.last_at - left_s if last_capture is not None else None,
        _stages(node, steps, sent, batch["id"], report, captures, quiet_end, at),
        list(seconds.values()),
    )


class _History:
    """The ledger's history, asked by step."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def at(self, what: str, ref: int, *steps: str) -> float:
        """When the row first took one of these steps."""
        marks = ",".join("?" * len(steps))
        query = f"SELECT min(at) AS at FROM history WHERE what = ? AND ref = ? AND step IN ({marks})"
        found = self._node.one(query, what, ref, *steps)
        if found is None:
            raise SystemExit(f"{what} {ref} took no step {' or '.join(steps)}")
        return float(found)


def _stages(
    node: Node,
    steps: _History,
    sent: Sent,
    batch: int,
    report: Mapping[str, Any],
    captures: Sequence[Mapping[str, Any]],
    quiet_end: float,
    at: Mapping[str, float],
) -> dict[str, float]:
    """Where the time went, in the order in which it did; of the capture that came last, and of the report."""
    stages: dict[str, float] = {}
    if captures:
        last = max(captures, key=lambda row: at[row["uid"]])
        ref, way = last["instance"], node.one("SELECT id FROM delivery WHERE object = ?", last["id"])
        received, decided = steps.at("instance", ref, "receive"), steps.at("instance", ref, "decide")
        claimed = steps.at("instance", ref, "claim")
        stages |= {
            "image: received to first look": steps.at("instance", ref, "read") - received,
            "image: first look to admitted": steps.at("instance", ref, "admit") - steps.at("instance", ref, "read"),
            "image: admitted to claimed": claimed - steps.at("instance", ref, "admit"),
            "image: claimed to decided": decided - claimed,
        }
        stages |= _delivery("capture", steps, way, decided, at[last["uid"]])
    closed, claimed = steps.at("batch", batch, "close"), steps.at("batch", batch, "claim")
    reported = steps.at("batch", batch, "report")
    way = node.one("SELECT id FROM delivery WHERE object = ?", report["id"])
    return stages | {
        "report: quiet to closed": closed - quiet_end,
        "report: closed to claimed": claimed - closed,
        "report: claimed to made": reported - claimed,
        **_delivery("report", steps, way, reported, at[report["uid"]]),
    }


def _delivery(name: str, steps: _History, ref: int, made: float, seen: float) -> dict[str, float]:
    claimed, stored = steps.at("delivery", ref, "claim"), steps.at("delivery", ref, "store", "deliver")
    return {
        f"{name}: made to claimed by the sender": claimed - made,
        f"{name}: claimed to seen in the archive": seen - claimed,
        f"{name}: claimed to answered, in the ledger": stored - claimed,
    }


def _text(found: list[Found], title: str) -> list[str]:
    lines, goals = [title], []
    slug = title.replace(" ", "_")
    for images in sorted({one.sent.images for one in found}):
        part = [one for one in found if one.sent.images == images]
        captures = [one.capture_s for one in part if one.capture_s is not None]
        rows = [(f"capture_{images}", captures), (f"report_{images}", [one.report_s for one in part])]
        for name, values in rows:
            goals.append(goal_of(f"latency_s_{name}_{slug}", _spread(values), "<=", LATEST_S))
        lines.append(
            f"  {len(part)} studies of {images}: "
            + ", ".join(f"{n.partition('_')[0]} {spread(v).text(2)} s" for n, v in rows if v)
        )
        stages = {name: [one.stages[name] for one in part if name in one.stages] for name in part[0].stages}
        lines += [f"    {row}" for row in table(("stage", "s"), [(n, spread(v).text(3)) for n, v in stages.items()])]
    costs = [cost for one in found for cost in one.costs]
    names = list(dict.fromkeys(name for cost in costs for name in cost))
    medians = {name: spread(cost[name] for cost in costs if name in cost).text(3) for name in names}
    said = ", ".join(f"{name} {text}" for name, text in medians.items())
    lines.append(f"  costs of an image that its decision records, s: {said}")
    return [*lines, *goals, ""]


def _spread(values: Sequence[float]) -> Spread | None:
    return spread(values) if values else None


if __name__ == "__main__":
    sys.exit(main())
