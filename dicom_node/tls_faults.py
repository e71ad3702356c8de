"""What a fault of TLS means, in words with the setting that helps. Pure."""

from __future__ import annotations

import ssl


class NotTls(OSError):
    """Who has connected to a TLS port does not begin with a TLS handshake."""


EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_ADDRESS = 10, 9, 62, 64
"""Source: x509_vfy.h of OpenSSL."""
NO_VERSION = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "VERSION_TOO_LOW", "UNKNOWN_PROTOCOL"})
NO_SUITE = frozenset({"NO_SHARED_CIPHER", "NO_SHARED_SIGNATURE_ALGORITHMS", "NO_SUITABLE_SIGNATURE_ALGORITHM"})
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "BAD_RECORD_TYPE"})
WANTS_OURS = frozenset({"TLSV13_ALERT_CERTIFICATE_REQUIRED", "SSLV3_ALERT_HANDSHAKE_FAILURE"})
"""Alerts of a peer that was shown no certificate; of an old one it may be the suites, too."""
REFUSES_OURS = frozenset(
    {
        "TLSV1_ALERT_UNKNOWN_CA",
        "SSLV3_ALERT_BAD_CERTIFICATE",
        "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        "SSLV3_ALERT_CERTIFICATE_REVOKED",
        "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        "TLSV1_ALERT_ACCESS_DENIED",
        "TLSV1_ALERT_DECRYPT_ERROR",
    }
)


def why_refused(fault: OSError) -> str:
    """Why who connected to our TLS port was let go, and what to do there or in `listen.tls`."""
    reason = (fault.reason or "") if isinstance(fault, ssl.SSLError) else ""
    found = "it broke off the TLS handshake"
    if isinstance(fault, NotTls):
        found = "it speaks without TLS: switch TLS on there"
    elif isinstance(fault, TimeoutError):
        found = "it did not finish the TLS handshake in time"
    elif isinstance(fault, ssl.SSLCertVerificationError):
        found = f"its certificate is not accepted ({fault.verify_message}): {_cure_there(fault)}"
    elif reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        found = "it shows no certificate: give it one, or set listen.tls.clients: any"
    elif reason in NO_VERSION:
        found = "it offers no TLS version from listen.tls.minimum up: switch a newer one on there"
    elif reason in NO_SUITE:
        found = "it offers no cipher suite of the BCP 195 profile: switch one on there"
    elif reason in REFUSES_OURS:
        found = f"it does not accept our certificate ({plain(fault)}): give it our authority's certificate"
    elif reason:
        found = f"the TLS handshake failed ({plain(fault)})"
    return found


def _cure_there(fault: ssl.SSLCertVerificationError) -> str:
    if fault.verify_code == EXPIRED:
        return "renew it there"
    if fault.verify_code == NOT_YET_VALID:
        return "check the clocks"
    return "have it issued by an authority in listen.tls.trusted"


def why(fault: OSError) -> str:
    """Why a peer could not be talked to over TLS, and which of its `tls` settings helps: what happened: remedy."""
    reason = (fault.reason or "") if isinstance(fault, ssl.SSLError) else ""
    found = "it closed the connection in the TLS handshake: check whether its port speaks TLS and takes tls.certificate"
    if isinstance(fault, ssl.SSLCertVerificationError):
        found = _why_not_accepted(fault)
    elif isinstance(fault, TimeoutError):
        found = "no TLS handshake in time: check whether its port speaks TLS"
    elif reason in NO_TLS:
        found = "it answers without TLS: give its TLS port, or remove tls"
    elif reason in NO_VERSION:
        found = "it offers no TLS version from tls.minimum up: switch a newer one on there"
    elif reason in WANTS_OURS:
        found = "it ends the TLS handshake: it may want a certificate of ours (tls.certificate and tls.key)"
    elif reason in REFUSES_OURS:
        found = f"it does not accept our certificate ({plain(fault)}): renew tls.certificate, or make it known there"
    elif reason:
        found = f"TLS failed ({plain(fault)}): check the tls settings of both sides"
    return found


def _why_not_accepted(fault: ssl.SSLCertVerificationError) -> str:
    if fault.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        return "its certificate is for another name: give that in tls.server_name, or set tls.check_hostname: false"
    if fault.verify_code == EXPIRED:
        return "its certificate has expired: renew it there"
    if fault.verify_code == NOT_YET_VALID:
        return "its certificate is not yet valid: check the clocks"
    return f"its certificate is not trusted ({fault.verify_message}): put its authority's into the file of tls.trusted"


def plain(fault: OSError) -> str:
    """OpenSSL's reason as words."""
    reason = getattr(fault, "reason", None) or fault.strerror or type(fault).__name__
    return str(reason).lower().replace("_", " ")
