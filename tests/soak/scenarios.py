"""The scenarios in which every named step is reached, and which step is reached in which.

Each scenario ends alike whether or not a process was killed in it: that is what the tests compare.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dicom_node.steps import REGISTER
from tests.modality import Modality, action, references, request
from tests.node import radiograph, study
from tests.peers import LOOPBACK, free_port, listening
from tests.soak.stage import SETTLE_S, Stage

STUDY = "1.2.826.0.1.3680043.10.1.90"
SLOW = {"retry": {"first_s": 3600.0, "longest_s": 3600.0}}
FAST = {"retry": {"first_s": 0.2, "longest_s": 2.0}}
LEAVING = {"originals_days": 1e-6, "results_days": 1e-6, "only_copies": "expire", "every_s": 0.3}
BUSY, REFUSED = 0xA700, 0xA900


def plain(played: Stage, folder: Path) -> Sequence[Path]:
    """A study through the node to the PACS, which commits to keep it."""
    files = study(folder, STUDY, 2)
    played.up()
    played.node.insist(files)
    played.quiet()
    return files


def repeats(played: Stage, folder: Path) -> Sequence[Path]:
    """The same again, another object of the same UID, a result that comes back; a person lets the clash in."""
    files = study(folder, STUDY, 2)
    other = radiograph(folder / "other", f"{STUDY}.1", study=STUDY, vendor="Pallas", seed=2)
    played.up()
    played.node.insist(files)
    played.decided()
    played.node.insist([files[0]])
    played.node.insist([other])
    played.reaches("instance", "conflict")
    played.node.wait(lambda: _held(played, "2.25."), SETTLE_S, "the PACS has a result")
    back = Path(shutil.copy(_held(played, "2.25.")[0], folder))
    played.node.insist([back])
    played.decided()
    ref = played.node.one("SELECT id FROM instance WHERE state = 'conflict'")
    played.command("retry", f"instance:{ref}")
    played.quiet()
    return [*files, other, back]


def audited(played: Stage, folder: Path) -> Sequence[Path]:
    """The plain play, told to an audit repository."""
    with socket.socket(type=socket.SOCK_DGRAM) as repository:
        repository.bind((LOOPBACK, 0))
        repository.setblocking(False)
        played.node.configure(audit={"transport": "udp", "port": repository.getsockname()[1]})
        files = plain(played, folder)
        heard: list[bytes] = []

        def told() -> bool:
            with suppress(BlockingIOError):
                while True:
                    heard.append(repository.recv(65536))
            return any(b'EventActionCode="C"' in message for message in heard)

        played.node.wait(told, SETTLE_S, "the repository hears of the study")
    return files


def _held(played: Stage, start: str) -> list[Path]:
    return [held.path for held in played.pacs.instances() if held.sop_instance_uid.startswith(start)]


def unreadable(played: Stage, folder: Path) -> Sequence[Path]:
    """An object that is not the one that its sender announced is parked, and parked again."""
    bad, good = study(folder, STUDY, 2)
    # The first mention is in the File Meta Information.
    bad.write_bytes(bad.read_bytes().replace(f"{STUDY}.1".encode(), f"{STUDY}.7".encode(), 1))
    played.up()
    played.node.insist([bad, good])
    played.reaches("instance", "parked")
    played.command("retry", "--all")
    _waits_for(played, "instance", "park", 2)
    played.quiet()
    return [bad, good]


def fails_once(played: Stage, folder: Path) -> Sequence[Path]:
    """Every step fails once and is tried again; the PACS is busy at first."""
    files = study(folder, STUDY, 2)
    played.pacs.refuses["*"] = BUSY
    played.up()
    played.node.insist(files)
    _waits_for(played, "delivery", "release", 1)
    played.pacs.refuses.clear()
    played.quiet()
    return files


def parked(played: Stage, folder: Path) -> Sequence[Path]:
    """An image and a report are parked at their first fault, and tried again by a person."""
    files = study(folder, STUDY, 1)
    played.up()
    played.node.insist(files)
    played.reaches("instance", "parked")
    played.quiet()
    played.reaches("batch", "void")
    played.command("retry", "--all")
    played.reaches("batch", "parked")
    played.command("retry", "--all")
    played.node.wait_settled(SETTLE_S)
    return files


def refused(played: Stage, folder: Path) -> Sequence[Path]:
    """The PACS refuses for good until a person has asked its people."""
    files = study(folder, STUDY, 1)
    played.pacs.refuses["*"] = REFUSED
    played.up()
    played.node.insist(files)
    played.reaches("delivery", "parked")
    played.quiet()
    played.pacs.refuses.clear()
    played.command("retry", "--all")
    played.node.wait_settled(SETTLE_S)
    return files


def late(played: Stage, folder: Path) -> Sequence[Path]:
    """The commitment reports come when nobody waits for them any more."""
    files = study(folder, STUDY, 1)
    played.node.configure(deliver=SLOW)
    played.pacs.answering.clear()
    played.up()
    played.node.insist(files)
    _waits_for(played, "delivery", "ask again", 1)
    played.pacs.answering.set()
    played.node.configure(deliver=FAST)
    played.again("deliver")
    played.quiet()
    return files


def denied(played: Stage, folder: Path) -> Sequence[Path]:
    """The PACS says that it does not have what it accepted; later it has it."""
    files = study(folder, STUDY, 1)
    played.pacs.denies = True
    played.up()
    played.node.insist(files)
    _waits_for(played, "delivery", "send again", 1)
    played.pacs.denies = False
    played.quiet()
    return files


def denied_late(played: Stage, folder: Path) -> Sequence[Path]:
    """It says so when nobody waits any more."""
    files = study(folder, STUDY, 1)
    played.node.configure(deliver=SLOW)
    played.pacs.denies = True
    played.pacs.answering.clear()
    played.up("deliver", "work", "upkeep")
    played.node.configure(deliver=FAST)
    played.up("listen")
    played.node.insist(files)
    waiting = "SELECT count(*) FROM delivery WHERE state = 'stored' AND asked > 0"
    played.node.wait(lambda: played.node.one(waiting) == 2, SETTLE_S, "nothing is asked for any more")
    played.pacs.denies = False
    played.pacs.answering.set()
    _waits_for(played, "delivery", "send again", 1)
    played.again("deliver")
    played.quiet()
    return files


def never_committed(played: Stage, folder: Path) -> Sequence[Path]:
    """The node gives up asking; then the report comes."""
    files = study(folder, STUDY, 1)
    played.node.configure(deliver={"retry": {"attempts": 1}})
    played.pacs.answering.clear()
    played.up()
    played.node.insist(files)
    played.reaches("delivery", "parked")
    played.quiet()
    played.pacs.answering.set()
    played.node.wait(lambda: played.node.counts()["delivery"].keys() == {"delivered"}, SETTLE_S, "all is delivered")
    return files


def unknown_destination(played: Stage, folder: Path) -> Sequence[Path]:
    """A destination is taken out of the configuration while something is on its way there, and comes back."""
    first, second = study(folder, STUDY, 2)
    played.node.configure(deliver=SLOW)
    played.pacs.answering.clear()
    played.up()
    played.node.insist([first])
    _waits_for(played, "delivery", "ask again", 1)
    played.down("deliver")
    played.node.insist([second])
    played.decided()
    kept = {name: played.node.settings[name] for name in ("destinations", "routes", "passed_by")}
    played.node.settings.update(destinations={}, routes=[{"name": "radiographs"}], passed_by={})
    played.node.configure()
    played.up("deliver")
    played.node.wait(lambda: played.node.counts()["delivery"].keys() == {"parked"}, SETTLE_S, "all is parked")
    played.node.settings.update(kept)
    played.node.configure(deliver=FAST)
    played.pacs.answering.set()
    played.again("deliver")
    played.command("retry", "--all")
    played.quiet()
    return [first, second]


def damaged(played: Stage, folder: Path) -> Sequence[Path]:
    """A spooled file loses its bytes; the sender sends the object again."""
    files = study(folder, STUDY, 2)
    played.up()
    played.node.insist(files)
    played.quiet()
    path = played.node.one("SELECT path FROM instance WHERE sop_instance_uid = ?", f"{STUDY}.1")
    (played.node.spool / path).write_bytes(b"")
    played.node.insist([files[0]])
    played.node.wait_settled(SETTLE_S)
    return files


def outage(played: Stage, folder: Path) -> Sequence[Path]:
    """The PACS is down at first."""
    files = study(folder, STUDY, 1)
    played.pacs.stop()
    played.up()
    played.node.insist(files)
    played.node.wait(lambda: played.node.rows("SELECT 1 FROM mark WHERE name LIKE 'down%'"), SETTLE_S, "it is noted")
    played.pacs.start()
    played.quiet()
    return files


def expired(played: Stage, folder: Path) -> Sequence[Path]:
    """What was delivered leaves the spool, and so does a result that came back."""
    files = study(folder, STUDY, 1)
    played.up()
    played.node.insist(files)
    played.quiet()
    back = Path(shutil.copy(_held(played, "2.25.")[0], folder))
    played.node.insist([back])
    played.node.wait(lambda: played.node.counts()["instance"].keys() == {"expired"}, SETTLE_S, "all has left")
    played.node.wait(lambda: not _kept(played), SETTLE_S, "the files have left")
    return files


def rotten(played: Stage, folder: Path) -> Sequence[Path]:
    """A file loses its bytes while it waits for its second try; the sweep finds it, and the sender sends it again."""
    files = study(folder, STUDY, 1)
    played.up()
    played.node.insist(files)
    _waits_for(played, "instance", "release", 1)
    path = played.node.one("SELECT path FROM instance")
    (played.node.spool / path).write_bytes(b"")
    _waits_for(played, "instance", "park", 1)
    played.node.insist(files)
    _waits_for(played, "instance", "repeat", 1)
    played.command("retry", "--all")
    played.quiet()
    return files


def restored(played: Stage, folder: Path) -> Sequence[Path]:
    """A backup is made, and all of it comes back."""
    files = study(folder, STUDY, 1)
    played.up()
    played.node.insist(files)
    played.quiet()
    backup = str(folder / "backup")
    played.command("backup", backup)
    played.down()
    played.command("restore", backup, "--force")
    played.up()
    played.node.wait_settled(SETTLE_S)
    return files


def reborn(played: Stage, folder: Path) -> Sequence[Path]:
    """The ledger is lost, and there is no backup: the originals are taken in again."""
    files = study(folder, STUDY, 1)
    played.up()
    played.node.insist(files)
    played.quiet()
    played.down()
    for path in played.node.state.glob("ledger.sqlite*"):
        path.unlink()
    played.command("restore", "--from-spool")
    played.up()
    played.quiet()
    return files


def rewound(played: Stage, folder: Path) -> Sequence[Path]:
    """The ledger is lost after a backup, and so is a file that the backup has; a later image is taken in again."""
    first, second = study(folder, STUDY, 2)
    played.up()
    played.node.insist([first])
    played.quiet()
    backup = str(folder / "backup")
    played.command("backup", backup)
    played.node.insist([second])
    played.quiet()
    played.down()
    (played.node.spool / played.node.one("SELECT path FROM instance ORDER BY id LIMIT 1")).unlink()
    (played.node.state / "ledger.sqlite").write_bytes(b"no ledger any more" * 400)
    for path in played.node.state.glob("ledger.sqlite-*"):
        path.unlink()
    played.command("restore", backup, "--ledger-only")
    played.up()
    played.quiet()
    return [first, second]


def promised(played: Stage, folder: Path) -> Sequence[Path]:
    """A modality asks whether its image is kept, is told on an association of ours, and asks the same once more."""
    files, modality = study(folder, STUDY, 1), Modality(port=free_port())
    _knows(played, modality)
    with modality.listens():
        played.up()
        played.node.insist(files)
        for n in (1, 2):
            _asks(played, modality, files)
            _waits_for(played, "promise", "report", n)
            played.reaches("promise", "reported")
    played.quiet()
    return files


def promised_late(played: Stage, folder: Path) -> Sequence[Path]:
    """It does not listen at first, and is busy then."""
    files, modality = study(folder, STUDY, 1), Modality(port=free_port(), status=lambda: 0x0110)
    _knows(played, modality)
    played.up()
    played.node.insist(files)
    _asks(played, modality, files)
    played.reaches("promise", "decided")
    with modality.listens():
        _waits_for(played, "promise", "release", 1)
        modality.status = lambda: 0
        played.reaches("promise", "reported")
    played.quiet()
    return files


def promised_in_vain(played: Stage, folder: Path) -> Sequence[Path]:
    """It refuses what it is told, asks again and refuses again; then a person has it told once more."""
    files, modality = study(folder, STUDY, 1), Modality(port=free_port(), status=lambda: 0x0115)
    _knows(played, modality)
    with modality.listens():
        played.up()
        played.node.insist(files)
        for n in (1, 2):
            _asks(played, modality, files)
            _waits_for(played, "promise", "park", n)
            played.reaches("promise", "parked")
        modality.status = lambda: 0
        played.command("retry", "--all")
        played.reaches("promise", "reported")
    played.quiet()
    return files


def promised_on_request(played: Stage, folder: Path) -> Sequence[Path]:
    """It listens nowhere, and asks again on an association that it keeps open."""
    files, modality = study(folder, STUDY, 1), Modality()
    played.up()
    played.node.insist(files)
    _asks(played, modality, files)
    played.reaches("promise", "decided")
    while not modality.reports:
        _asks(played, modality, files, stay_s=SETTLE_S)
    played.reaches("promise", "reported")
    played.quiet()
    return files


def _knows(played: Stage, modality: Modality) -> None:
    played.node.configure(listen={"peers": {"modality": {"ae_title": modality.aet, "port": modality.port}}})


def _asks(played: Stage, modality: Modality, files: Sequence[Path], *, stay_s: float = 0.0) -> None:
    """Ask like a good modality: until it is accepted. Stay for the report, if it comes while the node lives."""

    def accepted() -> bool:
        if not listening(played.node.port):
            return False
        try:
            with modality.association(played.node.port) as link:
                told = len(modality.reports)
                if action(link, request("2.25.1", references(files))) != 0:
                    return False
                until = time.monotonic() + stay_s
                while link.is_established and len(modality.reports) == told and time.monotonic() < until:
                    time.sleep(0.01)
        except (AssertionError, RuntimeError):
            return False
        return True

    played.node.wait(accepted, SETTLE_S, "the node has taken the request")


def _kept(played: Stage) -> list[Path]:
    return [path for path in played.node.spooled() if "incoming" not in path.parts]


def _waits_for(played: Stage, what: str, step: str, count: int) -> None:
    query = "SELECT count(*) FROM history WHERE what = ? AND step = ?"
    played.node.wait(
        lambda: played.node.one(query, what, step) >= count, SETTLE_S, f"{count} times {step!r} of a {what}"
    )


@dataclass(frozen=True)
class Scenario:
    """A play, the faults that belong to it, and the node's settings."""

    play: Callable[[Stage, Path], Sequence[Path]]
    steps: str
    """What is killed in it: names of the register, or beginnings of them."""
    faults: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


FAILING_ONCE = "process.begun:fail,instance.reading.admit.begun:fail,report.made:fail"
PARKING = "process.begun:fail,report.made:fail"
SCENARIOS: Mapping[str, Scenario] = {
    "plain": Scenario(
        plain,
        """
        spool.made spool.incoming spool.shard spool.keep durable receive process report
        deliver.claimed deliver.answered deliver.asked
        association.open association.end lease.renew ledger.make ledger.sweep upkeep.note
        instance.new.receive instance.received.read instance.reading.admit instance.waiting.claim
        instance.claimed.decide instance.decided.report
        batch.new.open batch.open.close batch.closed.claim batch.reporting.report
        delivery.new.queue delivery.pending.claim delivery.sending.store delivery.stored.ask delivery.awaiting.deliver
        """,
    ),
    "audited": Scenario(audited, "audit"),
    "same": Scenario(plain, "deliver.reported", options={"same": True}),
    "unconfirmed": Scenario(plain, "delivery.sending.deliver", options={"commitment": False}),
    "partial": Scenario(plain, "spool.clear", faults="spool.incoming.written:kill"),
    "repeats": Scenario(
        repeats,
        "spool.discard instance.conflict.retry instance.reading.clash instance.reading.recognise "
        "instance.reading.repeat",
    ),
    "unreadable": Scenario(unreadable, "instance.parked.retry instance.reading.park"),
    "fails once": Scenario(
        fails_once,
        "instance.reading.release instance.claimed.release batch.reporting.release delivery.sending.release",
        faults=FAILING_ONCE,
    ),
    "parked": Scenario(
        parked,
        "instance.claimed.park batch.closed.void batch.reporting.park batch.parked.retry",
        faults=PARKING,
        options={"work": {"lease_s": 0.5, "retry": {"attempts": 1}}},
    ),
    "refused": Scenario(refused, "delivery.sending.park delivery.parked.retry"),
    "outage": Scenario(outage, "delivery.outage"),
    "late": Scenario(late, "delivery.awaiting.ask_again delivery.stored.deliver"),
    "denied": Scenario(denied, "delivery.awaiting.send_again"),
    "denied late": Scenario(denied_late, "delivery.stored.send_again"),
    "never committed": Scenario(never_committed, "delivery.awaiting.park delivery.parked.deliver"),
    "promised": Scenario(
        promised,
        """
        keeping promise.keep promise.free promise.new.ask promise.asked.decide promise.decided.claim
        promise.reporting.report promise.reported.ask_again
        """,
    ),
    "promised late": Scenario(promised_late, "promise.reporting.release"),
    "promised in vain": Scenario(
        promised_in_vain, "promise.reporting.park promise.parked.ask_again promise.parked.retry"
    ),
    "promised on request": Scenario(promised_on_request, "promise.decided.ask_again"),
    "unknown destination": Scenario(unknown_destination, "delivery.pending.park delivery.stored.park"),
    "damaged": Scenario(damaged, "spool.restore"),
    "rotten": Scenario(
        rotten,
        "instance.waiting.park",
        faults="process.begun:fail",
        options={"integrity": {"every_days": 1e-6}, "work": {"lease_s": 0.5, "retry": {"first_s": 3600.0}}},
    ),
    "restored": Scenario(restored, "backup restore.copied restore.moved"),
    "reborn": Scenario(reborn, "restore.ledger restore.born"),
    "rewound": Scenario(rewound, "restore.fresh restore.completed"),
    "expired": Scenario(
        expired,
        "retention instance.reported.expire instance.own.expire object.kept.expire",
        options={"retention": LEAVING},
    ),
}


def scenario_of(step: str) -> str | None:
    """The scenario in which a step is killed: the one that names it, or the beginning of its name."""
    parts = step.split(".")
    starts = {".".join(parts[:n]) for n in range(1, len(parts) + 1)}
    return next((name for name, one in SCENARIOS.items() if starts & set(one.steps.split())), None)


def without_scenario(steps: Iterable[str] = REGISTER) -> list[str]:
    return [step for step in steps if scenario_of(step) is None]
