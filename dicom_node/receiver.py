"""The entry point of a receiver process, which the supervisor starts. Small: without the command line's library."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dicom_node import steps
from dicom_node.commands.serve import Receiver, serve
from dicom_node.errors import EvenrayError
from dicom_node.exits import Exit


def main() -> None:
    """Run as the words of the command line say."""
    words = argparse.ArgumentParser(prog="evenray serve listen", add_help=False, allow_abbrev=False)
    words.add_argument("command", choices=["serve"])
    words.add_argument("role", choices=["listen"])
    words.add_argument("--supervised", action="store_true")
    words.add_argument("--socket", type=int, required=True)
    words.add_argument("--receiver", type=int, default=0)
    words.add_argument("--receivers", type=int, default=1)
    words.add_argument("--config", type=Path)
    words.add_argument("--state-dir", type=Path)
    given = words.parse_args()
    receiver = Receiver(given.socket, given.receiver, given.receivers)
    try:
        steps.arm(os.environ)
        code = serve(given.role, given.config, given.state_dir, supervised=given.supervised, receiver=receiver)
    except EvenrayError as fault:
        sys.stderr.write(f"evenray: {fault}\n")
        code = Exit.USAGE
    sys.exit(code)
