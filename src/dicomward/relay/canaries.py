"""Canary patients: records that nobody has a reason to fetch, so whoever gets one is looked at."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dicomward.relay.identifiers import ACCESSION_NUMBER, PATIENT_ID, STUDY_INSTANCE_UID

_TAGS: Final = (ACCESSION_NUMBER, PATIENT_ID, STUDY_INSTANCE_UID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One canary: the name that alarms call it by, and the values that give it away."""

    name: str
    patient_ids: tuple[str, ...] = ()
    accession_numbers: tuple[str, ...] = ()
    study_instance_uids: tuple[str, ...] = ()


class Canaries:
    """All canaries of a gateway, by value. Neither text nor `repr` shows a value."""

    __slots__ = ("_names",)

    def __init__(self, canaries: Iterable[Canary] = ()) -> None:
        self._names: dict[tuple[int, bytes], str] = {}
        for canary in canaries:
            for tag, values in (
                (ACCESSION_NUMBER, canary.accession_numbers),
                (PATIENT_ID, canary.patient_ids),
                (STUDY_INSTANCE_UID, canary.study_instance_uids),
            ):
                for value in values:
                    # The character set of a match isn't known to be UTF-8; where they differ, both are looked for.
                    for codec in ("utf-8", "latin-1"):
                        self._names[tag, value.encode(codec, "replace")] = canary.name

    def found(self, values: Mapping[int, bytes | None]) -> str | None:
        """Return the name of the canary that a match or the head of an instance holds, if it holds one."""
        if not self._names:
            return None
        for tag in _TAGS:
            if (value := values.get(tag)) and (name := self._names.get((tag, value.strip(b"\0 ")))) is not None:
                return name
        return None
