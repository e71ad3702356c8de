"""The DICOM objects that the node makes. Sends and stores nothing."""
