"""Audit messages as PS3.15 A.5 wants them: who did what to which study of which patient, and their XML.

Knows no ledger, file or network. A message names patients: that is its purpose. None of it may reach a log.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from ipaddress import ip_address
from xml.etree.ElementTree import Element, SubElement, tostring


class Result(IntEnum):
    """Event Outcome Indicator. Source: PS3.15 A.5.2, table A.5.2-1."""

    SUCCESS = 0
    MINOR = 4
    """It failed, and is tried again."""
    SERIOUS = 8
    """It failed for good, or was refused."""
    MAJOR = 12
    """What failed is not available any more."""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value; `meaning` is the text that the scheme gives it."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


# Source: PS3.16 annex D; CID 400 (events), 401 (types), 402 (roles), 403 (alerts), 405 (media).
APPLICATION_ACTIVITY = _dcm("110100", "Application Activity")
INSTANCES_ACCESSED = _dcm("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm("110104", "DICOM Instances Transferred")
STUDY_DELETED = _dcm("110105", "DICOM Study Deleted")
EXPORT = _dcm("110106", "Export")
QUERY = _dcm("110112", "Query")
SECURITY_ALERT = _dcm("110113", "Security Alert")
APPLICATION_START = _dcm("110120", "Application Start")
APPLICATION_STOP = _dcm("110121", "Application Stop")
NODE_AUTHENTICATION = _dcm("110126", "Node Authentication")
NETWORK_CONFIGURATION = _dcm("110128", "Network Configuration")
SECURITY_CONFIGURATION = _dcm("110129", "Security Configuration")
SOFTWARE_CONFIGURATION = _dcm("110131", "Software Configuration")
RECORDING_STOPPED = _dcm("110133", "Audit Recording Stopped")
APPLICATION = _dcm("110150", "Application")
LAUNCHER = _dcm("110151", "Application Launcher")
DESTINATION = _dcm("110152", "Destination Role ID")
SOURCE = _dcm("110153", "Source Role ID")
DESTINATION_MEDIA = _dcm("110154", "Destination Media")
MEDIA_URI = _dcm("110037", "URI")
STUDY_UID = _dcm("110180", "Study Instance UID")
SOP_CLASS_UID = _dcm("110181", "SOP Class UID")
NODE_ID = _dcm("110182", "Node ID")
# Source: PS3.15 A.5.1.2.4.
PATIENT_NUMBER = Code("2", "RFC-3881", "Patient Number")
URI = Code("12", "RFC-3881", "URI")
# Ours: CID 403 can be extended and has no code for these.
FILE_DAMAGED = Code("file-damaged", "99EVENRAY", "Stored file damaged")
LEDGER_REPLACED = Code("ledger-replaced", "99EVENRAY", "Ledger replaced by an older or other one")

PERSON, SYSTEM = "1", "2"
"""Participant Object Type Code."""
PATIENT_ROLE, REPORT_ROLE, SECURITY_RESOURCE = "1", "3", "13"
"""Participant Object Type Code Role. Source: PS3.15 table A.5.1-2."""
APPLICATION_SERVER = "4"
"""Audit Source Type Code. Source: PS3.15 table A.5.1-1."""
UNKNOWN = "unknown"
"""Stands for an identifier that the table demands and the object does not have, or that has left with its file."""
LONGEST_TEXT, LONGEST_WHY = 256, 512
"""Characters of a name, and of a sentence: what an object claims must not make a message longer than a repository
takes, even where each has to be escaped. A person's name has 194 at most (PS3.5 6.2), a UID 64."""
LONGEST_QUERY = 12 << 10
"""Bytes of one query; a longer one is cut, and the detail says so."""

# Source: XML 1.0, 2.2: what may stand in a document at all.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who reports: the node."""

    station: str
    enterprise_site: str
    host: str
    ae_title: str


@dataclass(frozen=True, slots=True)
class Party:
    """The other side of a transfer: a system, or where files are written to (a URI).

    `address`: an IP address or a name, "" where it is not known.
    """

    name: str
    address: str = ""
    ae_title: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A study and its patient."""

    study_instance_uid: str
    patient_id: str = ""
    patient_name: str = ""
    accession: str = ""
    sop_classes: Mapping[str, int] = field(default_factory=dict)
    """Number of instances by SOP Class UID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Actor:
    user: str
    requestor: bool
    roles: tuple[Code, ...] = ()
    ae_title: str = ""
    name: str = ""
    address: str = ""
    media: Code | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    ref: str
    kind: Code
    type: str
    role: str
    name: str = ""
    query: bytes | None = None
    details: tuple[tuple[str, bytes], ...] = ()
    accession: str = ""
    sop_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One event. `at`: seconds since the epoch."""

    event: Code
    action: str
    at: float
    actors: tuple[_Actor, ...]
    result: Result = Result.SUCCESS
    why: str = ""
    types: tuple[Code, ...] = ()
    objects: tuple[_Object, ...] = ()

    def xml(self, origin: Origin) -> bytes:
        """The document, UTF-8. Source: PS3.15 A.5.1."""
        root = Element("AuditMessage")
        root.append(self._event())
        for actor in self.actors:
            root.append(_actor_element(actor))
        source = SubElement(root, "AuditSourceIdentification")
        if origin.enterprise_site:
            source.set("AuditEnterpriseSiteID", _text(origin.enterprise_site))
        source.set("AuditSourceID", _text(origin.station))
        SubElement(source, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
        for thing in self.objects:
            root.append(_object_element(thing))
        made: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
        return made

    def _event(self) -> Element:
        found = Element("EventIdentification", EventActionCode=self.action)
        found.set("EventDateTime", datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"))
        found.set("EventOutcomeIndicator", str(self.result.value))
        found.append(_code_element("EventID", self.event))
        for one in self.types:
            found.append(_code_element("EventTypeCode", one))
        if self.why:
            SubElement(found, "EventOutcomeDescription").text = _text(self.why, LONGEST_WHY)
        return found


def node_started(origin: Origin, *, at: float, launcher: str, why: str = "") -> Message:
    """Source: PS3.15 A.5.3.1."""
    return _activity(origin, APPLICATION_START, at, launcher, Result.SUCCESS, why)


def node_stopped(origin: Origin, *, at: float, launcher: str, killed: bool = False, why: str = "") -> Message:
    """The node ended as asked, or (`killed`) without a word; `at` is then when it was heard last."""
    return _activity(origin, APPLICATION_STOP, at, launcher, Result.SERIOUS if killed else Result.SUCCESS, why)


def _activity(origin: Origin, kind: Code, at: float, launcher: str, result: Result, why: str) -> Message:
    actors = (_us(origin, APPLICATION), _Actor(user=launcher, requestor=True, roles=(LAUNCHER,)))
    return Message(event=APPLICATION_ACTIVITY, action="E", at=at, actors=actors, result=result, why=why, types=(kind,))


def received(origin: Origin, sender: Party, subject: Subject, *, at: float, held_before: bool) -> Message:
    """Instances of one study that came over one association. `held_before`: the same bytes were here already.

    Source: PS3.15 A.5.3.7.
    """
    actors = (_them(sender, SOURCE, requestor=True), _us(origin, DESTINATION))
    return Message(
        event=INSTANCES_TRANSFERRED,
        action="R" if held_before else "C",
        at=at,
        actors=actors,
        objects=_study(subject),
    )


def sent(
    origin: Origin, to: Party, subject: Subject, *, at: float, result: Result = Result.SUCCESS, why: str = ""
) -> Message:
    """Instances of one study that went, or failed to go, to one system. Source: PS3.15 A.5.3.7."""
    actors = (_us(origin, SOURCE, requestor=True), _them(to, DESTINATION))
    # Whether the receiver held them before is not known to who sends: Read.
    return Message(
        event=INSTANCES_TRANSFERRED, action="R", at=at, actors=actors, result=result, why=why, objects=_study(subject)
    )


def exported(
    origin: Origin, to: Party, subject: Subject, *, at: float, result: Result = Result.SUCCESS, why: str = ""
) -> Message:
    """Instances of one study that were written where the node has no hold of them. Source: PS3.15 A.5.3.5."""
    media = _Actor(user=to.name, requestor=False, roles=(DESTINATION_MEDIA,), address=origin.host, media=MEDIA_URI)
    actors = (_us(origin, SOURCE, requestor=True), media)
    return Message(event=EXPORT, action="R", at=at, actors=actors, result=result, why=why, objects=_study(subject))


def deleted(origin: Origin, subject: Subject, *, at: float, whole_study: bool, why: str) -> Message:
    """Instances that left the spool. Source: PS3.15 A.5.3.6, A.5.3.8 (`whole_study`: nothing of it is left)."""
    event = STUDY_DELETED if whole_study else INSTANCES_ACCESSED
    actors = (_us(origin, APPLICATION, requestor=True),)
    return Message(event=event, action="D", at=at, actors=actors, why=why, objects=_study(subject))


def queried(
    origin: Origin,
    archive: Party,
    *,
    at: float,
    sop_class_uid: str,
    transfer_syntax_uid: str,
    query: bytes,
    result: Result = Result.SUCCESS,
    why: str = "",
) -> Message:
    """A question that the node asked of an archive: `query` is the identifier as it was sent, or the URL.

    Source: PS3.15 A.5.3.10.
    """
    details = [("TransferSyntax", _text(transfer_syntax_uid).encode())] if transfer_syntax_uid else []
    if len(query) > LONGEST_QUERY:
        details.append(("Shortened", b"%d bytes of %d" % (LONGEST_QUERY, len(query))))
    asked = _Object(
        ref=sop_class_uid,
        kind=SOP_CLASS_UID,
        type=SYSTEM,
        role=REPORT_ROLE,
        query=query[:LONGEST_QUERY],
        details=tuple(details),
    )
    actors = (_us(origin, SOURCE, requestor=True), _them(archive, DESTINATION))
    return Message(event=QUERY, action="E", at=at, actors=actors, result=result, why=why, objects=(asked,))


def alert(
    origin: Origin,
    kind: Code,
    sentence: str,
    *,
    at: float,
    result: Result,
    by: Party | None = None,
    about: Sequence[str] = (),
) -> Message:
    """Something that who guards the site should know. `about`: URIs of what it concerns; none: the node itself.

    Source: PS3.15 A.5.3.11.
    """
    actors = (_us(origin, APPLICATION, requestor=True), *([_them(by)] if by else []))
    detail = (("Alert Description", _text(sentence, LONGEST_WHY).encode()),)
    if about:
        objects = [
            _Object(ref=uri, kind=URI, type=SYSTEM, role=SECURITY_RESOURCE, name=uri, details=detail) for uri in about
        ]
    else:
        name = f"{origin.ae_title}@{origin.host}"
        objects = [
            _Object(ref=name, kind=NODE_ID, type=SYSTEM, role=SECURITY_RESOURCE, name=origin.station, details=detail)
        ]
    return Message(
        event=SECURITY_ALERT,
        action="E",
        at=at,
        actors=actors,
        result=result,
        why=sentence,
        types=(kind,),
        objects=tuple(objects),
    )


def _us(origin: Origin, role: Code, *, requestor: bool = False) -> _Actor:
    # The name by which the syslog header and the system's logs know us. Source: PS3.15 A.5.2.1.
    user = f"evenray@{origin.host}"
    return _Actor(
        user=user, requestor=requestor, roles=(role,), ae_title=origin.ae_title, name="evenray", address=origin.host
    )


def _them(party: Party, *roles: Code, requestor: bool = False) -> _Actor:
    return _Actor(user=party.name, requestor=requestor, roles=roles, ae_title=party.ae_title, address=party.address)


def _study(subject: Subject) -> tuple[_Object, ...]:
    study = _Object(
        ref=subject.study_instance_uid,
        kind=STUDY_UID,
        type=SYSTEM,
        role=REPORT_ROLE,
        name="Study",
        accession=subject.accession,
        sop_classes=subject.sop_classes,
    )
    patient = _Object(
        ref=subject.patient_id, kind=PATIENT_NUMBER, type=PERSON, role=PATIENT_ROLE, name=subject.patient_name
    )
    return study, patient


def _actor_element(actor: _Actor) -> Element:
    found = Element("ActiveParticipant", UserID=_text(actor.user) or UNKNOWN)
    if actor.ae_title:
        # Source: PS3.15 A.5.2.2.
        found.set("AlternativeUserID", f"AETITLES={_text(actor.ae_title)}")
    if actor.name:
        found.set("UserName", _text(actor.name))
    found.set("UserIsRequestor", "true" if actor.requestor else "false")
    if actor.address:
        found.set("NetworkAccessPointID", _text(actor.address))
        found.set("NetworkAccessPointTypeCode", "2" if _is_ip(actor.address) else "1")
    for role in actor.roles:
        found.append(_code_element("RoleIDCode", role))
    if actor.media:
        SubElement(found, "MediaIdentifier").append(_code_element("MediaType", actor.media))
    return found


def _object_element(thing: _Object) -> Element:
    found = Element("ParticipantObjectIdentification", ParticipantObjectID=_text(thing.ref) or UNKNOWN)
    found.set("ParticipantObjectTypeCode", thing.type)
    found.set("ParticipantObjectTypeCodeRole", thing.role)
    found.append(_code_element("ParticipantObjectIDTypeCode", thing.kind))
    if thing.query is not None:
        SubElement(found, "ParticipantObjectQuery").text = b64encode(thing.query).decode()
    else:
        SubElement(found, "ParticipantObjectName").text = _text(thing.name) or UNKNOWN
    for kind, value in thing.details:
        SubElement(found, "ParticipantObjectDetail", type=kind, value=b64encode(value).decode())
    if thing.sop_classes:
        about = SubElement(found, "ParticipantObjectDescription")
        if thing.accession:
            SubElement(about, "Accession", Number=_text(thing.accession))
        for uid, count in sorted(thing.sop_classes.items()):
            SubElement(about, "SOPClass", UID=_text(uid), NumberOfInstances=str(count))
    return found


def _code_element(name: str, code: Code) -> Element:
    found = Element(name, {"csd-code": code.value, "codeSystemName": code.scheme})
    found.set("originalText", code.meaning)
    return found


def _text(value: str, longest: int = LONGEST_TEXT) -> str:
    return _NOT_XML.sub("", value)[:longest].strip()


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True
