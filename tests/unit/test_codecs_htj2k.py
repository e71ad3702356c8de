"""HTJ2K: a real code stream decodes to the bit, a cut one is refused.

The code stream was made once from the ramp below by OpenJPH 0.26 (reversible); no encoder for it is installed here.
"""

from __future__ import annotations

import base64

import numpy as np
import pytest
from pydicom import uid

from dicom_node.codecs import Frame, decode
from dicom_node.errors import Unreadable

ROWS, COLUMNS = 24, 20
RAMP = (np.add.outer(np.arange(ROWS) * 97, np.arange(COLUMNS) * 131) % 4096).astype(np.uint16)
STREAM = base64.b64decode(
    "/0//UQApQAAAAAAUAAAAGAAAAAAAAAAAAAAAFAAAABgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCIkJCQkJCQ"
    "kJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAARsAAf+TwAAmi/EFB3QAwAATQAATQAATACDwA4d0AJb8Awd0AJ/+"
    "Agd0AMAAE8AAE0AAEoC5MP4Bi3QAXfMBAXQA3wEHdADAABUwAAV0AAFQSU78ABiMIVYAXnTD7wn+AMEAs+lv2ACeQQAwjAPWAMAAFqQAAWpA"
    "ABaITDKZCYNvDAyAIPvZmdF/8PILeQAvW1a2i6SxkJX56AYZkGBCXRxaAP9/RT/+QP9x7BDMAjiEeFkAwAAujgABdDAAC0AEBAQEBAQEBP9h"
    "P/JNvvGv/3yf/kEQBPHv8CgAunp6cYJ7AP95n3/9BwwEAoFAYPwD5n9g/APm/0whChb9iEB7LKHdAP9H/3v/fZ//TgoLOIzhuQD/2Q=="
)


def _frame(data: bytes, syntax: str) -> Frame:
    return Frame(data, syntax, ROWS, COLUMNS, bits_allocated=16, bits_stored=16, signed=False)


@pytest.mark.parametrize("syntax", [uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K], ids=lambda s: s.name)
def test_a_code_stream_of_another_encoder_decodes_to_the_bit(syntax: uid.UID) -> None:
    words, _ = decode(_frame(STREAM, syntax))
    assert np.array_equal(words, RAMP)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_code_stream_is_refused_even_with_an_end_marker(share: float) -> None:
    cut = STREAM[: int(len(STREAM) * share)] + b"\xff\xd9"
    with pytest.raises(Unreadable, match="damaged"):
        decode(_frame(cut, uid.HTJ2K))
