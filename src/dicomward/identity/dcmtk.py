"""The registry as DCMTK's dcmqrscp wants it: the HostTable of dcmqrscp.cfg."""

import re
from collections.abc import Iterable
from typing import Final

from dicomward.identity.registry import Device, Endpoint

_NOT_IN_SYMBOLS: Final = re.compile(r"[^a-z0-9_]")


def write_dcmtk(devices: Iterable[Device], gateway: Endpoint) -> str:
    """Return the HostTable that has dcmqrscp reach every device at the gateway's archive side."""
    lines: list[str] = []
    symbols: list[str] = []
    notes: list[str] = []
    for device in devices:
        for title in device.ae_titles:
            if "," in title or "(" in title or ")" in title or " " in title:
                notes.append(f"# {title!r} of {device.name} is left out: dcmqrscp.cfg can't hold this AE title")
                continue
            symbol = _symbol(f"{device.name}_{title}", symbols)
            symbols.append(symbol)
            lines.append(f"{symbol} = ({title}, {gateway.host}, {gateway.port})")
    return "\n".join(
        (
            "# For dcmqrscp.cfg. Every device is reached at the gateway's archive side.",
            *notes,
            "HostTable BEGIN",
            *lines,
            *([f"dicomward = {', '.join(symbols)}"] if symbols else []),
            "HostTable END",
            "# In the AETable, let only these in, in the place of ANY: TITLE DIRECTORY RW (500, 1024mb) dicomward",
            "# Start dcmqrscp with --disable-host-lookup where hosts are addresses here, or it compares names.",
            "",
        )
    )


def _symbol(name: str, taken: list[str]) -> str:
    symbol = "d_" + _NOT_IN_SYMBOLS.sub("_", name.lower())
    unique, number = symbol, 2
    while unique in taken:
        unique = f"{symbol}_{number}"
        number += 1
    return unique
