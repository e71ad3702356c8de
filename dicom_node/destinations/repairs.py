"""Three repairs of pynetdicom 3.0 for who sends: a pause of its reactor that holds, a queue that has an end, and data
that comes after the wish to release.

Knows no destination. Without the first a response gets lost now and then on a busy machine (seen: 1 in 100), without
the second a whole file waits in memory for a slow peer, without the third the thread of an association dies of it.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA, MaximumLengthNotification

QUEUED_PDUS = 8
PIECE = 256 * 1024
"""Longest PDU that we send: a peer that takes any length would else be sent a whole file as one."""
LOOK_S = 0.05
TRANSFER_STATES = ("Sta6", "Sta8")
"""Data transfer, and the peer's wish to release, in which it still takes data. Source: PS3.8 9.2.3."""


def repair(association: Association) -> None:
    """Make an established association that we send on safe; nothing may have been sent on it yet."""
    association._reactor_checkpoint = _Gate(association)
    _drop_late_data(association.dul)
    if association.is_requestor:
        association.dul.to_provider_queue = _PacedQueue(association.dul)
        primitive = association.acceptor.primitive
        for item in primitive.user_information if primitive else ():
            if isinstance(item, MaximumLengthNotification):
                item.maximum_length_received = min(item.maximum_length_received or PIECE, PIECE)


def _drop_late_data(provider: DULServiceProvider) -> None:
    """Let an answer to a report of the peer that comes after our wish to release fall, as the standard has no way to
    send it any more. Source: PS3.8 table 9-10 (Evt9 in Sta7).
    """
    act = provider.state_machine.do_action

    def do_action(event: str) -> None:
        if event != "Evt9" or provider.state_machine.current_state in TRANSFER_STATES:
            act(event)
        else:
            # An action takes what it is about from the queue.
            provider.to_provider_queue.get(block=False)

    provider.state_machine.do_action = do_action  # type: ignore[method-assign]


class _Gate(threading.Event):
    """What the reactor waits at while another thread sends.

    The library looks at a flag that the reactor sets just before it waits. When the gate closes between those two, the
    reactor makes one more round, takes the response from the queue and drops it as unexpected. Here closing
    returns only once the reactor is held.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._changed = threading.Condition()
        self._open = True
        self._held = False

    def is_set(self) -> bool:
        return self._open

    def set(self) -> None:
        with self._changed:
            self._open, self._held = True, False
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._open = False
            # The reactor itself closes the gate when the idle time is over; it can't wait for itself.
            while (
                not self._held and self._association.is_alive() and threading.current_thread() is not self._association
            ):
                self._changed.wait(LOOK_S)
            # A thread that served a report of the peer has reset the flag, which the sender is going to wait for.
            self._association._is_paused = True

    def wait(self, timeout: float | None = None) -> bool:
        with self._changed:
            while not self._open:
                self._held = True
                self._changed.notify_all()
                self._changed.wait(timeout)
            return True


class _PacedQueue(queue.Queue[Any]):
    """The PDUs on their way to the socket: a few at a time."""

    def __init__(self, provider: DULServiceProvider) -> None:
        super().__init__()
        self._provider = provider

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Wait for room, only where data is sent. Raises ConnectionError when the association is gone."""
        while isinstance(item, P_DATA):
            if self._provider.state_machine.current_state not in TRANSFER_STATES or not self._provider.is_alive():
                raise ConnectionError("the association ended while data was sent")
            if self.qsize() < QUEUED_PDUS:
                break
            time.sleep(0.0005)
        super().put(item, block, timeout)
