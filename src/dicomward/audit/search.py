"""Finding records: which ones a query means, and how people read them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from dicomward.audit.chain import Record, decode_record
from dicomward.audit.encode_json import MASK, MemberValue, RecordError, encode_canonical, escape_text
from dicomward.audit.fields import Classification, field_rule

_AE_TITLE_FIELDS: Final = ("calling_ae_title", "called_ae_title", "move_destination")
_TIME_START: Final = b',"time":"'
_MAX_LINE_CHARACTERS: Final = 8192
_BLANK: Final = re.compile(r"[\s\"=]")


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for; None is "any". Everything that is given must hold.

    `since` and `until` are times as the log writes them (`until` isn't included); `aet` is the calling, the called
    title or the move destination; `address` an IP address or a network; `text` a part of any value, in either case.
    """

    device: str | None = None
    archive: str | None = None
    reason: str | None = None
    code: str | None = None
    association: str | None = None
    operation: str | None = None
    aet: str | None = None
    address: str | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        _ = self.network  # an address that can't be read is an error now, not at the first record

    @cached_property
    def network(self) -> IPv4Network | IPv6Network | None:
        """The network of `address`; a single address is a network of one. Raises ValueError."""
        return None if self.address is None else ip_network(self.address, strict=False)

    @cached_property
    def needles(self) -> tuple[bytes, ...]:
        """Bytes that the line of every matching record has: what lets most lines be passed over unread."""
        exact = {
            "device": self.device,
            "archive": self.archive,
            "reason": self.reason,
            "code": self.code,
            "association": self.association,
            "operation": self.operation,
        }
        needles = [encode_canonical({name: value})[1:-1] for name, value in exact.items() if value is not None]
        if self.aet is not None:
            needles.append(encode_canonical({"": self.aet})[4:-1])
        return tuple(needles)

    def is_within(self, time: str | None) -> bool:
        """Say if the time is one that is looked for; an unknown one may be."""
        if time is None:
            return True
        return (self.since is None or time >= self.since) and (self.until is None or time < self.until)

    def matches(self, record: Record) -> bool:
        """Say if the record is one that is looked for."""
        members = record.members
        for name in ("device", "archive", "reason", "code", "association", "operation"):
            wanted = getattr(self, name)
            if wanted is not None and members.get(name) != wanted:
                return False
        if not self.is_within(record.time):
            return False
        if self.aet is not None and all(members.get(name) != self.aet for name in _AE_TITLE_FIELDS):
            return False
        if self.network is not None and not _is_in(members.get("address"), self.network):
            return False
        return self.text is None or self.text.casefold() in _texts_of(members.values()).casefold()


def _is_in(value: MemberValue | None, network: IPv4Network | IPv6Network) -> bool:
    """Say if the member is an IP address of the network; an address of the other family isn't."""
    try:
        return isinstance(value, str) and ip_address(value) in network
    except ValueError:
        return False


def _texts_of(values: Iterable[MemberValue]) -> str:
    """Return all values of a record as one text, a line for each."""
    return "\n".join(value if isinstance(value, str) else format_value(value) for value in values)


@dataclass(frozen=True, slots=True)
class Damaged:
    """A line that isn't a record: its number in its segment, from 1, and what is wrong with it."""

    line: int
    detail: str


def search_lines(query: Query, lines: Iterable[bytes]) -> Iterator[Record | Damaged]:
    """Return the matching records of one segment, and what isn't a record among the lines that could match.

    Lines come with their line feeds; one without is a record that is being written now: it is left out. Damage in a
    line that the query rules out by its bytes isn't seen here: that is what `verify_log` is for.
    """
    needles = query.needles
    has_times = query.since is not None or query.until is not None
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n") or not all(needle in line for needle in needles):
            continue
        if has_times and not query.is_within(_time_of(line)):
            continue
        try:
            record = decode_record(line[:-1])
        except RecordError as error:
            yield Damaged(number, str(error))
            continue
        if query.matches(record):
            yield record


def _time_of(line: bytes) -> str | None:
    """Return the time of a record without decoding the rest; None where it isn't found.

    A quotation mark within a JSON text has a backslash before it, so these bytes can only be the member itself.
    """
    start = line.find(_TIME_START)
    if start < 0:
        return None
    start += len(_TIME_START)
    return line[start : start + 27].decode("ascii", "replace")


def redact(record: Record) -> dict[str, MemberValue]:
    """Return the members with everything that isn't public masked: fit for a support ticket."""
    return {
        name: value if name == "code" or field_rule(name).classification is Classification.PUBLIC else MASK
        for name, value in record.members.items()
    }


def format_record(record: Record, members: dict[str, MemberValue]) -> str:
    """Write a record as one line for people: time, number, code, then `name=value` in the order of names."""
    # A log that somebody has written may have any name and any code.
    pairs = (f"{_quoted(name)}={_quoted(format_value(value))}" for name, value in members.items() if name != "code")
    return " ".join([record.time, str(record.seq), _quoted(str(members["code"])), *pairs])


def format_value(value: MemberValue) -> str:
    """Write one value for people."""
    if isinstance(value, list):
        return ",".join(each if isinstance(each, str) else ":".join(map(str, each)) for each in value)
    return str(value)


def _quoted(text: str) -> str:
    """Put quotes around a text with blanks, and let nothing out that a terminal would obey."""
    safe = escape_text(text, _MAX_LINE_CHARACTERS)
    return f'"{safe.replace(chr(34), chr(39))}"' if not safe or _BLANK.search(safe) else safe
