"""The library's associations survive what a peer does at the same moment as we do."""

from __future__ import annotations

import queue
import threading
import time

from pynetdicom import AE, evt
from pynetdicom.pdu import A_RELEASE_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.destinations.repairs import repair
from tests.peers import LOOPBACK, wait_until


def test_data_that_comes_after_the_wish_to_release_kills_no_thread() -> None:
    may_answer = threading.Event()

    def hold(event: evt.Event) -> None:
        if isinstance(event.pdu, A_RELEASE_RQ):
            may_answer.wait(10)

    peer = AE()
    peer.add_supported_context(Verification)
    server = peer.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_PDU_RECV, hold)])
    ours = AE()
    ours.add_requested_context(Verification)
    association = ours.associate(LOOPBACK, server.server_address[1])
    try:
        assert association.is_established
        repair(association)
        releasing = threading.Thread(target=association.release)
        releasing.start()
        wait_until(lambda: association.dul.state_machine.current_state == "Sta7", 10, "the release is asked for")
        late = P_DATA()
        late.presentation_data_value_list = [[1, b"\x03\x00"]]  # type: ignore[list-item]
        queue.Queue.put(association.dul.to_provider_queue, late)
        wait_until(association.dul.to_provider_queue.empty, 10, "the late data was looked at")
        # Not a wait for anything: the thread dies at once, if it does.
        time.sleep(0.1)
        assert association.dul.is_alive()
        may_answer.set()
        releasing.join(10)
        assert association.is_released
    finally:
        may_answer.set()
        server.shutdown()
