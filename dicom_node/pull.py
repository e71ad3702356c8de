"""Fetch studies from an archive into the running node: what it does not have yet, at the pace that was set.

An image counts as fetched once the ledger has it, so a pull that was killed goes on where it stopped. Knows no protocol
and no terminal.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from dicom_node import marks
from dicom_node.audit_trail import Notes
from dicom_node.destinations import echo
from dicom_node.durable import write_durably
from dicom_node.errors import AlreadyRunning, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable, RetryLater, Stop
from dicom_node.ledger import Ledger
from dicom_node.probe import EVERYWHERE
from dicom_node.records import Receipt
from dicom_node.settings import Dimse, Listen, QueryRetrieve, Settings
from dicom_node.sources import FoundImage, FoundSeries, FoundStudy, SourcePort, Wanted, open_source
from dicom_node.sources.noting import noted
from dicom_node.sources.passing_on import PassingOn
from dicom_node.stopping import Stopping

AT_ONCE = 16
"""Images of one request at most: what is asked for again after a fault, and what Ctrl-C waits for."""
BURST = 32
"""A study of so few images is fetched in one go, and the pace is kept before the next one: its batch stays one."""
WAITS_S = (2.0, 8.0)
"""Before each further attempt at what failed."""
ARRIVE_S = 10.0
"""An archive may say that it has sent what is still on its way."""
SETTLE_S = 5.0
"""What a killed pull asked for may still be arriving; nothing for this long: it is not."""
LOOK_S = 0.2

T = TypeVar("T")


class Interrupted(EvenrayError):
    """A person asked to stop."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One study: what would be fetched, and how much of it is here already or was made by Evenray."""

    study: FoundStudy
    missing: tuple[FoundImage, ...]
    here: int
    own: int
    unlisted: int = 0
    """Instances that the archive counts, but does not list."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What could not be fetched, and why. Without an instance: the whole study."""

    study_instance_uid: str
    sop_instance_uid: str
    why: str


@dataclass
class Tally:
    """How far a pull is."""

    studies: int = 0
    """That match."""
    looked_at: int = 0
    images: int = 0
    """Of the studies that were looked at."""
    fetched: int = 0
    here: int = 0
    own: int = 0
    failed: list[Failed] = field(default_factory=list)
    doing: str = ""
    stopped: str = ""
    """Why it ended before its time, "" where it did not."""
    interrupted: bool = False
    limited: bool = False
    """Whether `limit` left something for the next time."""


class Pace:
    """When the next images may be fetched, so that no more than so many come in a minute on average. Pure."""

    def __init__(self, per_minute: float) -> None:
        self._each_s = 60 / per_minute
        self._paid_until = -float("inf")

    def wait_s(self, *, now: float, burst: int = 0) -> float:
        """How long to wait while `burst` images may be ahead of the pace."""
        return max(0.0, self._paid_until - burst * self._each_s - now)

    def took(self, count: int, *, now: float) -> None:
        self._paid_until = max(now, self._paid_until) + count * self._each_s


class Asked:
    """The images that are being fetched, on the disk: what a killed pull leaves to the next one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "asked.json"

    def begin(self, uids: Sequence[str]) -> None:
        """Raises DiskFull."""
        write_durably(self._path, json.dumps(list(uids)).encode())

    def over(self) -> None:
        self._path.unlink(missing_ok=True)

    def left(self) -> set[str]:
        with suppress(OSError, ValueError, TypeError):
            return set(map(str, json.loads(self._path.read_bytes())))
        return set()


class Pull:
    """One pull from one source. The node must receive, and its ledger be there."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        ledger: Ledger,
        *,
        stopping: Stopping,
        per_minute: float,
        limit: int | None = None,
        changed: Callable[[Tally], None] = lambda _tally: None,
    ) -> None:
        """`name`: of the source; `limit`: images to fetch at most; `changed` is called when the tally changed."""
        self.tally = Tally()
        self._settings = settings
        self._setting = settings.sources[name]
        self._source: SourcePort = open_source(name, self._setting, calling_ae=settings.listen.ae_title)
        self._ledger = ledger
        self._stopping = stopping
        self._pace = Pace(per_minute)
        self._left = float("inf") if limit is None else limit
        self._changed = changed
        self._asked = Asked(settings.state_dir / "pull")
        self._noted = partial(noted, Notes(settings), name, self._setting)

    def plans(self, wanted: Wanted) -> Iterator[Plan]:
        """Every study that matches, with what it has; fetches nothing. Faults of a single study are in the tally."""
        self._say("asking which studies match")
        with self._noted(wanted):
            studies = self._again(lambda: self._source.studies(wanted, beat=self._beat))
        self.tally.studies = len(studies)
        known = {study.study_instance_uid for study in studies}
        for uid in wanted.studies:
            if uid not in known:
                self.tally.failed.append(Failed(uid, "", "the archive has no such study of these modalities"))
        for study in studies:
            self._say("asking what a study has")
            try:
                plan = self._again(partial(self._plan, study, wanted.modalities))
            except (PeerBusy, PeerRefused) as fault:
                self.tally.failed.append(Failed(study.study_instance_uid, "", str(fault)))
                continue
            self.tally.looked_at += 1
            self.tally.images += len(plan.missing) + plan.here + plan.own
            self.tally.here += plan.here
            self.tally.own += plan.own
            if plan.unlisted:
                why = f"the archive counts {plan.unlisted} more than it lists"
                self.tally.failed.append(Failed(study.study_instance_uid, "", why))
            self._changed(self.tally)
            yield plan

    def run(self, wanted: Wanted) -> Tally:
        """Fetch what matches and is not here; the tally says what came of it.

        Raises Stop where the node does not receive or another pull runs, before anything was asked.
        """
        if why := self._away():
            raise Stop(f"the node does not receive ({why}): start it (evenray serve), then pull again")
        with alone(self._settings.state_dir / "pull"):
            try:
                self._settle()
                for plan in self.plans(wanted):
                    self._fetch_study(plan)
                    if self._left <= 0:
                        break
            except Interrupted:
                self.tally.interrupted = True
            except EvenrayError as fault:
                self.tally.stopped = str(fault)
        self._say("")
        return self.tally

    def _plan(self, study: FoundStudy, modalities: Sequence[str]) -> Plan:
        images: list[FoundImage] = []
        own = unlisted = 0
        for series in self._source.series(study.study_instance_uid, modalities, beat=self._beat):
            found = self._source.images(series, beat=self._beat)
            foreign = [one for one in found if not _is_own(series, one)]
            own += len(found) - len(foreign)
            unlisted += max(0, (series.instances or 0) - len(found))
            images += foreign
        here = self._ledger.present([one.sop_instance_uid for one in images])
        missing = tuple(one for one in images if one.sop_instance_uid not in here)
        return Plan(study, missing, len(images) - len(missing), own, unlisted)

    def _fetch_study(self, plan: Plan) -> None:
        """Series by series, in requests of a few images each."""
        keep = PassingOn(listener(self._settings.listen), calling_ae=self._calling_ae())
        first = True
        try:
            for _, series in groupby(plan.missing, attrgetter("series_instance_uid")):
                images = list(series)
                while images:
                    some, images = images[:AT_ONCE], images[AT_ONCE:]
                    if len(some) > self._left:
                        some, images, self.tally.limited = some[: int(self._left)], [], True
                    if not some:
                        return
                    self._wait_for_room(0 if first else BURST)
                    self._fetch(some, keep)
                    first = False
        finally:
            keep.close()

    def _wait_for_room(self, burst: int) -> None:
        """Until the node's queue and the pace allow more. Raises Interrupted."""
        while (waiting := self._ledger.figures.waiting()) >= self._settings.pull.queue_limit:
            self._sleep(1.0, f"waiting: {waiting} images wait in the node")
        while (wait_s := self._pace.wait_s(now=time.monotonic(), burst=burst)) > 0:
            self._sleep(min(wait_s, 1.0), "waiting: keeping to the pace")

    def _fetch(self, images: Sequence[FoundImage], keep: PassingOn) -> None:
        """Fetch images of one series: together, then what failed one by one. Raises Interrupted, PeerUnreachable."""
        left = {one.sop_instance_uid: one for one in images}
        whys: dict[str, EvenrayError] = {}
        self._asked.begin(list(left))
        try:
            for wait_s in (*WAITS_S, None):
                groups = [list(left.values())] if len(whys) == 0 else [[one] for one in left.values()]
                for group in groups:
                    whys.update(self._ask(group, keep))
                    self._count(left)
                if not left or wait_s is None:
                    break
                if any(isinstance(whys.get(uid), RetryLater) for uid in left):
                    self._sleep(wait_s, "waiting before another attempt")
        finally:
            self._count(left)
            self._asked.over()
        self._give_up(left, whys)

    def _ask(self, images: Sequence[FoundImage], keep: PassingOn) -> dict[str, EvenrayError]:
        """One request; what went wrong, by SOP Instance UID. What did not, may still be missing."""
        self._say("fetching")
        self._pace.took(len(images), now=time.monotonic())
        whys: dict[str, EvenrayError] = {}
        sent: set[str] = set()
        for image, answer in self._source.fetch(images, keep, beat=self._beat):
            uid = image.sop_instance_uid
            if isinstance(answer, Receipt):
                sent.add(uid)
            else:
                whys[uid] = keep.fault or answer
            self._changed(self.tally)
        deadline = time.monotonic() + ARRIVE_S
        while (late := sent - self._ledger.present(sent)) and time.monotonic() < deadline:
            self._sleep(LOOK_S, "waiting for what the archive has sent")
        for uid in late:
            whys[uid] = PeerUnreachable("said to be sent, but did not arrive: does `move_to` lead to this node there?")
        return whys

    def _count(self, left: dict[str, FoundImage]) -> None:
        """Take out of `left` what the ledger has by now."""
        for uid in self._ledger.present(left):
            del left[uid]
            self.tally.fetched += 1
            self._left -= 1
        self._changed(self.tally)

    def _give_up(self, left: dict[str, FoundImage], whys: dict[str, EvenrayError]) -> None:
        """List what could not be fetched. Raises PeerUnreachable where going on makes no sense."""
        for uid, image in left.items():
            why = whys.get(uid, "the archive did not send it")
            self.tally.failed.append(Failed(image.study_instance_uid, uid, str(why)))
        if not left:
            return
        if why := self._away():
            raise PeerUnreachable(f"the node does not receive any more ({why}): start it, then pull again")
        faults = [whys.get(uid) for uid in left]
        gone = next((fault for fault in faults if isinstance(fault, PeerUnreachable)), None)
        if gone and all(isinstance(fault, PeerUnreachable) for fault in faults):
            raise gone

    def _settle(self) -> None:
        """Let what a killed pull asked for arrive first: it would else be fetched twice."""
        left = self._asked.left()
        quiet_since = time.monotonic()
        while left and time.monotonic() - quiet_since < SETTLE_S:
            if arrived := self._ledger.present(left):
                left -= arrived
                quiet_since = time.monotonic()
            else:
                self._sleep(LOOK_S, "waiting for what an earlier pull asked for")
        self._asked.over()

    def _again(self, step: Callable[[], T]) -> T:
        """Try a question again while it may go well later."""
        for wait_s in WAITS_S:
            try:
                return step()
            except RetryLater as fault:
                self._sleep(wait_s, f"waiting before another attempt: {fault}")
        return step()

    def _calling_ae(self) -> str:
        """Who hands fetched images to the node: the archive, as if it had sent them, so that routes by sender hold."""
        if isinstance(self._setting, QueryRetrieve):
            return self._setting.ae_title
        return self._settings.listen.ae_title

    def _away(self) -> str:
        """Why nobody answers on the node's port, "" where somebody does, even if it does not let us in."""
        try:
            echo(listener(self._settings.listen), calling_ae=self._calling_ae())
        except PeerUnreachable as fault:
            return str(fault)
        except (PeerBusy, PeerRefused):
            pass
        return ""

    def _beat(self) -> None:
        if self._stopping.asked:
            raise Interrupted("stopped as asked")

    def _sleep(self, seconds: float, why: str) -> None:
        self._say(why)
        if self._stopping.wait(seconds):
            self._beat()

    def _say(self, doing: str) -> None:
        self.tally.doing = doing
        self._changed(self.tally)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the node's only pull. Raises AlreadyRunning."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as fault:
            raise AlreadyRunning("another pull of this node is running: wait for it, or stop it") from fault
        yield


def _is_own(series: FoundSeries, image: FoundImage) -> bool:
    """Whether Evenray made it: fetched for harmonizing, it could go round for ever."""
    if marks.is_our_uid(image.sop_instance_uid):
        return True
    return series.description.startswith((marks.HARMONIZED_PREFIX, marks.REPORT_PREFIX))


def listener(listen: Listen) -> Dimse:
    """Our own port, as who is on this machine reaches it."""
    return Dimse(
        kind="dimse",
        ae_title=listen.ae_title,
        host=EVERYWHERE.get(listen.host, listen.host),
        port=listen.port,
        tls=listen.tls.to_itself() if listen.tls else None,
        dimse_timeout_s=listen.dimse_timeout_s,
    )
