"""Own the numbers of one invented chest: sizes, positions and counts, all from a seed. Knows no pixels and no beam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

View = Literal["PA", "AP"]

ANATOMY_STREAM = 1
"""First word of the anatomy's random stream, so that noise drawn from the same seed never repeats it."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One person in front of the detector. Lengths in cm in the patient's plane, angles in radians.

    x grows to the right of the picture (the patient's left), y downwards; (0, 0) is the middle of the upper edge of
    the field. Ranges are design choices around adult proportions; none is a measured population.
    """

    seed: int
    view: View
    midline: float
    """x of the patient's middle."""
    apex: float
    """y of the lung apices."""
    lung_height: float
    """Apex to the top of the right hemidiaphragm."""
    lung_half_width: float
    """Inner half width of the rib cage where it is widest; twice this is the thoracic diameter."""
    lung_half_depth: float
    shoulder_power: float
    """Exponent of the upper lateral lung border: low is square-shouldered, high is bell-shaped."""
    wall: float
    """Thickness of the lateral chest wall."""
    fat: float
    """Subcutaneous fat, part of the wall."""
    cardiothoracic_ratio: float
    heart_tilt: float
    knob_radius: float
    """Aortic knob."""
    dome_step: float
    """How much lower the left hemidiaphragm stands than the right."""
    dome_fall: float
    """Fall of a dome from its top to the lateral wall: depth of the costophrenic angle."""
    rib_pairs: int
    rib_drop: float
    """Factor of every rib's fall from back to front; about 1."""
    rib_half_height: float
    spine_bend: float
    """Amplitude of the scoliosis, cm."""
    spine_phase: float
    clavicle_lift: float
    """How far the lateral end stands above the medial end."""
    scapula_shift: float
    """How far the scapulae are rolled out of the lungs; small in AP."""
    breast: float
    """Depth of the breast shadows, 0 for none."""
    breast_y: float
    gas_bubble: float
    """Half width of the gastric bubble."""
    vessel_weight: float
    """Factor of the calibre of the pulmonary vessels."""
    collimation: tuple[float, float, float, float]
    """Inset of the left, right, top and bottom collimator blades from the field's edge; negative lies outside."""
    collimation_angle: float
    marker: Literal["L", "R", ""]
    marker_tilt: float

    @classmethod
    def drawn(cls, seed: int) -> Anatomy:
        """The anatomy of `seed` (any int >= 0); the same seed gives the same numbers on every machine."""
        rng = np.random.default_rng([ANATOMY_STREAM, seed])
        u = rng.uniform
        supine = rng.random() < 0.25
        build = u(-1.0, 1.0)  # slim to stout: several sizes go together
        return cls(
            seed=seed,
            view="AP" if supine else "PA",
            midline=u(-0.8, 0.8),
            apex=u(5.8, 8.0),
            lung_height=(20.0 if supine else 22.0) - 0.8 * build + u(-1.4, 1.4),
            lung_half_width=13.4 + 0.7 * build + u(-0.8, 0.8),
            lung_half_depth=8.6 + 0.6 * build + u(-0.5, 0.5),
            shoulder_power=u(2.0, 3.2),
            wall=2.9 + 0.8 * build + u(-0.2, 0.2),
            fat=1.0 + 0.6 * build + u(0.0, 0.3),
            cardiothoracic_ratio=0.455 + 0.02 * build + (0.055 if supine else 0.0) + u(-0.045, 0.045),
            heart_tilt=u(0.5, 0.8) - 0.08 * build,
            knob_radius=u(1.5, 2.1),
            dome_step=u(0.8, 1.9),
            dome_fall=u(4.0, 5.6),
            rib_pairs=int(rng.choice([11, 12, 12, 12])),
            rib_drop=u(0.85, 1.2),
            rib_half_height=u(0.50, 0.62),
            spine_bend=u(-0.6, 0.6),
            spine_phase=u(0.0, 3.0),
            clavicle_lift=u(1.2, 3.4),
            scapula_shift=u(-0.3, 0.5) if supine else u(0.8, 2.0),
            breast=u(1.8, 3.6) if rng.random() < 0.45 else 0.0,
            breast_y=u(0.66, 0.84),
            gas_bubble=u(0.8, 2.6),
            vessel_weight=u(1.15, 1.55),
            collimation=(_inset(rng), _inset(rng), _inset(rng), _inset(rng)),
            collimation_angle=u(-0.02, 0.02),
            marker=("L", "L", "R", "")[int(rng.integers(4))],
            marker_tilt=u(-0.25, 0.25),
        )


def _inset(rng: np.random.Generator) -> float:
    """One collimator blade: mostly outside the picture."""
    return float(rng.uniform(0.25, 1.1)) if rng.random() < 0.35 else -1.0
