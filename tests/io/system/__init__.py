"""Tests of the calls of each operating system."""
