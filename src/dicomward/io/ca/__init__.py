"""The certificate authority: its keys, what it has issued, CRLs."""
