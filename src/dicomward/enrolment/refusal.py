"""Why no credential is issued: a stable reason for the audit, and the whole story beside it, never for the peer."""

from dicomward.vocab.reason import ReasonCode


class EnrolmentRefusedError(Exception):
    """Nothing is issued: `reason` is the stable code, `detail` is for the audit and operators only."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
