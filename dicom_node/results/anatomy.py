"""Which part, side and view an image shows, in the codes that its class asks for. Knows no pixels.

Only what the original says is told; where a class needs what it does not say, there is nothing to tell.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.results.concepts import PRIVATE, Concept
from dicom_node.results.copying import Copier, repaired
from dicom_node.tolerant import text

# Source: PS3.16 table L-1, the parts marked as unpaired.
UNPAIRED = frozenset(  # a text, because sixty quoted words would hide the list
    """ABDOMEN ABDOMENPELVIS AORTA BACK BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS
    CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS FACE GALLBLADDER HEAD HEADNECK HEART
    ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NOSE PANCREAS PELVIS
    PENIS PHARYNX PROSTATE RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE
    TRACHEA TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY""".split()  # noqa: SIM905
)
# Source: PS3.16 table L-1: what radiography shows, Body Part Examined to SNOMED CT. THORAX is Agfa's and Philips's.
REGIONS = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "ACJOINT": ("85856004", "Acromioclavicular joint"),
    "ANKLE": ("70258002", "Ankle joint"),
    "BREAST": ("76752008", "Breast"),
    "CALCANEUS": ("80144004", "Calcaneus"),
    "CHEST": ("816094009", "Chest"),
    "CLAVICLE": ("51299004", "Clavicle"),
    "COCCYX": ("64688005", "Coccyx"),
    "CSPINE": ("122494005", "Cervical spine"),
    "CTSPINE": ("1217257000", "Cervico-thoracic spine"),
    "ELBOW": ("16953009", "Elbow joint"),
    "EXTREMITY": ("66019005", "Extremity"),
    "FACE": ("89545001", "Face"),
    "FEMUR": ("71341001", "Femur"),
    "FINGER": ("7569003", "Finger"),
    "FOOT": ("56459004", "Foot"),
    "FOREARM": ("14975008", "Forearm"),
    "HAND": ("85562004", "Hand"),
    "HEAD": ("69536005", "Head"),
    "HIP": ("24136001", "Hip joint"),
    "HUMERUS": ("85050009", "Humerus"),
    "JAW": ("661005", "Jaw region"),
    "KNEE": ("72696002", "Knee"),
    "LOWERLEG": ("30021000", "Lower leg"),
    "LSPINE": ("122496007", "Lumbar spine"),
    "LSSPINE": ("1217253001", "Lumbo-sacral spine"),
    "MANDIBLE": ("91609006", "Mandible"),
    "MAXILLA": ("70925003", "Maxilla"),
    "NECK": ("45048000", "Neck"),
    "NOSE": ("45206002", "Nose"),
    "ORBIT": ("363654007", "Orbital structure"),
    "PATELLA": ("64234005", "Patella"),
    "PELVIS": ("816092008", "Pelvis"),
    "RIB": ("113197003", "Rib"),
    "SCAPULA": ("79601000", "Scapula"),
    "SHOULDER": ("16982005", "Shoulder"),
    "SIJOINT": ("39723000", "Sacroiliac joint"),
    "SKULL": ("89546000", "Skull"),
    "SPINE": ("421060004", "Spine"),
    "SSPINE": ("54735007", "Sacrum"),
    "STERNUM": ("56873002", "Sternum"),
    "THIGH": ("68367000", "Thigh"),
    "THORAX": ("816094009", "Chest"),
    "THUMB": ("76505004", "Thumb"),
    "TIBIAFIBULA": ("110536004", "Tibia and fibula"),
    "TLSPINE": ("1217256009", "Thoraco-lumbar spine"),
    "TMJ": ("53620006", "Temporomandibular joint"),
    "TOE": ("29707007", "Toe"),
    "TSPINE": ("122495006", "Thoracic spine"),
    "UPPERARM": ("40983000", "Upper arm"),
    "WHOLEBODY": ("38266002", "Entire body"),
    "WRIST": ("74670003", "Wrist joint"),
    "ZYGOMA": ("13881006", "Zygoma"),
}
# Source: PS3.3 C.8.11.7 (View Position in mammography is an abbreviation of CID 4014), PS3.16 CID 4014.
BREAST_VIEWS = {
    "CC": Concept("399162004", "SCT", "cranio-caudal"),
    "MLO": Concept("399368009", "SCT", "medio-lateral oblique"),
    "ML": Concept("399260004", "SCT", "medio-lateral"),
    "LM": Concept("399352003", "SCT", "latero-medial"),
    "LMO": Concept("399099002", "SCT", "latero-medial oblique"),
    "XCCL": Concept("399192008", "SCT", "cranio-caudal exaggerated laterally"),
    "XCCM": Concept("399101009", "SCT", "cranio-caudal exaggerated medially"),
    "FB": Concept("399196006", "SCT", "caudo-cranial (from below)"),
    "SIO": Concept("399188001", "SCT", "superolateral to inferomedial oblique"),
}
BREAST = Concept("76752008", "SCT", "Breast")


def put_laterality(image: Dataset, copier: Copier) -> None:
    """Image Laterality, else Laterality. Source: PS3.3 C.7.3.1 (2C: where the body part is paired).

    Where the side is not stated, empty says "not known"; it must be absent where there is only one of the part, and a
    side that is stated all the same is then the image's.
    """
    copier.copy(image, ("ImageLaterality",))
    if "ImageLaterality" in image:
        if "Laterality" in image:
            del image.Laterality
        return
    copier.copy(image, ("Laterality",))
    if text(image, "BodyPartExamined") not in UNPAIRED:
        image.Laterality = text(image, "Laterality") or None
    elif "Laterality" in image:
        image.ImageLaterality = image.Laterality
        del image.Laterality


def side(original: Dataset) -> str:
    """Image Laterality as the digital X-ray classes ask for it, "" where it is not certain.

    Source: PS3.3 C.8.11.2 (Type 1; U is unpaired), C.7.3.1 (Laterality is the series').
    """
    for keyword, allowed in (("ImageLaterality", "RLBU"), ("Laterality", "RL")):
        stated = text(original, keyword).upper()
        if stated and stated in tuple(allowed):
            return stated
    return "U" if text(original, "BodyPartExamined").upper() in UNPAIRED | {"THORAX"} else ""


def region(image: Dataset) -> Concept | None:
    """The anatomic region by Body Part Examined, None where it is not stated.

    A word of the site's own becomes a private code of itself. Source: PS3.3 C.8.11.2 (empty only where not known).
    """
    # Only a valid word: a code can't hold any other, and no report may fail over one.
    stated = repaired("BodyPartExamined", text(image, "BodyPartExamined")) or ""
    value, meaning = REGIONS.get(stated, (stated, stated))
    return Concept(value, "SCT" if stated in REGIONS else PRIVATE, meaning) if stated else None


def breast_view(original: Dataset) -> Concept | None:
    """The view of a mammogram by View Position, None where that says none of CID 4014."""
    return BREAST_VIEWS.get(text(original, "ViewPosition").upper())
