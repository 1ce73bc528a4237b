"""A simulated internet of DICOM servers on loopback, made from a seed and a manifest. It proves the assessment."""
