"""The known name that is nearest to a wrong one, for hints after a typing error."""

from collections.abc import Iterable


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like `name`, or the only one that begins with it, whatever the case.

    None if none is alike.
    """
    # difflib is slow to import, and only a mistake needs it.
    from difflib import get_close_matches

    by_folded: dict[str, str] = {}
    for each in known:
        by_folded.setdefault(each.casefold(), each)
    folded = name.casefold()
    longer = [each for each in by_folded if folded and each.startswith(folded)]
    close = get_close_matches(folded, by_folded, n=1) or (longer if len(longer) == 1 else [])
    return by_folded[close[0]] if close else None
