"""C-GET in the Study Root: the archive sends on the association that asked, and each object is kept before it is
acknowledged. Source: PS3.4 C.4.3, C.5.3; PS3.7 D.3.3.4 (roles).

Knows no place where objects stay.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import _config, build_context, build_role, dimse_messages, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    StudyRootQueryRetrieveInformationModelGet,
)

from dicom_node.errors import EvenrayError, PeerBusy, PeerRefused
from dicom_node.marks import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.records import Receipt
from dicom_node.settings import QueryRetrieve
from dicom_node.sources.finding import MODEL as FIND
from dicom_node.sources.finding import SYNTAXES
from dicom_node.sources.moving import identifier, last_word
from dicom_node.sources.query import FoundImage, Keep, Received
from dicom_node.sources.statuses import GETTING, Meaning, meaning
from dicom_node.sources.talk import MESSAGE_ID, Talk
from dicom_node.status import Next, StoreStatus, after_store
from dicom_node.syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, STORABLE

MODEL = str(StudyRootQueryRetrieveInformationModelGet)
NATIVE = [EXPLICIT_LITTLE, IMPLICIT_LITTLE, EXPLICIT_BIG]
"""One context: an archive may rewrite these into each other without touching a pixel."""
UNCHANGED = [syntax for syntax in STORABLE if syntax not in NATIVE]
"""A context each: with one for all, the archive would choose one, and send only what is or can be made so."""
CLASSES_AT_ONCE = (128 - 2) // (1 + len(UNCHANGED))
"""SOP classes for which there is room in one association. Source: PS3.8 9.3.2.2 (128 contexts)."""
USUAL = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    Comprehensive3DSRStorage,
)
"""Proposed for objects whose class the archive does not tell."""


class NotOffered(PeerRefused):
    """The archive has no C-GET, or does not take us as a storage SCP on its association."""


@dataclass
class _Desk:
    """What comes in during one C-GET."""

    wanted: dict[str, FoundImage]
    keep: Keep
    talk: Talk | None = None
    kept: dict[str, int] = field(default_factory=dict)
    """SOP Instance UID to the status that the archive was told."""
    told: set[str] = field(default_factory=set)

    def store(self, event: evt.Event) -> int:
        """Answer one sub-operation: Success only for what is kept. What was not asked for is not taken."""
        received = received_in(event)
        try:
            uid = received.sop_instance_uid
            if uid not in self.wanted:
                return StoreStatus.NOT_AUTHORIZED
            if self.kept.get(uid) != StoreStatus.SUCCESS and self.talk:
                with self.talk.ours():
                    self.kept[uid] = self.keep(received)
            return self.kept.get(uid, StoreStatus.PROCESSING_FAILURE)
        finally:
            received.path.unlink(missing_ok=True)

    def news(self) -> Iterator[tuple[FoundImage, Receipt | EvenrayError]]:
        """What has been kept, or not, since the last call."""
        for uid, status in list(self.kept.items()):
            if uid not in self.told:
                self.told.add(uid)
                yield self.wanted[uid], _answer(uid, status)


def get(
    archive: QueryRetrieve, calling_ae: str, images: Sequence[FoundImage], keep: Keep, beat: Callable[[], None]
) -> Iterator[tuple[FoundImage, Receipt | EvenrayError]]:
    """The answer for each image, as soon as it is known.

    Raises NotOffered before anything was fetched, PeerUnreachable, PeerBusy, PeerRefused.
    """
    for some in _groups(images):
        yield from _get(archive, calling_ae, some, keep, beat)


def contexts_for(images: Sequence[FoundImage]) -> list[PresentationContext]:
    """The model, C-FIND (so that an archive without C-GET still takes the association), and what the objects need."""
    made = [build_context(MODEL, SYNTAXES), build_context(FIND, SYNTAXES)]
    for sop_class in _classes(images):
        made += [build_context(sop_class, NATIVE), *(build_context(sop_class, syntax) for syntax in UNCHANGED)]
    return made


def _get(
    archive: QueryRetrieve, calling_ae: str, images: Sequence[FoundImage], keep: Keep, beat: Callable[[], None]
) -> Iterator[tuple[FoundImage, Receipt | EvenrayError]]:
    asked = identifier(images)
    desk = _Desk({one.sop_instance_uid: one for one in images}, keep)
    talk = desk.talk = Talk(
        archive,
        calling_ae=calling_ae,
        contexts=contexts_for(images),
        beat=beat,
        handlers=[(evt.EVT_C_STORE, desk.store)],
        roles=[build_role(sop_class, scp_role=True) for sop_class in _classes(images)],
    )
    with tempfile.TemporaryDirectory(prefix="evenray-") as folder, to_files(Path(folder)), talk:
        association = talk.link.association
        _offered(talk)
        send = lambda: association.send_c_get(asked, MODEL, MESSAGE_ID)  # noqa: E731
        with closing(talk.responses("C-GET", MODEL, GETTING, send)) as responses:
            for status, told, failed in responses:
                yield from desk.news()
                what = meaning(status, GETTING)[0]
                if what is Meaning.NOT_OFFERED:
                    raise NotOffered(f"{talk.peer}: answered C-GET with 0x{status:04X}: it does not offer it")
                if what is not Meaning.PENDING:
                    left = [one for one in images if one.sop_instance_uid not in desk.told]
                    for image, answer in last_word(talk.peer, "C-GET", left, status, told, failed) if left else ():
                        yield image, _not_come(talk.peer, status) if isinstance(answer, Receipt) else answer


def _offered(talk: Talk) -> None:
    """Raises NotOffered where the archive did not accept the model, or us as the SCP of any class."""
    accepted = talk.link.association.accepted_contexts
    if not any(context.abstract_syntax == MODEL and context.as_scu for context in accepted):
        raise NotOffered(f"{talk.peer}: does not offer C-GET")
    if not any(context.as_scp for context in accepted):
        raise NotOffered(f"{talk.peer}: offers C-GET, but does not let us receive on its association")


def _answer(uid: str, status: int) -> Receipt | EvenrayError:
    """What our own status to the archive means for the image."""
    step, words = after_store(status)
    if step is Next.DONE:
        return Receipt(accepted=True, status=status, detail=words)
    kind = PeerBusy if step is Next.RETRY else PeerRefused
    return kind(f"{uid}: came, but was not kept (0x{status:04X}, {words})")


def _not_come(peer: str, status: int) -> EvenrayError:
    return PeerBusy(f"{peer}: ended C-GET with 0x{status:04X} without sending it")


def _classes(images: Sequence[FoundImage]) -> list[str]:
    known = {one.sop_class_uid for one in images if one.sop_class_uid}
    return sorted(known | ({str(one) for one in USUAL} if any(not one.sop_class_uid for one in images) else set()))


def _groups(images: Sequence[FoundImage]) -> Iterator[list[FoundImage]]:
    """The images in runs whose SOP classes fit one association."""
    group: list[FoundImage] = []
    for image in images:
        if group and len(_classes([*group, image])) > CLASSES_AT_ONCE:
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def received_in(event: evt.Event) -> Received:
    """What a C-STORE request brought, while `to_files` holds."""
    request = cast(C_STORE, event.request)
    return Received(
        path=Path(event.dataset_path),
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
    )


@contextmanager
def to_files(folder: Path) -> Iterator[None]:
    """Have the library write data sets to files of this folder, byte for byte, so that memory stays flat.

    Its switches are process-wide, so they hold only as long as something is fetched.
    """
    with ExitStack() as opened:

        def make(**options: Any) -> Any:
            # The library closes none of them, and one that is open holds its room on the disk after it was removed.
            opened.close()
            return opened.enter_context(NamedTemporaryFile(**options, dir=folder))

        meta = partial(
            create_file_meta,
            implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
            implementation_version=IMPLEMENTATION_VERSION,
        )
        switches = (
            (_config, "STORE_RECV_CHUNKED_DATASET", True),
            (dimse_messages, "NamedTemporaryFile", make),
            (dimse_messages, "create_file_meta", meta),
        )
        before = [getattr(module, name) for module, name, _ in switches]
        for module, name, value in switches:
            setattr(module, name, value)
        try:
            yield
        finally:
            for (module, name, _), was in zip(switches, before, strict=True):
                setattr(module, name, was)
