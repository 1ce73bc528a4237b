"""Enrolment: who may get a credential, what is issued, and when it may be renewed. docs/enrolment.md.

Rules of this room: values only. Time, keys, serial numbers and the store are in io; a refusal has a stable reason.
"""
