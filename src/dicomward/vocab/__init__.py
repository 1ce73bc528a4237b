"""The standard's own words, and the two types that every room speaks: Principal and ReasonCode.

Rules of this room: values and grammar only; no behaviour beyond validation, no I/O.
"""
