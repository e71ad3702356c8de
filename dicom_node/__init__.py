"""The DICOM node: receives, routes, has images harmonized by the engine, delivers and reports. Owns the version."""

VERSION = "0.1.0"
