"""Every kind of audit message obeys the schema and its table, whatever the objects and peers are called."""

from __future__ import annotations

from base64 import b64decode

import pytest
from lxml import etree
from pydicom.sr._concepts_dict import concepts

from dicom_node.audit_trail import messages
from dicom_node.audit_trail.messages import Code, Message, Origin, Party, Result, Subject
from dicom_node.audit_trail.syslog import LONGEST, form
from tests.audit import Received, faults

ORIGIN = Origin("XRAY-1", "General", "node.example", "EVENRAY")
MODALITY = Party("MODALITY", "192.0.2.7", "MODALITY")
PACS = Party("PACS", "pacs.example", "PACS")
FOLDER = Party("file:///srv/results")
CR, SR = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.88.34"
SUBJECT = Subject("1.2.3", "P-17", "Nobody^Jane", "A-4", {CR: 3, SR: 1})
STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
AT = 1_700_000_000.25

EVERY: dict[str, Message] = {
    "start": messages.node_started(ORIGIN, at=AT, launcher="uid-0@node"),
    "stop": messages.node_stopped(ORIGIN, at=AT, launcher="uid-0@node", why="asked by SIGTERM"),
    "killed": messages.node_stopped(ORIGIN, at=AT, launcher="uid-0@node", killed=True, why="no word"),
    "received": messages.received(ORIGIN, MODALITY, SUBJECT, at=AT, held_before=False),
    "repeated": messages.received(ORIGIN, Party("M"), SUBJECT, at=AT, held_before=True),
    "sent": messages.sent(ORIGIN, PACS, SUBJECT, at=AT),
    "failed": messages.sent(ORIGIN, PACS, SUBJECT, at=AT, result=Result.MINOR, why="it is busy"),
    "exported": messages.exported(ORIGIN, FOLDER, SUBJECT, at=AT),
    "some left": messages.deleted(ORIGIN, SUBJECT, at=AT, whole_study=False, why="its days are over"),
    "all left": messages.deleted(ORIGIN, SUBJECT, at=AT, whole_study=True, why="its days are over"),
    "query": messages.queried(
        ORIGIN, PACS, at=AT, sop_class_uid=STUDY_ROOT, transfer_syntax_uid="1.2.840.10008.1.2", query=b"\x08\x00\x52"
    ),
    "alert": messages.alert(
        ORIGIN, messages.NODE_AUTHENTICATION, "a caller was refused", at=AT, result=Result.MINOR, by=MODALITY
    ),
    "damage": messages.alert(
        ORIGIN, messages.FILE_DAMAGED, "2 files", at=AT, result=Result.MINOR, about=["spool:a", "spool:b"]
    ),
}
NASTY = 'Ünknown^\x00\x1b]0;\x07 <a href="x">&amp;\' \ud800 \U0001f9b4 \ufffe\n'


def _told(message: Message, origin: Origin = ORIGIN) -> Received:
    return Received(form(message.xml(origin), at=message.at, host=origin.host, pid=7, warning=False))


@pytest.mark.parametrize("name", EVERY)
def test_every_kind_of_message_obeys_the_schema(name: str) -> None:
    assert faults(EVERY[name].xml(ORIGIN)) == []
    assert faults(EVERY[name].xml(Origin("S", "", "h", "A"))) == []


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (b'EventActionCode="C"', b'EventActionCode="X"'),
        (b'EventOutcomeIndicator="0"', b'EventOutcomeIndicator="1"'),
        (b"2023-11-14T22:13:20.250+00:00", b"14.11.2023"),
        (b'UserIsRequestor="true"', b""),
        (b'csd-code="110104"', b'code="110104"'),
        (b'NumberOfInstances="3"', b""),
        (b"<ParticipantObjectName>Study</ParticipantObjectName>", b""),
        (b"AuditSourceID=", b"SourceID="),
        (b"SOPClass UID", b"SOPClass Uid"),
        (b'UID="1.2.840.10008.5.1.4.1.1.1"', b'UID="CR"'),
    ],
)
def test_the_schema_finds_what_is_wrong(find: bytes, put: bytes) -> None:
    whole = EVERY["received"].xml(ORIGIN)
    assert find in whole
    assert faults(whole.replace(find, put, 1))


def test_the_schema_wants_the_order_of_the_standard() -> None:
    tree = etree.fromstring(EVERY["received"].xml(ORIGIN))
    tree.append(tree[0])
    assert faults(etree.tostring(tree))


def test_every_standard_code_has_the_meaning_that_the_standard_gives_it() -> None:
    known = {value: meaning for found in concepts["DCM"].values() for value, (meaning, _) in found.items()}
    ours = [code for code in vars(messages).values() if isinstance(code, Code) and code.scheme == "DCM"]
    assert len(ours) > 20
    assert [code for code in ours if known.get(code.value) != code.meaning] == []


@pytest.mark.parametrize(
    ("name", "event", "action", "roles", "requestor"),
    [
        ("start", "110100", "E", {"110150", "110151"}, "uid-0@node"),
        ("stop", "110100", "E", {"110150", "110151"}, "uid-0@node"),
        ("received", "110104", "C", {"110153", "110152"}, "MODALITY"),
        ("repeated", "110104", "R", {"110153", "110152"}, "M"),
        ("sent", "110104", "R", {"110153", "110152"}, "evenray@node.example"),
        ("exported", "110106", "R", {"110153", "110154"}, "evenray@node.example"),
        ("some left", "110103", "D", {"110150"}, "evenray@node.example"),
        ("all left", "110105", "D", {"110150"}, "evenray@node.example"),
        ("query", "110112", "E", {"110153", "110152"}, "evenray@node.example"),
        ("alert", "110113", "E", {"110150"}, "evenray@node.example"),
    ],
)
def test_event_action_roles_and_requestor_are_those_of_its_table(
    name: str, event: str, action: str, roles: set[str], requestor: str
) -> None:
    told = _told(EVERY[name])
    assert told.event == event
    assert told.get("EventIdentification/@EventActionCode") == [action]
    assert set(told.get("ActiveParticipant/RoleIDCode/@csd-code")) == roles
    assert told.get("ActiveParticipant[@UserIsRequestor='true']/@UserID") == [requestor]


@pytest.mark.parametrize("name", ["received", "repeated", "sent", "failed", "exported", "some left", "all left"])
def test_what_is_about_a_study_names_it_and_its_one_patient(name: str) -> None:
    told = _told(EVERY[name])
    assert (told.study, told.patient, told.instances) == ("1.2.3", "P-17", {CR: 3, SR: 1})
    assert told.get("//Accession/@Number") == ["A-4"]
    patient = "ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']"
    assert told.get(f"{patient}/@ParticipantObjectTypeCodeRole") == ["1"]
    assert told.get(f"{patient}/ParticipantObjectIDTypeCode/@csd-code") == ["2"]


def test_a_peer_is_named_with_its_title_and_address() -> None:
    told = _told(EVERY["received"])
    assert told.get("ActiveParticipant[RoleIDCode/@csd-code='110153']/@*") == [
        "MODALITY",
        "AETITLES=MODALITY",
        "true",
        "192.0.2.7",
        "2",
    ]
    assert _told(EVERY["sent"]).get("ActiveParticipant[RoleIDCode/@csd-code='110152']/@NetworkAccessPointTypeCode") == [
        "1"
    ]


def test_an_export_says_where_to_and_on_which_medium() -> None:
    told = _told(EVERY["exported"])
    media = "ActiveParticipant[RoleIDCode/@csd-code='110154']"
    assert told.get(f"{media}/@UserID") == ["file:///srv/results"]
    assert told.get(f"{media}/MediaIdentifier/MediaType/@csd-code") == ["110037"]
    assert told.get(f"{media}/@UserIsRequestor") == ["false"]


def test_a_query_is_told_as_it_was_asked() -> None:
    told = _told(EVERY["query"])
    assert b64decode(told.get("//ParticipantObjectQuery/text()")[0]) == b"\x08\x00\x52"
    assert told.get("//ParticipantObjectDetail/@type") == ["TransferSyntax"]
    assert b64decode(told.get("//ParticipantObjectDetail/@value")[0]) == b"1.2.840.10008.1.2"
    assert told.get("ParticipantObjectIdentification/@ParticipantObjectID") == [STUDY_ROOT]


def test_an_alert_says_what_happened_and_to_what() -> None:
    told = _told(EVERY["damage"])
    assert told.get("ParticipantObjectIdentification/@ParticipantObjectID") == ["spool:a", "spool:b"]
    assert {b64decode(one) for one in told.get("//ParticipantObjectDetail/@value")} == {b"2 files"}
    assert told.kinds == ["file-damaged"]


@pytest.mark.parametrize("nasty", [NASTY, "", " ", "x" * 100_000, "&" * 100_000])
def test_no_name_of_an_object_or_a_peer_makes_a_message_wrong_or_long(nasty: str) -> None:
    subject = Subject(nasty, nasty, nasty, nasty, {f"1.2.{n}": n for n in range(1, 200)})
    party = Party(nasty, nasty, nasty)
    origin = Origin(nasty, nasty, nasty, nasty)
    told = [
        messages.received(origin, party, subject, at=AT, held_before=False),
        messages.exported(origin, party, subject, at=AT, why=nasty),
        messages.alert(origin, messages.NODE_AUTHENTICATION, nasty, at=AT, result=Result.MINOR, by=party),
        messages.queried(
            origin, party, at=AT, sop_class_uid=nasty, transfer_syntax_uid=nasty, query=bytes(100_000), why=nasty
        ),
    ]
    for message in told:
        xml = message.xml(origin)
        assert faults(xml) == []
        assert len(form(xml, at=AT, host=nasty, pid=7, warning=True)) <= LONGEST


def test_the_time_of_an_event_has_its_zone() -> None:
    assert _told(EVERY["sent"]).at == "2023-11-14T22:13:20.250+00:00"


def test_the_syslog_header_is_that_of_the_profile() -> None:
    told = _told(EVERY["sent"])
    assert told.header == {
        "pri": "85",
        "at": "2023-11-14T22:13:20.250000Z",
        "host": "node.example",
        "app": "evenray",
        "pid": "7",
        "id": "DICOM+RFC3881",
    }
    assert form(b"<a/>", at=AT, host="ü x", pid=1, warning=True).startswith(b"<84>1 ")
    assert b" x evenray 1 " in form(b"<a/>", at=AT, host="ü x", pid=1, warning=True)
