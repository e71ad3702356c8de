"""How processes log: one line an event to standard error, actions and ids only. Owns no message."""

from __future__ import annotations

import logging
import sys
import time
import warnings


class _Utc(logging.Formatter):
    converter = staticmethod(time.gmtime)


def to_stderr(role: str) -> None:
    """Log our own events, and of the libraries only what is an error.

    pynetdicom's and pydicom's own messages may quote data sets, so they stay out below ERROR.
    """
    handler = logging.StreamHandler(sys.stderr)
    pattern = f"%(asctime)s.%(msecs)03dZ %(levelname)s {role}: %(message)s"
    handler.setFormatter(_Utc(pattern, datefmt="%Y-%m-%dT%H:%M:%S"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.ERROR)
    logging.getLogger("dicom_node").setLevel(logging.INFO)
    # Both quote what they could not read: that may be a patient's data.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    # Their warnings do so, too; what matters of them is in decisions and reports. Set once, for every thread.
    warnings.simplefilter("ignore")
