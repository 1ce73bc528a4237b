"""A capture file overheard: its TCP connections, the associations in them, the inventory of who was heard."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dicomward.dicom.overhear import Overhearing
from dicomward.identity.inventory import Act, Conversation, Inventory
from dicomward.io.capture.pcap import read_segments
from dicomward.io.capture.tcp_streams import Ends, Streams

# An A-ASSOCIATE-RQ, or the beginning of TLS: what a requestor says first.
_FIRST_BYTES = (0x01, 0x16)
_MOST_EARLY = 8


class _Tap:
    """Listens to one connection; whoever says first what a requestor says is the requestor."""

    def __init__(self, ends: Ends, heard: Callable[[Conversation], None], counts: Counter[str]) -> None:
        self._ends = ends
        self._heard = heard
        self._counts = counts
        self._requestor: tuple[str, int] | None = None
        self._early: list[tuple[tuple[str, int], bytes]] = []
        self._overhearing = Overhearing()

    def data(self, source: tuple[str, int], payload: bytes) -> None:
        """Hear the next bytes of a direction."""
        if self._requestor is None:
            # Captures swap packets: an answer may stand before its question.
            self._early.append((source, payload))
            if payload[0] not in _FIRST_BYTES:
                if len(self._early) > _MOST_EARLY:
                    self._early = []
                return
            self._requestor = source
            early, self._early = sorted(self._early, key=lambda each: each[0] != source), []
            for who, said in early:
                self._overhearing.data(who == source, said)
        else:
            self._overhearing.data(source == self._requestor, payload)

    def gap(self, source: tuple[str, int], count: int) -> None:
        """Hear that so many bytes are missing."""
        self._overhearing.gap(source == self._requestor, count)

    def over(self) -> None:
        """Tell what was heard, if it was DICOM or may have been."""
        heard = self._overhearing.heard
        if self._requestor is None or not self._overhearing.is_dicom:
            self._counts["connections that aren't DICOM, or were joined in the middle"] += 1
            return
        self._counts["TLS connections" if heard.is_tls else "associations"] += 1
        if heard.problem:
            self._counts[f"associations that couldn't be followed to the end ({heard.problem})"] += 1
        server = next(end for end in self._ends if end != self._requestor)
        self._heard(
            Conversation(
                client=self._requestor[0],
                server=server,
                calling_ae_title=heard.calling_ae_title,
                called_ae_title=heard.called_ae_title,
                is_tls=heard.is_tls,
                is_rejected=heard.is_rejected,
                acts={
                    Act(deed.operation, deed.sop_class_uid, deed.move_destination, deed.by_requestor): count
                    for deed, count in heard.deeds.items()
                },
                sop_classes=frozenset(heard.contexts.values()),
                transfer_syntaxes=frozenset(heard.transfer_syntaxes),
                user_identity=heard.user_identity,
            )
        )


def overhear(path: Path, inventory: Inventory) -> Counter[str]:
    """Add what a capture file holds to an inventory; return what was counted. Raises CaptureError, OSError."""
    counts: Counter[str] = Counter()
    streams = Streams(lambda ends: _Tap(ends, inventory.add, counts), counts)
    streams.read(read_segments(path, counts))
    return counts
