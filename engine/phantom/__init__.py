"""Own the public names of the phantom: invented chest radiographs of invented vendors. Knows no DICOM, file or clock.

No patient is in it: everything is drawn from a seed. It serves the demo and tests; it is not a source of evidence.
"""

from engine.phantom.anatomy import Anatomy
from engine.phantom.make import Phantom, make_phantom
from engine.phantom.vendors import VENDORS, Vendor

__all__ = ["VENDORS", "Anatomy", "Phantom", "Vendor", "make_phantom"]
