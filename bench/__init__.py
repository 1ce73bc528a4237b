"""Benchmarks against honest rivals, side by side on this machine; docs/performance.md says how they are measured."""
