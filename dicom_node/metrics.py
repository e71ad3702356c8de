"""What Prometheus is told: queues, ages, counters, style distances, costs, disk, processes. Knows no HTTP.

Counters begin at 0 with the supervisor and follow the ledger's history by its ids: a scrape counts nothing twice and
looks at nothing old.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dicom_node.errors import SettingsInvalid
from dicom_node.ledger.figures import Figures, figures_of
from dicom_node.settings import Settings

DISTANCES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WALK_PAUSE_S = 0.01
"""Between two folders of the spool, so that adding up its files disturbs nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """One supervised process as its supervisor sees it."""

    name: str
    role: str
    up: bool
    silent_s: float
    starts: int
    deaths: int
    hangs: int


class _Histogram:
    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def write(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric(labels, buckets, self._sum)


class Tally:
    """Counters that follow the ledger's history."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._mark: int | None = None
        self.steps: Counter[tuple[str, str, str]] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.distances: dict[tuple[str, str], _Histogram] = {}
        self.costs: dict[str, _Histogram] = {}

    def begin(self, ledger: Path) -> None:
        """Count from now on."""
        with figures_of(ledger) as figures:
            self._mark = figures.last()

    def follow(self, figures: Figures) -> None:
        """Count what happened since the last time."""
        with self._lock:
            more = True
            while more:
                found = figures.steps_since(self._mark or 0)
                self._mark, more = found.upto, found.more
                for what, step, destination, count in found.counts:
                    self.steps[what, step, destination] += count
                for decision in found.decisions:
                    self._decided(decision)

    def _decided(self, decision: dict[str, Any]) -> None:
        self.outcomes[decision["outcome"]] += 1
        for when in ("before", "after"):
            value = decision.get(f"distance_{when}")
            # JSON has no infinity: it is a string there, and in no bucket that says anything.
            if isinstance(value, int | float):
                key = (decision.get("bank", ""), when)
                self.distances.setdefault(key, _Histogram(DISTANCES)).add(value)
        for stage, seconds in decision.get("seconds", {}).items():
            self.costs.setdefault(stage, _Histogram(SECONDS)).add(seconds)


class Metrics(Collector):
    """Everything in the text format of Prometheus."""

    def __init__(self, settings: Settings, processes: Callable[[], Sequence[ProcessFigures]]) -> None:
        self._settings = settings
        self._ledger = settings.state_dir / "ledger.sqlite"
        self._processes = processes
        self._spool: dict[str, tuple[int, int]] = {}
        self.tally = Tally()
        # Not the library's global one: it would carry what others in this process have registered.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def follow(self) -> None:
        """Keep the counters near the ledger; called now and then, so that no scrape has much to do."""
        if self._ledger.exists():
            with figures_of(self._ledger) as figures:
                self.tally.follow(figures)

    def walk(self, stopped: threading.Event) -> None:
        """Add up the files of the spool: slowly, they are many."""
        found = {}
        for name in ("incoming", "originals", "results"):
            count = size = 0
            for folder, _, files in os.walk(self._settings.state_dir / "spool" / name):
                for file in files:
                    try:
                        size += (Path(folder) / file).stat().st_size
                        count += 1
                    except OSError:
                        # It has just left.
                        continue
                if stopped.wait(WALK_PAUSE_S):
                    return
            found[name] = (count, size)
        self._spool = found

    def collect(self) -> Iterable[Metric]:
        yield from self._of_processes()
        yield from self._of_disk()
        yield from _of_certificates(self._settings)
        if self._ledger.exists():
            try:
                with figures_of(self._ledger) as figures:
                    self.tally.follow(figures)
                    families = [*_of_queues(figures), *_of_trouble(figures), *self._of_tally()]
            except OSError:
                # Health says why; what does not come from the ledger is told all the same.
                families = []
            yield from families

    def _of_processes(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("evenray_process_up", "1 while the process runs and its loop turns.", labels=["process"])
        silent = GaugeMetricFamily("evenray_heartbeat_age_seconds", "Since its last heartbeat.", labels=["process"])
        starts = CounterMetricFamily("evenray_process_starts", "Starts.", labels=["process"])
        deaths = CounterMetricFamily("evenray_process_deaths", "Ends that nobody asked for.", labels=["process"])
        hangs = CounterMetricFamily("evenray_process_hangs", "Killed for their silence.", labels=["process"])
        for one in self._processes():
            up.add_metric([one.name], float(one.up))
            silent.add_metric([one.name], one.silent_s)
            starts.add_metric([one.name], one.starts)
            deaths.add_metric([one.name], one.deaths)
            hangs.add_metric([one.name], one.hangs)
        yield from (up, silent, starts, deaths, hangs)

    def _of_disk(self) -> Iterator[Metric]:
        usage = shutil.disk_usage(self._settings.state_dir)
        free = GaugeMetricFamily("evenray_disk_free_bytes", "Free on the state directory's file system.")
        used = GaugeMetricFamily("evenray_disk_used_bytes", "Used on the state directory's file system.")
        free.add_metric([], usage.free)
        used.add_metric([], usage.used)
        yield from (free, used)
        size = GaugeMetricFamily("evenray_ledger_bytes", "Size of the ledger and its journal.")
        files = [self._ledger, self._ledger.with_name(f"{self._ledger.name}-wal")]
        size.add_metric([], sum(file.stat().st_size for file in files if file.exists()))
        yield size
        spool = GaugeMetricFamily("evenray_spool_bytes", "Size of the spool, added up now and then.", labels=["folder"])
        count = GaugeMetricFamily("evenray_spool_files", "Files in the spool.", labels=["folder"])
        for name, (number, total) in self._spool.items():
            spool.add_metric([name], total)
            count.add_metric([name], number)
        yield from (spool, count)

    def _of_tally(self) -> Iterator[Metric]:
        tally = self.tally
        received = CounterMetricFamily("evenray_received_instances", "Instances acknowledged with Success.")
        received.add_metric([], tally.steps["instance", "receive", ""])
        decided = CounterMetricFamily("evenray_decided_instances", "Instances by outcome.", labels=["outcome"])
        for outcome, count in sorted(tally.outcomes.items()):
            decided.add_metric([outcome], count)
        delivered = CounterMetricFamily("evenray_delivered_objects", "Objects delivered.", labels=["destination"])
        parked = CounterMetricFamily("evenray_parked", "Things set aside for a person.", labels=["what"])
        failed = CounterMetricFamily(
            "evenray_given_back", "Work that failed or was left, to be tried again.", labels=["what"]
        )
        reported = CounterMetricFamily("evenray_reported_batches", "Batches with a report.")
        reported.add_metric([], tally.steps["batch", "report", ""])
        sums: Counter[tuple[str, str]] = Counter()
        for (what, step, destination), count in sorted(tally.steps.items()):
            if (what, step) == ("delivery", "deliver"):
                delivered.add_metric([destination], count)
            sums[what, step] += count
        for what in ("instance", "batch", "delivery"):
            parked.add_metric([what], sums[what, "park"])
            failed.add_metric([what], sums[what, "release"])
        yield from (received, decided, delivered, parked, failed, reported)
        distance = HistogramMetricFamily(
            "evenray_style_distance", "Distance to the bank's style.", labels=["bank", "when"]
        )
        for (bank, when), histogram in sorted(tally.distances.items()):
            histogram.write(distance, [bank, when])
        cost = HistogramMetricFamily("evenray_image_seconds", "Cost of one image by stage.", labels=["stage"])
        for stage, histogram in sorted(tally.costs.items()):
            histogram.write(cost, [stage])
        yield from (distance, cost)


def _of_certificates(settings: Settings) -> Iterator[Metric]:
    sections = settings.tls_sections()
    if not sections:
        return
    # Imported here: the supervisor stays smaller without.
    from dicom_node.tls import days_left

    family = GaugeMetricFamily(
        "evenray_certificate_days", "Until our certificate expires; 0: no peer takes it.", labels=["section"]
    )
    for path, section in sections.items():
        try:
            left = days_left(section, now=time.time())
        except SettingsInvalid:
            left = ""
        if left is not None:
            family.add_metric([path], 0.0 if isinstance(left, str) else max(0.0, left))
    yield family


def _of_queues(figures: Figures) -> Iterator[Metric]:
    for what, states in figures.queues().items():
        name = {"instance": "evenray_instances", "batch": "evenray_batches"}[what]
        family = GaugeMetricFamily(name, f"Those that are no end: {what} by state.", labels=["state"])
        for state, count in states.items():
            family.add_metric([state], count)
        yield family
    deliveries = GaugeMetricFamily(
        "evenray_deliveries", "Objects not yet delivered, by destination and state.", labels=["destination", "state"]
    )
    for destination, state, count in figures.undelivered():
        deliveries.add_metric([destination, state], count)
    yield deliveries
    oldest = GaugeMetricFamily("evenray_oldest_waiting_seconds", "Age of the oldest instance that needs the worker.")
    since = figures.oldest_waiting()
    oldest.add_metric([], max(0.0, time.time() - since) if since is not None else 0.0)
    yield oldest


def _of_trouble(figures: Figures) -> Iterator[Metric]:
    damaged = GaugeMetricFamily("evenray_damaged_files", "Spooled files whose bytes are not what they were.")
    damaged.add_metric([], figures.damaged())
    down = GaugeMetricFamily(
        "evenray_destination_down_seconds", "How long a destination has taken nothing.", labels=["destination"]
    )
    for name, since in figures.down_since().items():
        down.add_metric([name], max(0.0, time.time() - since))
    yield from (damaged, down)
