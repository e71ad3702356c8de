"""`make validate`: every class of object from every image before the validators that others wrote."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests import dicom_files, made
from tests.peers import ENVIRONMENT
from tests.validate import report
from tests.validate.objects import Maker
from tests.validate.run import real_images, validate
from tests.validate.validators import PROGRAMS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, default=dicom_files.DATA, help="a folder of DICOM images")
    parser.add_argument("--out", type=Path, help="where the result is kept")
    given = parser.parse_args()
    missing = [name for name in PROGRAMS if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    if missing:
        print(f"validate: {', '.join(missing)} not installed: run `make peers`", file=sys.stderr)
        return 2
    warnings.simplefilter("ignore", UserWarning)  # invalid values are what many of the images are about
    start = time.monotonic()
    real = real_images(given.images, short=False) if given.images.is_dir() else {}
    with tempfile.TemporaryDirectory(prefix="evenray-validate-") as folder:
        place = Path(folder)
        maker = Maker(place / "objects")
        files = {**made.write(place / "images"), **real}
        results = [maker.make(name, path) for name, path in files.items()]
        table = validate(results, every_shape=True)
    said = report.lines(results, table)
    place_of = "../shared/data/dicom" if given.images == dicom_files.DATA else str(given.images)
    found = f"{len(real)} real images of {place_of}" if real else f"no real images: there are none in {place_of}"
    said = [f"{len(files) - len(real)} images made for this, {found}", *said]
    said.append(f"{time.monotonic() - start:.0f} s")
    print("\n".join(said))
    if given.out:
        given.out.write_text("\n".join(said) + "\n")
    return 0 if report.met(results, table) else 1


if __name__ == "__main__":
    sys.exit(main())
