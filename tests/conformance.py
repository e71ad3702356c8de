"""The tables of the conformance statement, made from the code that they describe.

    python -m tests.conformance      writes them into deploy/CONFORMANCE.md

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the text around it is written by hand. What is made
of objects is in conformance_objects.
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from pathlib import Path

from pydicom.charset import python_encoding
from pydicom.uid import UID
from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]

from dicom_node import listen, receive, settings_reference, status, stream, syntaxes, tls
from dicom_node.audit_trail import messages
from dicom_node.destinations import commitment, commitment_scp, dimse
from dicom_node.destinations.outgoing import Item
from dicom_node.destinations.parcel import Parcel
from dicom_node.dicomweb import faults
from dicom_node.errors import Blame, PeerBusy
from dicom_node.handover import SharedLimit
from dicom_node.headcount import Frequency, Headcount
from dicom_node.keeping import asked, deciding, telling
from dicom_node.results import concepts
from dicom_node.settings import Listen
from dicom_node.sources import finding, getting, moving, passing_on, statuses
from dicom_node.sources.query import FoundImage
from dicom_node.sources.statuses import Meaning
from dicom_node.status import CommitFailure, EventStatus, Next, StoreStatus
from engine import FIGURES
from tests import conformance_objects
from tests.conformance_objects import table

STATEMENT = Path(__file__).parents[1] / "deploy" / "CONFORMANCE.md"
TABLE = re.compile(r"<!-- table: ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)
STORAGE_SYNTAXES = "Storage"
"""What stands for the list of transfer syntaxes in which every storage class is accepted."""

RECEIVING: dict[StoreStatus, tuple[str, str]] = {
    StoreStatus.SUCCESS: ("Success", "the object, its name and its row would survive a power cut"),
    StoreStatus.PROCESSING_FAILURE: ("Failure", "an unexpected fault, of the disk for example; nothing was kept"),
    StoreStatus.OUT_OF_RESOURCES: (
        "Failure",
        "the disk is full or near the limits of `storage`, or the ledger can't be written now; nothing was kept",
    ),
    StoreStatus.CANNOT_UNDERSTAND: ("Failure", "the request has no data set, or no usable SOP Class or Instance UID"),
}
"""All that the listener sends; see `sent`."""
SUB_OPERATIONS: dict[StoreStatus, str] = {
    StoreStatus.SUCCESS: "the node's listener has the object and has said so",
    StoreStatus.PROCESSING_FAILURE: "an object that came before the request was under way",
    StoreStatus.NOT_AUTHORIZED: "an object that was not asked for; it is not kept",
    StoreStatus.OUT_OF_RESOURCES: "the node can't take it now",
    StoreStatus.CANNOT_UNDERSTAND: "the node does not take it",
}
REQUESTS: dict[EventStatus, str] = {
    EventStatus.SUCCESS: "the request is recorded and will be answered by a report",
    EventStatus.PROCESSING_FAILURE: "the request could not be recorded; ask again",
    EventStatus.NO_SUCH_INSTANCE: "the request is about another instance than the well-known one",
    EventStatus.INVALID_ARGUMENT: (
        "the data set can't be read; it has no Transaction UID or no reference; a reference has no valid SOP Class or"
        " Instance UID; one instance is named under two classes"
    ),
    EventStatus.NO_SUCH_ACTION: "another Action Type ID than 1",
    EventStatus.NOT_AUTHORIZED: "`listen.commitment` is off (the context is there for reports to the node)",
    EventStatus.RESOURCE_LIMITATION: (
        f"more than {commitment_scp.MOST_REFERENCES} references; a data set over {commitment_scp.MOST_BYTES >> 20} MiB;"
        f" more than {asked.WAITING_AT_MOST} references of this AE title wait for an answer; no room on the disk"
    ),
}
REPORTS: dict[EventStatus, str] = {
    EventStatus.SUCCESS: "the report was read and is recorded; also one about a transaction that is not known",
    EventStatus.PROCESSING_FAILURE: "the report could not be recorded; send it again",
    EventStatus.NO_SUCH_EVENT_TYPE: "another Event Type ID than 1 or 2",
    EventStatus.INVALID_ARGUMENT: "no Transaction UID; no instance, one without UID, or one that is named twice",
}
REASONS: dict[CommitFailure, str] = {
    CommitFailure.PROCESSING_FAILURE: (
        "the file is damaged or gone; two objects claim the UID and nobody has decided between them; or images that"
        f" came before the request are still unread after {deciding.UNREAD_S:g} s"
    ),
    CommitFailure.NO_SUCH_OBJECT_INSTANCE: "the instance is not in the spool: it never came, or it has left",
    CommitFailure.CLASS_INSTANCE_CONFLICT: "the instance is in the spool under another SOP class",
    CommitFailure.SOP_CLASS_NOT_SUPPORTED: "the instance is not in the spool, and its class is none that is stored",
    CommitFailure.DUPLICATE_TRANSACTION: "the Transaction UID was used for another request or by another AE title",
}
AFTER = {
    Next.DONE: "delivered (with `commitment: true`: asked for)",
    Next.RETRY: "tried again with growing waits, then parked",
    Next.PARK: "parked at once, for a person",
}
ANSWERED = {
    Meaning.PENDING: "goes on",
    Meaning.DONE: "done",
    Meaning.PARTLY: "what is missing is asked for again, image by image, twice at most",
    Meaning.CANCELLED: "asked again, twice at most",
    Meaning.LATER: "asked again, twice at most",
    Meaning.REFUSED: "shown as the reason",
    Meaning.NOT_OFFERED: "as a refusal; C-GET with `method: auto`: C-MOVE in its place",
}
CONFIGURED = (
    *(f"listen.{name}" for name in ("ae_title", "host", "port", "check_called_ae", "allowed_calling", "known_only")),
    *(f"listen.{name}" for name in ("max_associations", "max_associations_per_host", "max_associations_per_minute")),
    *(f"listen.{name}" for name in ("max_pdu", "acse_timeout_s", "dimse_timeout_s", "network_timeout_s")),
    *(f"listen.{name}" for name in ("extra_sop_classes", "commitment", "commitment_elsewhere")),
    *(f"destinations.NAME (dimse).{name}" for name in ("calling_ae", "connect_timeout_s", "dimse_timeout_s")),
    *(f"destinations.NAME (dimse).commitment{name}" for name in ("", "_timeout_s", "_wait_s")),
    *(f"destinations.NAME (dicomweb).{name}" for name in ("timeout_s", "at_once_mib")),
    *(f"sources.NAME (dimse).{name}" for name in ("method", "move_to", "connect_timeout_s", "dimse_timeout_s")),
    *(f"deliver.retry.{name}" for name in ("attempts", "first_s", "factor", "longest_s")),
    *("deliver.patience_days", "storage.reserve_mib", "storage.watermark_percent", "site.timezone"),
)
ORIGIN = messages.Origin("", "", "", "")
NOBODY, NOTHING = messages.Party(""), messages.Subject("")


def tables() -> dict[str, str]:
    """Every generated table by its name, in Markdown."""
    return {
        "identification": table(("Attribute", "Value"), _identification()),
        "storage syntaxes": table(("Transfer syntax", "UID"), ((UID(u).name, f"`{u}`") for u in syntaxes.STORABLE)),
        "accepted contexts": table(("Abstract syntax", "UID", "Transfer syntaxes", "SCP", "SCU"), _accepted()),
        "proposed contexts": table(("When", "Abstract syntax", "Transfer syntaxes", "Our role"), _proposed()),
        "receiving": table(("Service status", "Code", "When"), _receiving()),
        "sending": table(("Code", "Meaning", "Behaviour"), _sending()),
        "request statuses": table(("Code", "When"), _plain(REQUESTS)),
        "request answers": table(("Code", "Behaviour"), _request_answers()),
        "report statuses": table(("Code", "When"), _plain(REPORTS)),
        "report answers": table(("Code", "Behaviour"), _report_answers()),
        "reasons": table(("Code", "Failure Reason", "When"), _reasons()),
        "finding": table(("Code", "Meaning", "Behaviour"), _asking(statuses.FINDING)),
        "moving": table(("Code", "Meaning", "Behaviour"), _asking(statuses.MOVING)),
        "getting": table(("Code", "Meaning", "Behaviour"), _asking(statuses.GETTING)),
        "sub operations": table(("Code", "When"), _plain(SUB_OPERATIONS)),
        "http statuses": table(("Status", "Meaning", "Behaviour"), _http()),
        "configuration": table(("Setting", "Default", "Meaning"), _configuration()),
        "character sets": table(("Defined term", "Read and written as"), _character_sets()),
        "cipher suites": table(("Protocol", "Suites"), _suites()),
        "audit messages": table(("Event", "Event ID", "Action", "Types", "When"), _audit()),
        **conformance_objects.tables(),
        "private concepts": concepts.markdown(FIGURES),
    }


def filled(text: str) -> str:
    """The statement with every table replaced by what the code says now."""
    made = tables()
    return TABLE.sub(lambda found: f"<!-- table: {found[1]} -->\n{made[found[1]].strip()}\n<!-- end -->", text)


def named(statuses: type[IntEnum], *code: object) -> set[IntEnum]:
    """The members of an enumeration that pieces of code (modules, classes, functions) name."""
    source = "".join(map(inspect.getsource, code))  # type: ignore[arg-type]
    return {statuses[name] for name in re.findall(rf"\b{statuses.__name__}\.([A-Z_]+)", source)}


def sent() -> dict[str, tuple[set[IntEnum], set[IntEnum]]]:
    """By table: the statuses that are listed, and those that the code names which sends them."""
    # What the handler of a report raises, the library answers with a processing failure. Source: PS3.7 C.5.22.
    failure: set[IntEnum] = {EventStatus.PROCESSING_FAILURE}
    reading = (commitment.read_report, commitment.report_handler, commitment._instance)
    requests = (asked, commitment_scp.read_request, commitment_scp._references)
    return {
        "receiving": (set(RECEIVING), named(StoreStatus, receive, stream)),
        "request statuses": (set(REQUESTS), named(EventStatus, *requests)),
        "report statuses": (set(REPORTS), named(EventStatus, *reading) | failure),
        "reasons": (set(REASONS), named(CommitFailure, deciding, asked)),
        "sub operations": (set(SUB_OPERATIONS), named(StoreStatus, getting._Desk, passing_on)),
    }


def entity() -> SharedLimit:
    """The receiving application entity as a receiver makes it, with storage commitment."""
    with tempfile.TemporaryDirectory() as folder:
        headcount = Headcount(Path(folder) / "count", slot=0, slots=1, most=1)
        frequency = Frequency(Path(folder) / "minute", slot=0, slots=1)
        try:
            return listen._entity(Listen(), headcount, frequency, commitment=True)
        finally:
            headcount.close()
            frequency.close()


def _identification() -> Iterator[tuple[str, str]]:
    ae = entity()
    yield "Implementation Class UID", f"`{ae.implementation_class_uid}`"
    yield "Implementation Version Name", f"`{ae.implementation_version_name}`"
    yield "Maximum PDU length, receiving", f"{ae.maximum_pdu_size} bytes (`listen.max_pdu`)"
    yield "Simultaneous associations, receiving", f"{ae.limit} (`listen.max_associations`)"
    yield "Simultaneous associations, sending", "one a destination; commitment reports to up to four peers at once"
    yield "Asynchronous operations window", "not negotiated: one operation at a time"


def _accepted() -> Iterator[tuple[str, ...]]:
    for context in entity().supported_contexts:
        uid = UID(str(context.abstract_syntax))
        # Without role selection we are the SCP of what others propose. Source: PS3.7 D.3.3.4.
        scp, scu = context.scp_role is None or context.scp_role, bool(context.scu_role)
        yield uid.name, f"`{uid}`", _names(context), _yes(bool(scp)), _yes(scu)


def _proposed() -> Iterator[tuple[str, ...]]:
    known = "1.2.840.10008.5.1.4.1.1.1"
    found = FoundImage(study_instance_uid="1", series_instance_uid="1", sop_instance_uid="1", sop_class_uid=known)
    each = "each class that is to be sent"
    own, *others = dimse._contexts([Item(Parcel(known, "1", Path()), syntaxes.JPEG_LS)])
    assert _names(own) == UID(syntaxes.JPEG_LS).name
    yield "is it there?", Verification.name, _names(build_context(Verification)), "SCU"
    yield "sending", each, "the transfer syntax of the file; one context for each in use", "SCU"
    for context in others:
        yield "sending", each, f"{_names(context)}, in one context", "SCU"
    model = StorageCommitmentPushModel.name
    yield "asking for commitment", model, _list(commitment.SYNTAXES), "SCU"
    yield "reporting commitment", model, _list(commitment.SYNTAXES), "SCP, by role selection"
    yield "searching", UID(finding.MODEL).name, _list(finding.SYNTAXES), "SCU"
    yield "C-MOVE", UID(moving.MODEL).name, _list(finding.SYNTAXES), "SCU"
    contexts = getting.contexts_for([found])
    for context in contexts:
        if context.abstract_syntax != known:
            yield "C-GET", UID(str(context.abstract_syntax)).name, _names(context), "SCU"
    yield "handing over what was fetched", "each class", "that in which it came, a context for each", "SCU"
    native, *single = (_names(context) for context in contexts if context.abstract_syntax == known)
    for names in (f"{native}, in one context", f"a context for each of: {', '.join(single)}"):
        yield "C-GET", "each class that is to be fetched", names, "SCP, by role selection"


def _receiving() -> Iterator[tuple[str, ...]]:
    for code, (kind, when) in RECEIVING.items():
        yield kind, _code(code), when


def _sending() -> Iterator[tuple[str, ...]]:
    for low, high, step, words in status.SENDING:
        yield _range(low, high), words, AFTER[step]
    yield "anything else", "unknown status", AFTER[Next.PARK]
    yield "no answer", "time-out or abort", AFTER[Next.RETRY]


def _plain(listed: Mapping[StoreStatus, str] | Mapping[EventStatus, str]) -> Iterator[tuple[str, ...]]:
    for code, when in listed.items():
        yield _code(code), when


def _request_answers() -> Iterator[tuple[str, ...]]:
    yield _code(EventStatus.SUCCESS), "the report is waited for"
    for code, words in commitment.PASSING.items():
        yield _code(code), f"{words}: asked again with growing waits, then parked"
    yield "anything else", "parked, with the advice to switch `commitment` off where it is not offered"
    yield "no answer", "asked again with growing waits, then parked"


def _report_answers() -> Iterator[tuple[str, ...]]:
    for code in telling.TAKEN:
        yield _code(code), "the peer has the answer; it is not sent again"
    for code, words in commitment.PASSING.items():
        yield _code(code), f"{words}: sent again with growing waits, then parked"
    yield "anything else", "parked, for a person"
    yield "no answer", "sent again until `deliver.patience_days` after the request, then parked"


def _reasons() -> Iterator[tuple[str, ...]]:
    for reason, when in REASONS.items():
        yield _code(reason), reason.name.replace("_", " ").lower(), when


def _asking(rows: Iterable[statuses.Row]) -> Iterator[tuple[str, ...]]:
    for low, high, meaning, words in sorted(rows, key=lambda row: row[:2]):
        yield _range(low, high), words, ANSWERED[meaning]
    yield "anything else", "no status of the standard", ANSWERED[Meaning.REFUSED]


def _http() -> Iterator[tuple[str, ...]]:
    about = {
        Blame.OBJECT: "the other objects go on",
        Blame.PEER: "nothing else is sent meanwhile, and no object counts it as a failure of its own",
        Blame.EITHER: "whether others are taken decides whose failure it was",
    }
    yield "200 to 299", "the answer's list decides for each instance", "as for C-STORE; a warning counts as stored"
    for n, (low, high, kind, blame, words) in enumerate(faults.STATUSES):
        step = "tried again" if kind is PeerBusy or blame is Blame.PEER else "parked"
        rest = "others of " if any(low <= earlier[0] <= high for earlier in faults.STATUSES[:n]) else ""
        code = str(low) if low == high else f"{rest}{low} to {high}"
        yield code, words.partition(":")[0], f"{step}; {about[blame]}"


def _configuration() -> Iterator[tuple[str, ...]]:
    known = {entry.path: entry for entry in settings_reference.entries()}
    for path in CONFIGURED:
        yield f"`{path}`", f"`{known[path].default}`" if known[path].default else "needed", known[path].meaning


def _character_sets() -> Iterator[tuple[str, ...]]:
    for term, codec in python_encoding.items():
        yield f"`{term}`" if term else "(empty)", codec


def _suites() -> Iterator[tuple[str, ...]]:
    yield "TLS 1.2", ", ".join(f"`{suite}`" for suite in tls.SUITES.split(":"))
    yield "TLS 1.3", "all that the operating system's OpenSSL allows"


def _audit() -> Iterator[tuple[str, ...]]:
    at, where = 0.0, (ORIGIN, NOBODY, NOTHING)
    query = {"sop_class_uid": "", "transfer_syntax_uid": "", "query": b""}
    told = [
        (messages.node_started(ORIGIN, at=at, launcher=""), "the node starts"),
        (messages.node_stopped(ORIGIN, at=at, launcher=""), "it stops, or was found killed at its next start"),
        (messages.received(*where, at=at, held_before=False), "instances of a study were received"),
        (messages.received(*where, at=at, held_before=True), "the same once more; the same bytes were here"),
        (messages.sent(*where, at=at), "instances were sent, will be tried again, or are parked; by the outcome"),
        (messages.exported(*where, at=at), "the same, for a destination that is a folder"),
        (messages.deleted(ORIGIN, NOTHING, at=at, whole_study=False, why=""), "instances have left the spool"),
        (messages.deleted(ORIGIN, NOTHING, at=at, whole_study=True, why=""), "the last ones of a study have"),
        (messages.queried(ORIGIN, NOBODY, at=at, **query), "an archive was asked which studies match"),  # type: ignore[arg-type]
    ]
    alerts = {
        messages.NODE_AUTHENTICATION: "a caller was refused; many of one address together",
        messages.NETWORK_CONFIGURATION: "addresses, destinations or sources differ from the last start's",
        messages.SECURITY_CONFIGURATION: "TLS, peers or rules of admission do",
        messages.SOFTWARE_CONFIGURATION: "the program's version or any other setting does",
        messages.RECORDING_STOPPED: "messages left the spool undelivered",
        messages.FILE_DAMAGED: "files of the spool are damaged or gone",
        messages.LEDGER_REPLACED: "the ledger is an older or another one",
    }
    for kind, when in alerts.items():
        told.append((messages.alert(ORIGIN, kind, "", at=at, result=messages.Result.SUCCESS), when))
    for message, when in told:
        types = ", ".join(f"{code.value} {code.meaning}" for code in message.types)
        yield message.event.meaning, message.event.value, message.action, types, when


def _names(context: PresentationContext) -> str:
    found = [str(syntax) for syntax in context.transfer_syntax or ()]
    return STORAGE_SYNTAXES if found == list(syntaxes.STORABLE) else _list(found)


def _list(found: Iterable[str]) -> str:
    return ", ".join(UID(str(syntax)).name for syntax in found)


def _code(code: int) -> str:
    return f"0x{code:04X}"


def _range(low: int, high: int) -> str:
    return _code(low) + (f" to {_code(high)}" if high != low else "")


_yes: Callable[[bool], str] = lambda there: "yes" if there else "no"  # noqa: E731


if __name__ == "__main__":
    STATEMENT.write_text(filled(STATEMENT.read_text(encoding="utf-8")), encoding="utf-8")
