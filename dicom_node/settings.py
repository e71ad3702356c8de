"""The settings: every section typed, with its default, bounds and meaning, and what must hold between them.

Knows no file: see settings_file. Whom the node talks to is in settings_peers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from dicom_node.settings_peers import (
    Audit,
    Destination,
    DicomWeb,
    Dimse,
    Folder,
    Peer,
    QueryRetrieve,
    Source,
    TlsClient,
    TlsServer,
)
from dicom_node.settings_types import AeTitle, Days, Name, Offset, Port, Seconds, Section, Uid

__all__ = ["DicomWeb", "Dimse", "Folder", "Peer", "QueryRetrieve", "Settings"]


class Site(Section):
    """Who runs the node: written into every result."""

    institution: Annotated[str, StringConstraints(max_length=64)] = ""
    """Institution Name of the equipment in results."""
    station: Annotated[str, StringConstraints(max_length=16)] = "EVENRAY"
    """Station Name of the equipment in results."""
    timezone: Offset = "+0000"
    """Timezone Offset From UTC for results whose original states none."""
    visible_label: Annotated[str, StringConstraints(max_length=64)] = ""
    """Words drawn into the pixels of changed images, like "HARMONIZED - NOT ORIGINAL"; empty: none."""

    @field_validator("visible_label")
    @classmethod
    def _drawable(cls, words: str) -> str:
        # Latin-1, and what word processors make of quotation marks, dashes and dots in a row.
        if any(ord(letter) > 0xFF and letter not in "\u2013\u2014\u2018\u2019\u201c\u201d\u2026" for letter in words):
            raise ValueError("only Latin letters can be drawn: write the words without others")
        return words


class Listen(Section):
    """The receiving application entity."""

    ae_title: AeTitle = "EVENRAY"
    """Our AE title."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: every interface."""
    port: Port = 11112
    """Port to listen on."""
    check_called_ae: bool = True
    """Refuse an association that calls another title than ours."""
    allowed_calling: tuple[AeTitle, ...] = ()
    """Application entities that may connect; empty: any."""
    max_associations: Annotated[int, Field(ge=1, le=500)] = 32
    """Associations at the same time; one more is rejected as transient."""
    peers: dict[Name, Peer] = {}
    """Who may connect, by name."""
    known_only: bool = False
    """Refuse an association of anybody who is not in `peers`, or who comes from another address than there."""
    tls: TlsServer | None = None
    """TLS on our port; null: none."""
    commitment: bool = True
    """Answer storage commitment requests: whether we keep what a peer has sent."""
    commitment_elsewhere: bool = False
    """Also commit to what has left our spool once a destination has committed itself to keep it."""
    max_associations_per_minute: Annotated[int, Field(ge=0, le=100000)] = 0
    """New connections of one address in a minute; further ones are closed at once. 0: no limit."""
    max_associations_per_host: Annotated[int, Field(ge=0, le=500)] = 0
    """Connections of one address at the same time; one more is closed at once. 0: one host may take all."""
    max_pdu: Annotated[int, Field(ge=0, le=1 << 24)] = 131072
    """Largest PDU that we receive, in bytes; 0: no limit."""
    acse_timeout_s: Seconds = 30
    """Longest wait for an association message."""
    dimse_timeout_s: Seconds = 120
    """Longest wait for a DIMSE message that has begun."""
    network_timeout_s: Seconds = 120
    """Longest silence on an open association."""
    extra_sop_classes: tuple[Uid, ...] = ()
    """Storage SOP classes to accept beside the built-in ones; the engine passes them by."""
    processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Receiver processes that share the port; 0: one for every two cores of the machine, at most 4."""
    fast: bool = True
    """Receive storage associations by the node's own reader of the data stream; false: by pynetdicom's."""
    drain_s: Seconds = 30
    """How long running associations may finish after a request to stop, before they are aborted."""

    @model_validator(mode="after")
    def _sees_certificates(self) -> Listen:
        named = [name for name, peer in self.peers.items() if peer.certificate_name]
        if named and not (self.tls and self.tls.clients == "authenticated"):
            raise ValueError(f"certificate_name of peers.{named[0]} needs tls with clients: authenticated")
        return self


class Storage(Section):
    """Room on the disk."""

    reserve_mib: Annotated[int, Field(ge=0)] = 2048
    """Below this much free space nothing more is accepted (0xA700)."""
    watermark_percent: Annotated[float, Field(gt=0, le=100)] = 97
    """Above this share of the disk in use nothing more is accepted (0xA700)."""


class Retention(Section):
    """What may leave the spool, and when. Only what every destination has answered for ever leaves."""

    originals_days: Days | None = 30
    """An original leaves this long after everything of its batch was delivered; null: never."""
    results_days: Days | None = 30
    """The same for results and reports."""
    only_copies: Literal["keep", "expire"] = "keep"
    """What was never sent anywhere (`originals: keep`, no destination) may be the only copy: `keep` keeps it."""
    when_full: Literal["early", "never"] = "early"
    """Near the limits of `storage`: what may leave by its receipts leaves before its days are over, oldest first."""
    every_s: Seconds = 60
    """How often it is looked what may leave."""


class Integrity(Section):
    """Comparing the spool's files with the digests that the ledger has of them."""

    every_days: Days | None = 7
    """The whole spool is read once in this time; null: only by `evenray verify`."""
    mib_per_s: Annotated[float, Field(gt=0, le=100000)] = 16
    """No more than this is read a second on average."""


class Pull(Section):
    """Fetching from archives (`evenray pull`)."""

    images_per_minute: Annotated[float, Field(gt=0, le=100000)] = 120
    """No more images than this are fetched a minute on average."""
    queue_limit: Annotated[int, Field(ge=1, le=1000000)] = 500
    """Nothing more is fetched while this many images wait to be processed."""


class Assembly(Section):
    """When the instances of a study are one batch."""

    quiet_s: Seconds = 20
    """No new instance for this long: the batch is complete."""
    quiet_after_release_s: Seconds = 5
    """The same once every association that carried the batch has ended; a hint, so it only shortens the wait."""
    cap_s: Seconds = 600
    """A batch that never becomes quiet is reported after this long all the same."""

    @model_validator(mode="after")
    def _ordered(self) -> Assembly:
        if self.quiet_after_release_s > self.quiet_s:
            raise ValueError(f"quiet_after_release_s ({self.quiet_after_release_s:g}) must not exceed quiet_s")
        if self.cap_s < self.quiet_s:
            raise ValueError(f"cap_s ({self.cap_s:g}) must be at least quiet_s ({self.quiet_s:g})")
        return self


class Retrying(Section):
    """How often and how long a failing step is tried again before it is parked."""

    attempts: Annotated[int, Field(ge=1, le=1000)] = 12
    """Failures in a row until it is parked."""
    first_s: Seconds = 2
    """Wait after the first failure."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    """Each further wait is this much longer."""
    longest_s: Seconds = 900
    """No wait is longer."""


class Work(Section):
    """The worker."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the engine computes; auto: CUDA where there is one."""
    lease_s: Seconds = 60
    """A claim not renewed for this long may be taken over."""
    image_timeout_s: Seconds = 600
    """An image or a report that takes longer hangs: the worker ends itself and is started again."""
    retry: Retrying = Retrying(attempts=3)
    """When an image or a report fails."""


class Logs(Section):
    """What the processes write to standard error; never a patient's data."""

    format: Literal["text", "json"] = "text"
    """One line, or one JSON object, an event."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least serious events that are written."""


class Health(Section):
    """The HTTP endpoint for machines that watch the node: `/live`, `/ready` and `/metrics`."""

    host: str = "127.0.0.1"
    """Address of the endpoint; it asks for no password, so keep it on loopback or in a network of yours."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of the endpoint; 0: none."""


class Supervise(Section):
    """The supervisor of the node's processes."""

    hang_s: Seconds = 120
    """A process whose main loop is silent for longer is killed and started again."""


class Deliver(Section):
    """The sender."""

    lease_s: Seconds = 120
    """A delivery not renewed for this long may be taken over."""
    retry: Retrying = Retrying(attempts=100)
    """When one object fails again and again although its destination is there; as it stands, for about a day."""
    longest_pause_s: Seconds = 60
    """A destination that takes nothing is looked at once in a while, at least this often, and with one object only."""
    patience_days: Annotated[float, Field(gt=0, le=365)] = 7
    """A destination that takes nothing, or confirms nothing, for this long: what has waited as long is parked."""


Method = Literal["fitted_curve", "histogram_matching", "z_score", "window_clamp"]


ResultObject = Literal[
    "secondary_capture", "derived_image", "presentation_state", "structured_report", "key_object_selection"
]


class Match(Section):
    """Which instances a route takes; an empty list takes any. Values are compared in upper case."""

    modality: tuple[str, ...] = ("CR", "DX", "MG", "RG")
    """Modality (0008,0060)."""
    body_part: tuple[str, ...] = ()
    """Body Part Examined, or what the description says in its place."""
    view: tuple[str, ...] = ()
    """View Position."""
    manufacturer: tuple[str, ...] = ()
    """Parts of the Manufacturer's name."""
    calling_ae: tuple[str, ...] = ()
    """AE titles of senders."""

    @field_validator("modality", "body_part", "view", "manufacturer", "calling_ae")
    @classmethod
    def _upper(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(value.strip().upper() for value in values)


class Route(Section):
    """What happens to the instances that match: bank, methods, objects, destinations."""

    name: Name
    """Shown in decisions and reports."""
    match: Match = Match()
    """Which instances it takes."""
    bank: str = "auto"
    """A bank's name, or `auto`: the one whose exam type fits the image."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = ("fitted_curve",)
    """In order of the harm they could do: the first whose result is verified and close enough wins."""
    objects: tuple[ResultObject, ...] = ("secondary_capture", "structured_report")
    """What is made: images that were changed (as secondary capture, or of the original's own class), a presentation
    state with the curve, the batch's report (whatever stands here), and a selection of refused and parked images for
    quality control."""
    destinations: tuple[Name, ...] = ()
    """Names of destinations."""
    originals: Literal["forward", "keep"] = "forward"
    """Whether originals that the engine works on are sent on to the destinations, byte for byte, or only kept."""


class PassedBy(Section):
    """Objects that no route takes or that the engine can't use."""

    originals: Literal["forward", "keep"] = "forward"
    """Whether they are sent on, byte for byte, or only kept."""
    destinations: tuple[Name, ...] = ()
    """Where they, and the reports that name them, go."""


class Settings(Section):
    """The whole configuration."""

    site: Site = Site()
    """Who runs the node."""
    state_dir: Path = Path("evenray-state")
    """Spool, ledger, banks and locks. One node, one state directory, on a local disk."""
    banks_dir: Path | None = None
    """Banks of the site, beside the embedded ones; by default `banks` in the state directory."""
    listen: Listen = Listen()
    """Receiving."""
    storage: Storage = Storage()
    """Room on the disk."""
    retention: Retention = Retention()
    """What may leave the spool, and when."""
    integrity: Integrity = Integrity()
    """Comparing files with their digests."""
    assembly: Assembly = Assembly()
    """When a batch is complete."""
    work: Work = Work()
    """Processing."""
    deliver: Deliver = Deliver()
    """Sending."""
    supervise: Supervise = Supervise()
    """Watching over the processes."""
    health: Health = Health()
    """Telling other machines how the node is."""
    logs: Logs = Logs()
    """Logging."""
    audit: Audit = Audit()
    """Audit trail messages."""
    pull: Pull = Pull()
    """Fetching from archives."""
    sources: dict[Name, Source] = {}
    """Archives that studies are fetched from, by name."""
    destinations: dict[Name, Destination] = {}
    """Where results go, by name."""
    routes: tuple[Route, ...] = ()
    """What happens to which images; the first that matches takes an image."""
    passed_by: PassedBy = PassedBy()
    """What happens to everything else."""

    @model_validator(mode="after")
    def _fits_together(self) -> Settings:
        faults = cross_faults(self.model_dump(include={"destinations": True, "routes": True, "passed_by": True}))
        if faults:
            raise ValueError("\n".join(faults))
        return self

    @property
    def banks(self) -> Path:
        return self.banks_dir or self.state_dir / "banks"

    @property
    def longest_wait_s(self) -> float:
        """No work waits longer than this to be tried again, whatever it is."""
        return max(self.work.retry.longest_s, self.deliver.retry.longest_s, self.deliver.longest_pause_s)

    def tls_sections(self) -> dict[str, TlsServer | TlsClient]:
        """Every use of TLS, by its path."""
        connected = {name: one for name, one in self.destinations.items() if not isinstance(one, Folder)}
        found: dict[str, TlsServer | TlsClient | None] = {"listen.tls": self.listen.tls}
        found |= {f"listen.peers.{name}.tls": peer.tls for name, peer in self.listen.peers.items()}
        found |= {f"sources.{name}.tls": source.tls for name, source in self.sources.items()}
        found |= {f"destinations.{name}.tls": destination.tls for name, destination in connected.items()}
        if self.audit.transport == "tls":
            found["audit.tls"] = self.audit.tls
        return {path: tls for path, tls in found.items() if tls}

    def result_digest(self) -> str:
        """SHA-256 over what may change a result's bytes: site and routes, not addresses, time-outs or folders."""
        shaping = self.model_dump(mode="json", include={"site": True, "routes": True})
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()


def cross_faults(raw: Mapping[str, Any]) -> list[str]:
    """Faults between settings, on plain data that may be faulty itself."""
    destinations, routes = raw.get("destinations"), raw.get("routes")
    known = sorted(map(str, destinations)) if isinstance(destinations, dict) else []
    listed = [r for r in routes if isinstance(r, dict)] if isinstance(routes, list | tuple) else []
    faults = []
    passed_by = raw.get("passed_by")
    users = [*((f"routes.{n}", route) for n, route in enumerate(listed)), ("passed_by", passed_by)]
    for path, user in users:
        names = user.get("destinations") if isinstance(user, dict) else None
        for name in names if isinstance(names, list | tuple) else ():
            if name not in known:
                there = ", ".join(known) or "none is configured"
                faults.append(f"{path}.destinations: no destination is called {name!r}; known: {there}")
    names = [str(route.get("name")) for route in listed if route.get("name") is not None]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.append(f"routes: the name {name!r} is used twice; each route needs its own")
    return faults
