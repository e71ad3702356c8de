"""What an HTTP status or a broken connection means for who asked, in our words. Knows no body: it may name a patient.

Source: RFC 9110 15, RFC 6585 4 (429), PS3.18 8.5 and table 10.5.3-1.
"""

from __future__ import annotations

import email.utils
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC

from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    IncompleteRead,
    NewConnectionError,
    ProtocolError,
    SSLError,
)

from dicom_node.errors import Blame, EvenrayError, PeerBusy, PeerRefused, PeerUnreachable
from dicom_node.tls import why

LONGEST_RETRY_AFTER_S = 900.0
"""A server may ask for more; it is looked at once in this time all the same."""

# First match wins. A server that is in trouble passes; what it says about the request will not change by itself. A
# status that may be about the one object as well as about the server blames either, so that no object blocks others.
STATUSES: tuple[tuple[int, int, type[PeerBusy | PeerRefused], Blame, str], ...] = (
    (300, 399, PeerRefused, Blame.PEER, "redirects to another address, which is not followed: correct url"),
    (401, 401, PeerRefused, Blame.PEER, "our credentials are not accepted: check password_file or token_file"),
    (403, 403, PeerBusy, Blame.EITHER, "forbidden: check the rights that our account has there"),
    (404, 405, PeerRefused, Blame.PEER, "offers no such service at this address: check url"),
    (407, 407, PeerRefused, Blame.PEER, "a proxy asks for credentials: let the node connect without it"),
    (408, 408, PeerBusy, Blame.EITHER, "waited for us too long"),
    (409, 409, PeerRefused, Blame.OBJECT, "in conflict with what is there"),
    (411, 411, PeerRefused, Blame.PEER, "does not understand the length of a request: see what stands before it"),
    (413, 413, PeerRefused, Blame.OBJECT, "too large: raise the limit there, or lower at_once_mib"),
    (415, 415, PeerRefused, Blame.OBJECT, "does not take this transfer syntax"),
    (429, 429, PeerBusy, Blame.PEER, "too many requests"),
    (400, 499, PeerRefused, Blame.OBJECT, "not accepted"),
    (503, 503, PeerBusy, Blame.PEER, "not available now"),
    (507, 507, PeerBusy, Blame.EITHER, "no room"),
    (500, 599, PeerBusy, Blame.EITHER, "a fault of the server"),
)


def refusal_of(peer: str, status: int, *, wait_s: float | None = None) -> EvenrayError:
    """What a status other than of success means; `wait_s` is what `retry_after_s` found."""
    asks = f"; asks to be left alone for {wait_s:.0f} s" if wait_s else ""
    for low, high, kind, blame, words in STATUSES:
        if low <= status <= high:
            return kind(f"{peer}: answered {status}, {words}{asks}").about(blame)
    return PeerUnreachable(f"{peer}: answered {status}, which is no status of an answer: check url").about(Blame.PEER)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """How long a server asks to be left alone (Retry-After), capped; None: it does not. Source: RFC 9110 10.2.3.

    `now` in seconds since the epoch.
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return min(LONGEST_RETRY_AFTER_S, float(text[:9]))
    try:
        then = email.utils.parsedate_to_datetime(text)
        # A date without a zone is in Greenwich, as HTTP writes all of its dates.
        wait = (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(LONGEST_RETRY_AFTER_S, max(0.0, wait))


def fault_of(peer: str, fault: BaseException) -> PeerUnreachable:
    """What a broken or impossible connection means. The library's own text is not used: it quotes the address."""
    chain = list(_chain(fault))
    root = chain[-1]
    if any(isinstance(one, ssl.SSLError | SSLError) for one in chain):
        said = why(root) if isinstance(root, OSError) else "TLS failed: check tls and the server's certificate"
        return PeerUnreachable(f"{peer}: {said}").about(Blame.PEER)
    if any(isinstance(one, NewConnectionError | ConnectTimeoutError) for one in chain):
        reason = (root.strerror if isinstance(root, OSError) else "") or "no connection in time"
        return PeerUnreachable(f"{peer}: {reason}: check url and network").about(Blame.PEER)
    if isinstance(root, TimeoutError) or "Timeout" in type(root).__name__:
        return PeerUnreachable(f"{peer}: no answer in time")
    if any(isinstance(one, OSError | ProtocolError | IncompleteRead) for one in chain):
        return PeerUnreachable(f"{peer}: the connection broke before the answer was complete")
    return PeerUnreachable(f"{peer}: gave an answer that can't be read")


BROKEN = (OSError, HTTPError)
"""What a connection raises: requests.RequestException is an OSError; the library below it has a tree of its own."""


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    """The fault and what it came of, outermost first."""
    while fault is not None:
        yield fault
        fault = fault.__cause__ or fault.__context__
