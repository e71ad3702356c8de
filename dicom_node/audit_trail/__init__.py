"""Audit trail messages (PS3.15 A.5, A.6, A.7): what they say, how they travel, and where they wait meanwhile.

Here is what small processes need: notes. Messages, syslog and the spool are modules of their own, so that a receiver
loads none of them. Which event of the ledger makes which message is decided in `auditing`.
"""

from dicom_node.audit_trail.notes import FOLDER, Alerts, Notes, Presence

__all__ = ["FOLDER", "Alerts", "Notes", "Presence"]
