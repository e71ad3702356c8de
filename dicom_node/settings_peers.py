"""Whom the node talks to: who may connect, where results go, what is fetched from where, who gets the audit messages.

Knows no file and no connection.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field, model_validator

from dicom_node.settings_types import AeTitle, Port, Seconds, Section

TlsVersion = Literal["1.2", "1.3"]


class TlsServer(Section):
    """TLS on a port of ours, by the BCP 195 profile (PS3.15 B.12): both sides show a certificate."""

    certificate: Path
    """Our certificate and the chain above it, PEM; read again when the file changes."""
    key: Path
    """Its private key, PEM, without a password; readable by the node alone."""
    trusted: Path | None = None
    """Certificates of those who may connect, or of their authorities, PEM."""
    clients: Literal["authenticated", "any"] = "authenticated"
    """Whether who connects must show a certificate that `trusted` vouches for; `any` only encrypts."""
    minimum: TlsVersion = "1.2"
    """Lowest protocol version."""

    @model_validator(mode="after")
    def _can_authenticate(self) -> TlsServer:
        if self.clients == "authenticated" and self.trusted is None:
            raise ValueError("trusted is needed to authenticate clients: name the file of their authorities")
        return self

    def to_itself(self) -> TlsClient:
        """TLS towards our own port: our own certificate is all there is to trust, and to show."""
        own = self.certificate
        return TlsClient(trusted=own, certificate=own, key=self.key, check_hostname=False, minimum=self.minimum)


class TlsClient(Section):
    """TLS towards a peer, by the BCP 195 profile (PS3.15 B.12)."""

    trusted: Path | None = None
    """The peer's certificate, or its authority's, PEM; null: the authorities that this machine trusts."""
    certificate: Path | None = None
    """Our certificate and chain, PEM, for a peer that authenticates us; read again when the file changes."""
    key: Path | None = None
    """Its private key, PEM, without a password."""
    check_hostname: bool = True
    """Whether the peer's certificate must be for its host; off only where authorities issue to known devices alone."""
    server_name: str | None = None
    """The name that its certificate is for, where that is not the host."""
    minimum: TlsVersion = "1.2"
    """Lowest protocol version."""

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsClient:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        return self


class Address(Section):
    """A DICOM application entity that we connect to."""

    ae_title: AeTitle
    """Its AE title."""
    host: str
    """Its address."""
    port: Port
    """Its port."""
    calling_ae: AeTitle | None = None
    """Our title towards it; by default that of `listen`."""
    tls: TlsClient | None = None
    """TLS towards it; null: none."""
    connect_timeout_s: Seconds = 15
    """Longest wait for a connection and for the answer to an association request."""
    dimse_timeout_s: Seconds = 120
    """Longest wait for the answer to one message."""


class Peer(Section):
    """An application entity that may connect to us."""

    ae_title: AeTitle
    """Its calling AE title."""
    addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    """Addresses or networks (192.0.2.0/24) that it may come from; empty: any."""
    certificate_name: str | None = None
    """Common or DNS name that its certificate must bear, where `listen.tls` authenticates; null: any trusted."""
    host: str | None = None
    """Where it listens itself, for our storage commitment reports; null: where its request came from."""
    port: Port | None = None
    """The port there; null: reports go on the association of the request only."""
    tls: TlsClient | None = None
    """TLS towards it; null: none."""


class Dimse(Address):
    """A destination that takes C-STORE."""

    kind: Literal["dimse"]
    """A DICOM peer."""
    commitment: bool = False
    """Ask for storage commitment and count an object as delivered only once it is confirmed."""
    commitment_timeout_s: Seconds = 300
    """No report for this long: the commitment is asked again."""
    commitment_wait_s: Annotated[float, Field(ge=0, le=600)] = 2
    """How long the requesting association is kept open for a report on it."""


class Folder(Section):
    """A destination that is a folder: one file an object, named by UIDs."""

    kind: Literal["folder"]
    """A folder on this machine."""
    path: Path
    """Where; relative to the configuration file."""


class DicomWeb(Section):
    """A DICOMweb server: STOW-RS as a destination, QIDO-RS and WADO-RS as a source (PS3.18)."""

    kind: Literal["dicomweb"]
    """A DICOMweb server."""
    url: AnyHttpUrl
    """Its base address, like https://pacs.example/dicom-web."""
    username: str | None = None
    """For HTTP basic authentication; needs password_file."""
    password_file: Path | None = None
    """A file with the password, readable by the node alone; read at every use."""
    token_file: Path | None = None
    """A file with a bearer token; read at every use, so that another program may renew it."""
    tls: TlsClient | None = None
    """TLS beyond https with this machine's authorities: own certificate, own authority."""
    timeout_s: Seconds = 120
    """Longest wait for an answer, or for a part of one."""
    at_once_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Objects are sent together up to this size in one request."""

    @model_validator(mode="after")
    def _one_way_in(self) -> DicomWeb:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file belong together: give both, or neither")
        if self.username and self.token_file:
            raise ValueError("give username and password_file, or token_file, not both")
        if self.tls and self.url.scheme != "https":
            raise ValueError(f"tls needs an https url, not {self.url.scheme}")
        if self.url.username or self.url.password:
            raise ValueError("url must hold no credentials: give username and password_file, or token_file")
        if self.url.query or self.url.fragment:
            raise ValueError("url must end with its path: leave out what follows ? or #")
        return self


Destination = Annotated[Dimse | Folder | DicomWeb, Field(discriminator="kind")]


class QueryRetrieve(Address):
    """An archive that is asked by C-FIND and answers by C-MOVE or C-GET (PS3.4 annex C)."""

    kind: Literal["dimse"]
    """A DICOM archive."""
    method: Literal["auto", "move", "get"] = "auto"
    """How images are fetched; auto: C-GET where the archive takes it, else C-MOVE to our listener."""
    move_to: AeTitle | None = None
    """The AE title under which the archive knows our listener; by default that of `listen`."""


Source = Annotated[QueryRetrieve | DicomWeb, Field(discriminator="kind")]


class Audit(Section):
    """Audit trail messages (PS3.15 A.5) to an audit record repository by syslog."""

    transport: Literal["none", "udp", "tls"] = "none"
    """none: no messages; udp: RFC 5426; tls: RFC 5425."""
    host: str = "127.0.0.1"
    """The repository's address."""
    port: Port = 6514
    """Its port; for UDP it is mostly 514."""
    tls: TlsClient = TlsClient()
    """TLS towards it, for `transport: tls`."""
    enterprise_site: str = ""
    """Audit Enterprise Site ID of the messages."""
    spool_mib: Annotated[int, Field(ge=1, le=1 << 20)] = 256
    """Messages kept on the disk at most while the repository takes none; beyond it the oldest leave, and it is said."""
