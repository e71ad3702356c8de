"""Which objects the ledger has seen, by their UIDs alone. Knows nothing of where they came from."""

from __future__ import annotations

from collections.abc import Collection

from dicom_node.ledger.schema import HOLDS
from dicom_node.ledger.store import Store

AT_ONCE = 200
"""UIDs in one query."""


def present(store: Store, uids: Collection[str]) -> set[str]:
    """Those of the SOP Instance UIDs that arrived here or were made here, whatever became of them.

    A copy that was refused, or that is being received, is not among them.
    """
    ordered = sorted(uids)
    found: set[str] = set()
    for start in range(0, len(ordered), AT_ONCE):
        some = ordered[start : start + AT_ONCE]
        marks = ", ".join("?" * len(some))
        # Three looks at an index each: what was looked at, what was not yet or could not be, and what was made here.
        rows = store.read(
            f"SELECT sop_instance_uid FROM instance INDEXED BY instance_holding"
            f" WHERE sop_instance_uid IN ({marks}) AND {HOLDS}"
            f" UNION ALL SELECT sop_instance_uid FROM instance INDEXED BY instance_by_state"
            f" WHERE state IN ('received', 'reading', 'parked') AND sop_instance_uid IN ({marks})"
            " UNION ALL SELECT sop_instance_uid FROM object"
            f" WHERE kind <> 'original' AND sop_instance_uid IN ({marks})",
            *some,
            *some,
            *some,
        )
        found.update(row["sop_instance_uid"] for row in rows)
    return found
