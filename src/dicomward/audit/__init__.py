"""What happened, as typed events; their JSON lines, hash chain, checkpoints, search and verification.

Rules of this room: values and arithmetic only. Time, keys, files and threads are in `dicomward.io.audit.log`.
"""
