"""The report of one complete batch: one SR that names every instance of it, and a selection of those that need a look.

Decides nothing about an image.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from dicom_node.errors import SpoolDamaged
from dicom_node.header import content_digest
from dicom_node.ledger import BatchRow, InstanceRow, Ledger, NewObject
from dicom_node.records import Made, Outcome, Reported, ResultKind
from dicom_node.results.key_object_selection import Flagged, make_key_objects
from dicom_node.results.structured_report import make_report
from dicom_node.routing import takes
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance
from dicom_node.steps import reached

log = logging.getLogger(__name__)

FLAGGED = frozenset({Outcome.REFUSED, Outcome.UNREADABLE})
"""Outcomes of originals that need a look. What is passed by is nobody's task, so nothing is wrong with it."""


class Aside(NamedTuple):
    """A parked original and the route that took it."""

    flagged: Flagged
    route: str


class Selection(NamedTuple):
    """A selection of originals that need a look, and the destinations that it goes to."""

    made: Made
    to: list[str]


def report(
    batch: BatchRow,
    settings: Settings,
    spool: Spool,
    ledger: Ledger,
    *,
    clock: Callable[[], float],
) -> None:
    """Make, spool and record the report of a claimed batch, and the selection of originals that need a look where a
    route asks for one. Parked instances are reported by the batch of their retry.
    """
    there = ledger.instances.of_batch(batch.id)
    rows = [row for row in there if row.state is Instance.DECIDED]
    aside = [one for row in there if row.state is Instance.PARKED for one in _aside(row, settings)]
    reported, selection = select([_reported(row, spool, ledger) for row in rows], settings, aside)
    made = make_report(reported, settings.site, earlier=ledger.batches.earlier_report(batch))
    reached("report.made")
    new = _spooled(made, _destinations(rows, settings), spool, ledger)
    also = [_spooled(selection.made, selection.to, spool, ledger)] if selection else []
    reached("report.spooled")
    ledger.batches.report(batch, [row.id for row in rows], new, now=clock(), also=also)
    log.info("batch %d: report %s over %d instances", batch.id, made.sop_instance_uid, len(rows))


def select(
    reported: Sequence[Reported], settings: Settings, aside: Sequence[Aside] = ()
) -> tuple[list[Reported], Selection | None]:
    """The selection of a study's refused, unreadable and parked originals whose routes ask for one, None where there
    are none; and the instances, each with the selection among its results where that names it.
    """
    asking = {route.name: route for route in settings.routes if ResultKind.KEY_OBJECT_SELECTION in route.objects}
    mine = [one for one in reported if one.decision.outcome in FLAGGED and one.decision.route in asking]
    parked = [one for one in aside if one.route in asking]
    if not mine and not parked:
        return list(reported), None
    found = [Flagged(header=one.header, state=one.decision.outcome.value, reason=one.decision.reason) for one in mine]
    first = min(reported, key=lambda one: (one.header.series_instance_uid, one.header.sop_instance_uid))
    made = make_key_objects([*found, *(one.flagged for one in parked)], first.source, settings.site)
    routes = [*(one.decision.route for one in mine), *(one.route for one in parked)]
    to = dict.fromkeys(name for route in routes for name in asking[route].destinations)
    named = {one.header.sop_instance_uid for one in mine}
    out = [_with_selection(one, made) if one.header.sop_instance_uid in named else one for one in reported]
    return out, Selection(made, list(to))


def _with_selection(one: Reported, made: Made) -> Reported:
    named = (made.sop_class_uid, made.sop_instance_uid)
    digests = {**one.digests, made.sop_instance_uid: content_digest(made.content)}
    return dataclasses.replace(one, results=(*one.results, named), digests=digests)


def _aside(row: InstanceRow, settings: Settings) -> Iterator[Aside]:
    """A parked instance, which has no decision that names its route."""
    header = row.header
    if header is None:
        return
    route = next((route for route in settings.routes if takes(route.match, header, row.calling_ae)), None)
    if route is not None:
        yield Aside(Flagged(header=header, state="parked", reason=row.note), route.name)


def _spooled(made: Made, to: Sequence[str], spool: Spool, ledger: Ledger) -> NewObject:
    path = spool.write_result(made.sop_instance_uid, made.content, named=ledger.names)
    return NewObject(made.kind, made.sop_class_uid, made.sop_instance_uid, path, to, content_digest(made.content))


def _reported(row: InstanceRow, spool: Spool, ledger: Ledger) -> Reported:
    if row.header is None or row.decision is None:
        raise SpoolDamaged(f"instance {row.id} is decided but its decision is not in the ledger")
    made = [found for found in ledger.objects_of(row.id) if found.kind is not ResultKind.ORIGINAL]
    return Reported(
        source=spool.at(row.path),
        header=row.header,
        decision=row.decision,
        results=tuple((found.sop_class_uid, found.sop_instance_uid) for found in made),
        digests={found.sop_instance_uid: found.digest for found in made if found.digest},
    )


def _destinations(rows: Sequence[InstanceRow], settings: Settings) -> list[str]:
    """Where the report goes: wherever a route of its instances sends reports, or what is passed by goes."""
    routes = {route.name: route for route in settings.routes}
    names: dict[str, None] = {}
    for row in rows:
        route = routes.get(row.decision.route) if row.decision else None
        if route is None:
            names.update(dict.fromkeys(settings.passed_by.destinations))
        elif "structured_report" in route.objects:
            names.update(dict.fromkeys(route.destinations))
    return list(names)
