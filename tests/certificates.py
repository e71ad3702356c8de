"""Certificates for tests, made by an authority of their own. Knows nothing of the node."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from tests.peers import LOOPBACK


@dataclass(frozen=True)
class Issued:
    """A certificate with the chain above it, and its key, as PEM files."""

    certificate: Path
    key: Path

    def replace_by(self, other: Issued) -> None:
        """Put another pair in its place, as a renewal does."""
        for mine, theirs in ((self.certificate, other.certificate), (self.key, other.key)):
            fresh = mine.with_suffix(".new")
            fresh.write_bytes(theirs.read_bytes())
            fresh.chmod(0o600)
            fresh.replace(mine)


class Authority:
    """Issues certificates; who trusts `file` trusts them."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made = trustme.CA(organization_name=name)
        self.file = self._folder / "authority.pem"
        self._made.cert_pem.write_to_path(self.file)

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = ("localhost", LOOPBACK),
        days: float = 365.0,
        since_days: float = 400.0,
        common_name: str | None = None,
    ) -> Issued:
        """Valid from `since_days` ago for another `days`; negative: it has expired. Its common name is `name`."""
        now = datetime.now(UTC)
        leaf = self._made.issue_cert(
            *hosts,
            common_name=common_name or name,
            not_before=now - timedelta(days=since_days),
            not_after=now + timedelta(days=days),
        )
        found = Issued(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        found.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        found.key.touch(mode=0o600)
        found.key.write_bytes(leaf.private_key_pem.bytes())
        return found
