"""`python -m dicom_node` is the command `evenray`, or a receiver where the supervisor gives it a socket."""

import sys


def main() -> None:
    """Run what the words of the command line ask for."""
    if "--socket" in sys.argv:
        from dicom_node.receiver import main as run  # noqa: PLC0415 - one of the two is loaded
    else:
        from dicom_node.cli import main as run  # noqa: PLC0415
    run()


if __name__ == "__main__":
    main()
