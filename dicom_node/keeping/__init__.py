"""What the node promises to keep when a peer asks (storage commitment as SCP), and how the peer is told.

A modality that is told "committed" deletes its own copy. So an object is promised only if it is in the spool now, of
the class that was asked for, and its bytes on the disk were compared with their digest for this very request; and from
then on it leaves only once a destination has given its receipt for it. Source: PS3.4 annex J. Knows no pixels.
"""

from __future__ import annotations

from dicom_node.keeping.asked import Asked
from dicom_node.keeping.deciding import Deciding, stored_classes
from dicom_node.keeping.telling import Reporting

__all__ = ["Asked", "Deciding", "Reporting", "stored_classes"]
