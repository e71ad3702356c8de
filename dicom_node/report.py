"""The report of one complete batch: one SR that names every instance of it. Decides nothing about an image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from dicom_node.errors import SpoolDamaged
from dicom_node.header import content_digest
from dicom_node.ledger import BatchRow, InstanceRow, Ledger, NewObject
from dicom_node.records import Reported, ResultKind
from dicom_node.results.structured_report import make_report
from dicom_node.settings import Settings
from dicom_node.spool import Spool
from dicom_node.states import Instance
from dicom_node.steps import reached

log = logging.getLogger(__name__)


def report(
    batch: BatchRow,
    settings: Settings,
    spool: Spool,
    ledger: Ledger,
    *,
    clock: Callable[[], float],
) -> None:
    """Make, spool and record the report of a claimed batch. Parked instances are left to the batch of their retry."""
    rows = [row for row in ledger.instances.of_batch(batch.id) if row.state is Instance.DECIDED]
    made = make_report([_reported(row, spool, ledger) for row in rows], settings.site)
    reached("report.made")
    path = spool.write_result(made.sop_instance_uid, made.content, named=ledger.names)
    to = _destinations(rows, settings)
    new = NewObject(made.kind, made.sop_class_uid, made.sop_instance_uid, path, to, content_digest(made.content))
    reached("report.spooled")
    ledger.batches.report(batch, [row.id for row in rows], new, now=clock())
    log.info("batch %d: report %s over %d instances", batch.id, made.sop_instance_uid, len(rows))


def _reported(row: InstanceRow, spool: Spool, ledger: Ledger) -> Reported:
    if row.header is None or row.decision is None:
        raise SpoolDamaged(f"instance {row.id} is decided but its decision is not in the ledger")
    results = tuple(
        (found.sop_class_uid, found.sop_instance_uid)
        for found in ledger.objects_of(row.id)
        if found.kind is not ResultKind.ORIGINAL
    )
    return Reported(source=spool.at(row.path), header=row.header, decision=row.decision, results=results)


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
