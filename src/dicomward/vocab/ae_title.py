"""AE titles: PS3.5 §6.2 (VR AE) and PS3.8 §9.3.2.

An AE title is kept as `str`, without its padding; equality is case-sensitive.
"""

AE_TITLE_BYTES = 16


class AeTitleError(ValueError):
    """The text is not an AE title; the message says why."""


def parse_ae_title(text: str) -> str:
    """Return the significant part of an AE title, 1 to 16 characters of ISO 646 without backslash and controls.

    Leading and trailing spaces are not significant (PS3.5 §6.2). Raises AeTitleError.
    """
    title = text.strip(" ")
    if not title:
        raise AeTitleError("an AE title must not be empty or all spaces")
    if len(title) > AE_TITLE_BYTES:
        raise AeTitleError(f"an AE title has at most {AE_TITLE_BYTES} characters, this one has {len(title)}")
    if any(not " " <= c <= "~" or c == "\\" for c in title):
        raise AeTitleError("an AE title has printable ASCII characters only, and no backslash")
    return title


def decode_ae_title(field: bytes) -> str:
    """Read an AE title from its padded field.

    Trailing NULs are a padding that some old devices use, so they pass. Raises AeTitleError.
    """
    try:
        text = field.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError as error:
        raise AeTitleError("an AE title has printable ASCII characters only") from error
    return parse_ae_title(text)


def encode_ae_title(title: str) -> bytes:
    """Return the 16-byte, space-padded field of the upper layer (PS3.8 §9.3.2)."""
    return title.encode("ascii").ljust(AE_TITLE_BYTES)
