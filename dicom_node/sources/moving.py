"""C-MOVE in the Study Root: have the archive send to an AE title that it knows. Source: PS3.4 C.4.2.

Receives nothing itself: what has arrived there, the caller knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove  # type: ignore[attr-defined]

from dicom_node.errors import EvenrayError, PeerBusy, PeerUnreachable
from dicom_node.records import Receipt
from dicom_node.settings import QueryRetrieve
from dicom_node.sources.finding import SYNTAXES
from dicom_node.sources.query import FoundImage
from dicom_node.sources.statuses import MOVING, Meaning, fault, meaning
from dicom_node.sources.talk import MESSAGE_ID, Talk
from dicom_node.status import StoreStatus
from dicom_node.tolerant import integer, values

MODEL = str(StudyRootQueryRetrieveInformationModelMove)
Answers = list[tuple[FoundImage, Receipt | EvenrayError]]


def identifier(images: Sequence[FoundImage]) -> Dataset:
    """Asks for these instances of one series, by a list of UIDs. Source: PS3.4 C.4.2.1.4.1, C.6.2.1."""
    asked = Dataset()
    asked.QueryRetrieveLevel = "IMAGE"
    asked.StudyInstanceUID = images[0].study_instance_uid
    asked.SeriesInstanceUID = images[0].series_instance_uid
    asked.SOPInstanceUID = [one.sop_instance_uid for one in images]
    return asked


def move(
    archive: QueryRetrieve, calling_ae: str, images: Sequence[FoundImage], move_to: str, beat: Callable[[], None]
) -> Answers:
    """What the archive says of each, once it is done. Raises PeerUnreachable, PeerBusy, PeerRefused."""
    asked = identifier(images)
    with Talk(archive, calling_ae=calling_ae, contexts=[build_context(MODEL, SYNTAXES)], beat=beat) as talk:
        association = talk.link.association
        send = lambda: association.send_c_move(asked, move_to, MODEL, MESSAGE_ID)  # noqa: E731
        with closing(talk.responses("C-MOVE", MODEL, MOVING, send)) as responses:
            for status, told, failed in responses:
                if meaning(status, MOVING)[0] is not Meaning.PENDING:
                    return last_word(talk.peer, "C-MOVE", images, status, told, failed, remedy=_remedy(status, move_to))
    raise PeerUnreachable(f"{talk.peer}: C-MOVE ended without a last response")


def last_word(
    peer: str,
    service: str,
    images: Sequence[FoundImage],
    status: int,
    told: Dataset,
    failed: Dataset | None,
    *,
    remedy: str = "",
) -> Answers:
    """The answer for each image from the last response of C-MOVE or C-GET. Raises where the whole was refused.

    An archive need not say which sub-operations failed (Failed SOP Instance UID List): then it may be any.
    Source: PS3.4 C.4.2.1.5 to C.4.2.1.9.
    """
    what = meaning(status, MOVING)[0]
    count = integer(told, "NumberOfFailedSuboperations", 0)
    tried = count + integer(told, "NumberOfCompletedSuboperations", 0)
    tried += integer(told, "NumberOfWarningSuboperations", 0)
    if what not in (Meaning.DONE, Meaning.PARTLY) and not tried:
        raise fault(peer, service, status, MOVING, remedy)
    named = set(values(failed, "FailedSOPInstanceUIDList")) if failed else set()
    sentence = f"{peer}: {service} ended with 0x{status:04X}, {count} of {len(images)} could not be sent"
    whole = what is Meaning.DONE or (what is Meaning.PARTLY and not count)
    answers: Answers = []
    for image in images:
        if image.sop_instance_uid in named or not (whole or named):
            answers.append((image, PeerBusy(sentence)))
        else:
            answers.append((image, Receipt(accepted=True, status=StoreStatus.SUCCESS, detail="sent")))
    return answers


def _remedy(status: int, move_to: str) -> str:
    if meaning(status, MOVING)[0] is Meaning.REFUSED:
        return f"add {move_to} with this node's address and port to its list, or correct `move_to`"
    return ""
