"""Who may have an association: by title, address and certificate."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dicom_node.callers import Caller, comes_from, plain_address, refusal
from dicom_node.settings import Listen, Peer

TLS = {"certificate": "c", "key": "k", "trusted": "t"}
ROOM1 = {"ae_title": "DXROOM", "addresses": ["192.0.2.1"], "certificate_name": "Room1.example.org"}
ROOM2 = {"ae_title": "DXROOM", "addresses": ["198.51.100.0/24", "2001:db8::/64"]}
ANYWHERE = {"ae_title": "ANYWHERE"}
PEERS = {"room1": ROOM1, "room2": ROOM2, "anywhere": ANYWHERE}
NAMED = frozenset({"room1.example.org", "another"})
OTHER = frozenset({"room2.example.org"})

TITLE, ADDRESS, NAME, LISTED = "title is not in listen.peers", "address", "certificate", "allowed_calling"
TABLE: list[tuple[str, str, frozenset[str] | None, dict[str, Any], str]] = [
    ("ANYBODY", "203.0.113.9", None, {}, ""),
    ("ANYBODY", "203.0.113.9", None, {"allowed_calling": ["SOMEBODY"]}, LISTED),
    ("SOMEBODY", "203.0.113.9", None, {"allowed_calling": ["SOMEBODY"]}, ""),
    (" SOMEBODY ", "203.0.113.9", None, {"allowed_calling": ["SOMEBODY"]}, ""),
    ("somebody", "203.0.113.9", None, {"allowed_calling": ["SOMEBODY"]}, LISTED),
    ("ANYBODY", "203.0.113.9", None, {"peers": PEERS}, ""),
    ("ANYBODY", "203.0.113.9", None, {"known_only": True}, TITLE),
    ("ANYBODY", "203.0.113.9", None, {"known_only": True, "peers": PEERS}, TITLE),
    ("ANYWHERE", "203.0.113.9", None, {"known_only": True, "peers": PEERS}, ""),
    ("ANYWHERE", "203.0.113.9", OTHER, {"known_only": True, "peers": PEERS, "allowed_calling": ["DXROOM"]}, LISTED),
    ("DXROOM", "192.0.2.1", NAMED, {"known_only": True, "peers": PEERS}, ""),
    ("DXROOM", "192.0.2.1", OTHER, {"known_only": True, "peers": PEERS}, NAME),
    ("DXROOM", "192.0.2.1", frozenset(), {"known_only": True, "peers": PEERS}, NAME),
    ("DXROOM", "192.0.2.2", NAMED, {"known_only": True, "peers": PEERS}, ADDRESS),
    ("DXROOM", "198.51.100.77", OTHER, {"known_only": True, "peers": PEERS}, ""),
    ("DXROOM", "::ffff:198.51.100.77", OTHER, {"known_only": True, "peers": PEERS}, ""),
    ("DXROOM", "::ffff:192.0.2.2", NAMED, {"known_only": True, "peers": PEERS}, ADDRESS),
    ("DXROOM", "2001:db8::7", OTHER, {"known_only": True, "peers": PEERS}, ""),
    ("DXROOM", "2001:db8:1::7", OTHER, {"known_only": True, "peers": PEERS}, ADDRESS),
    ("DXROOM", "203.0.113.9", OTHER, {"peers": {"room1": ROOM1}}, NAME),
    ("DXROOM", "203.0.113.9", NAMED, {"peers": {"room1": ROOM1}}, ""),
    ("DXROOM", "203.0.113.9", OTHER, {"peers": {"room1": ROOM1, "room2": ROOM2}}, ""),
]


@pytest.mark.parametrize(("title", "address", "names", "listen", "why"), TABLE)
def test_who_may_have_an_association(
    title: str, address: str, names: frozenset[str] | None, listen: dict[str, Any], why: str
) -> None:
    found = refusal(Caller(title, address, names), Listen.model_validate({"tls": TLS, **listen}))
    assert (why in found) if why else found == ""


def test_an_address_is_compared_as_the_settings_write_it() -> None:
    assert str(plain_address("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(plain_address("2001:db8::1")) == "2001:db8::1"
    assert comes_from(Peer.model_validate({"ae_title": "A", "addresses": ["fe80::/10"]}), "fe80::1%eth0")


@pytest.mark.parametrize("tls", [None, {**TLS, "clients": "any"}])
def test_a_certificate_s_name_can_not_be_asked_for_where_nobody_shows_one(tls: dict[str, str] | None) -> None:
    with pytest.raises(ValidationError, match=r"certificate_name of peers\.room1 needs tls"):
        Listen.model_validate({"peers": {"room1": ROOM1}, "tls": tls})
