"""Decide who may have an association: by AE title, address and certificate. Pure.

Source: PS3.8 9.3.4: who may not is rejected for good, by the user: calling AE title not recognised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from dicom_node.settings import Listen, Peer

REJECTED_PERMANENT, BY_USER, CALLING_NOT_RECOGNISED = 1, 1, 3
"""Result, source and reason of the rejection. Source: PS3.8 table 9-21."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an association."""

    ae_title: str
    address: str
    certificate_names: frozenset[str] | None = None
    """Names in its verified certificate, in lower case; None where none was asked for."""


def refusal(caller: Caller, listen: Listen) -> str:
    """Why it may have none, and the setting that says so; "" where it may.

    Several peers may share an AE title: it is enough to be one of them. A certificate's name is asked of whoever uses
    a peer's title, known_only or not.
    """
    title = caller.ae_title.strip()
    if listen.allowed_calling and title not in listen.allowed_calling:
        return "its title is not in listen.allowed_calling"
    same_title = [peer for peer in listen.peers.values() if peer.ae_title == title]
    if listen.known_only:
        if not same_title:
            return "its title is not in listen.peers"
        same_title = [peer for peer in same_title if comes_from(peer, caller.address)]
        if not same_title:
            return "its address is none of that title in listen.peers"
    if same_title and not any(_bears(peer, caller.certificate_names) for peer in same_title):
        return "its certificate bears another name than certificate_name in listen.peers"
    return ""


def names_in(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """The common names and DNS names of a verified certificate, in lower case, as `getpeercert` gives it."""
    if not certificate:
        return frozenset()
    subject = [pair for names in certificate.get("subject", ()) for pair in names]
    found = [value for kind, value in subject if kind == "commonName"]
    found += [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    return frozenset(str(name).lower() for name in found)


def comes_from(peer: Peer, address: str) -> bool:
    """Whether an address is one of a peer's."""
    if not peer.addresses:
        return True
    found = plain_address(address)
    return any(found in network for network in peer.addresses)


def plain_address(address: str) -> IPv4Address | IPv6Address:
    """An address as the settings write it: ::ffff:192.0.2.1, which a listener on :: sees, is 192.0.2.1."""
    found = ip_address(address)
    return getattr(found, "ipv4_mapped", None) or found


def _bears(peer: Peer, names: frozenset[str] | None) -> bool:
    return peer.certificate_name is None or names is None or peer.certificate_name.lower() in names
