"""Dicomward: an authenticated, least-privilege door in front of any DICOM archive."""

__version__ = "0.1.0"
