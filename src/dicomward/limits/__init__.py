"""Rates and caps as arithmetic: how much of the gateway and of each archive one device, network or stranger may use.

Rules of this room: no clock (`now` is an argument, in monotonic seconds), no store, no lock (io adds one), no decision
about rights. Every number is in `settings.py` with its reason, and in docs/limits.md; none can be switched off.
"""
