"""What each command of `evenray` does. One command a file; `dicom_node.cli` only parses and calls them."""
