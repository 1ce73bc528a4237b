"""The exceptions of the upper layer.

    UpperLayerError
    ├── RemoteProtocolError    the peer broke a rule: abort with `abort_reason`
    │   └── LimitExceeded      the peer asked for more than `Limits` gives
    └── LocalProtocolError     we asked for something that the standard forbids: our own mistake

Nothing else leaves the decoders and encoders; fuzz/ holds them to it.
"""

from dicomward.vocab.association import AbortReason


class UpperLayerError(Exception):
    """Base of all errors of this room."""


class RemoteProtocolError(UpperLayerError):
    """The peer broke a rule of the standard.

    `abort_reason` is the A-ABORT reason that the peer gets (PS3.8 §9.3.8), `clause` names the broken rule, `detail`
    is for the audit record and never for the peer.
    """

    def __init__(self, abort_reason: AbortReason, clause: str, detail: str) -> None:
        super().__init__(f"{detail} ({clause})")
        self.abort_reason = abort_reason
        self.clause = clause
        self.detail = detail


class LimitExceeded(RemoteProtocolError):
    """The peer asked for more than our limits give; `clause` names the limit."""


class LocalProtocolError(UpperLayerError):
    """We tried to send something that the standard forbids."""
