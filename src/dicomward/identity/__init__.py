"""Who is calling: certificate, network and AE title, bound to a registered device or archive.

Rules of this room: no decision about rights, no I/O, no clock (the time is an argument). What is not known is not
allowed: `identify_device`, `bind` and `identify_archive` raise `IdentityError` with a stable reason.
"""
