"""Who the peers of a message are, from the settings. Knows no event."""

from __future__ import annotations

from dicom_node.audit_trail.messages import Party
from dicom_node.settings import DicomWeb, Dimse, Folder, QueryRetrieve, Settings


class Parties:
    """Who the peers are, from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def is_folder(self, destination: str) -> bool:
        return isinstance(self._settings.destinations.get(destination), Folder)

    def destination(self, name: str) -> Party:
        found = self._settings.destinations.get(name)
        if isinstance(found, Folder):
            return Party(found.path.absolute().as_uri())
        return _party(name, found)

    def source(self, name: str) -> Party:
        return _party(name, self._settings.sources.get(name))


def _party(name: str, found: Dimse | DicomWeb | QueryRetrieve | Folder | None) -> Party:
    if isinstance(found, Dimse | QueryRetrieve):
        return Party(found.ae_title, found.host, found.ae_title)
    if isinstance(found, DicomWeb):
        return Party(str(found.url), found.url.host or "")
    return Party(name)
