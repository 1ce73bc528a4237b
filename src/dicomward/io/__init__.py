"""Every byte in or out: sockets, TLS, files, databases, HTTP. Nothing here decides; the rooms below do.

One folder for each part of the product; what all of them use lies beside them.
"""
