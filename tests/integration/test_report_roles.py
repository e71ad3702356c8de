"""The listener answers role selection: a strict peer reports on commitments only where its role as SCP was accepted."""

from __future__ import annotations

from pathlib import Path

from pynetdicom import AE, build_role
from pynetdicom.sop_class import StorageCommitmentPushModel  # type: ignore[attr-defined]

from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from tests.node import node
from tests.peers import LOOPBACK


def test_a_peer_that_proposes_itself_as_scp_is_accepted_and_told_who_we_are(tmp_path: Path) -> None:
    with node(tmp_path, role="listen") as made:
        ae = AE("PACS")
        ae.add_requested_context(StorageCommitmentPushModel)
        roles = [build_role(StorageCommitmentPushModel, scp_role=True)]
        link = ae.associate(LOOPBACK, made.port, ae_title="EVENRAY", ext_neg=roles)
        assert link.is_established
        (context,) = link.accepted_contexts
        seen = (context.as_scp, link.acceptor.implementation_class_uid, link.acceptor.implementation_version_name)
        link.release()
    assert seen == (True, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION)
