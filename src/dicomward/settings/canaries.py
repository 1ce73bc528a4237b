"""`[[canaries]]`: records that nobody has a reason to fetch. Their values are kept out of every message of ours."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from dicomward.settings.kinds import nearest_of

CANARIES_KEY: Final = "canaries"
_VALUES: Final = ("patient_id", "accession_number", "study_instance_uid")
_KEYS: Final = ("name", *_VALUES)
_HINT: Final = 'write [[canaries]] with a name and patient_id = "…", accession_number = "…" or study_instance_uid = "…"'
# LO and SH have at most 64 characters, UIDs as many.
_MOST_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySettings:
    """One canary: what alarms call it, and the values that give it away."""

    name: str
    patient_ids: tuple[str, ...] = field(default=(), repr=False)
    accession_numbers: tuple[str, ...] = field(default=(), repr=False)
    study_instance_uids: tuple[str, ...] = field(default=(), repr=False)


def parse_canaries(value: object, problem: Callable[[str, str, str], None]) -> tuple[CanarySettings, ...]:
    """Read `[[canaries]]`; `problem` hears of key, message and hint. Values are never part of a message."""
    tables = value if isinstance(value, list) else [value]
    found: list[CanarySettings] = []
    for number, table in enumerate(tables):
        place = f"{CANARIES_KEY}[{number}]"
        if not isinstance(table, dict):
            problem(place, "this is not a table", _HINT)
            continue
        for key in table:
            if key not in _KEYS:
                problem(f"{place}.{key}", "there is no such setting", nearest_of(key, _KEYS))
        name = table.get("name", f"canary {number + 1}")
        if not isinstance(name, str) or not name or not name.isprintable() or len(name) > _MOST_CHARACTERS:
            problem(f"{place}.name", f"{name!r} is not a name", f"write 1 to {_MOST_CHARACTERS} printable characters")
            continue
        values = {key: _texts(table.get(key), f"{place}.{key}", problem) for key in _VALUES}
        if not any(key in table for key in _VALUES):
            problem(place, "nothing says which record the canary is", _HINT)
        if name in {text for texts in values.values() for text in texts}:
            problem(
                f"{place}.name", "the name is one of its own values, and names stand in logs", "choose another name"
            )
        if name in {each.name for each in found}:
            problem(f"{place}.name", f"the name {name!r} is there twice", "give each canary a name of its own")
        found.append(
            CanarySettings(
                name=name,
                patient_ids=values["patient_id"],
                accession_numbers=values["accession_number"],
                study_instance_uids=values["study_instance_uid"],
            )
        )
    return tuple(found)


def _texts(value: object, place: str, problem: Callable[[str, str, str], None]) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = value if isinstance(value, list) else [value]
    good = tuple(text.strip() for text in texts if isinstance(text, str) and 0 < len(text.strip()) <= _MOST_CHARACTERS)
    if not texts or len(good) != len(texts):
        problem(place, "this is no text, and no list of texts", f"write 1 to {_MOST_CHARACTERS} characters for each")
    return good
