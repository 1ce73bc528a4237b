"""Which hosts are meant, from what other tools have written: lists, nmap, masscan, LDIF, Orthanc configurations.

Rules of this file: nothing here widens the scope; whoever calls asks the scope for each address. XML is read as text
with a pattern for what nmap writes, so that no entity and no external file can be named in it.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from ipaddress import ip_address, ip_network
from typing import Any, Final

from dicomward.assess.scope import MOST_ADDRESSES
from dicomward.identity.dcm4chee import Dcm4cheeError, read_dcm4chee
from dicomward.identity.draft import Draft
from dicomward.identity.ldif import LdifError
from dicomward.identity.orthanc import OrthancError, read_orthanc, strip_comments


class TargetsError(ValueError):
    """The file is nothing that targets can be read from; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host: an address or a name, the ports that are known of it (none: those of the scope), and AE titles."""

    host: str
    ports: tuple[int, ...] = ()
    called_ae_titles: tuple[str, ...] = ()


_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?\Z")
_NMAP_HOST: Final = re.compile(r"<host[\s>].*?</host>", re.DOTALL)
_NMAP_ADDRESS: Final = re.compile(r'<address\s[^>]*?addr="([^"]+)"[^>]*?addrtype="ipv[46]"')
_NMAP_PORT: Final = re.compile(
    r'<port\s[^>]*?protocol="tcp"[^>]*?portid="(\d+)"[^>]*>\s*<state\s[^>]*?state="(open[^"]*)"', re.DOTALL
)
_GREPABLE: Final = re.compile(r"^Host:\s+(\S+)\s.*?Ports:\s+([^\t\n]*)", re.MULTILINE)
_MASSCAN_LINE: Final = re.compile(r"^open\s+tcp\s+(\d+)\s+(\S+)", re.MULTILINE)
_MASSCAN_GREP: Final = re.compile(r"^(?:Timestamp:\s+\d+\s+)?Host:\s+(\S+)\s.*?Ports:\s+([^\t\n]*)", re.MULTILINE)


def read_targets(text: str, name: str) -> list[Target]:
    """Return the hosts in a file whose kind is seen from its content. Raises TargetsError."""
    start = text.lstrip("\ufeff \t\r\n")
    if not start:
        raise TargetsError(f"{name} is empty")
    if start.startswith("<") or "<nmaprun" in start[:4096]:
        found: Iterable[Target] = _nmap_xml(text, name)
    elif _is_json(start):
        found = _json_targets(text, name)
    elif re.search(r"^dn::?\s", text, re.MULTILINE):
        found = _from_draft(lambda: read_dcm4chee([(name, text)]))
    elif _MASSCAN_LINE.search(text):
        found = (Target(host=host, ports=(int(port),)) for port, host in _MASSCAN_LINE.findall(text))
    elif re.search(r"^(#\s*Nmap|#Masscan|Timestamp:|Host:\s)", text, re.MULTILINE) and "Host:" in text:
        found = _grepable(text)
    elif re.match(r"#\s*(Nmap|Masscan)", start):
        found = ()
    else:
        found = _plain(text, name)
    return _merged(found)


def _is_json(start: str) -> bool:
    # A list may begin with [2001:db8::1]:104.
    return start.startswith(("//", "/*", "{")) or (start[0] == "[" and not re.match(r"\[[0-9A-Fa-f:.%]+\]", start))


def _merged(found: Iterable[Target]) -> list[Target]:
    """Return each host once. One that came without a port gets none: the scope's are meant."""
    ports: dict[str, dict[int, None]] = {}
    titles: dict[str, dict[str, None]] = {}
    for each in found:
        ports.setdefault(each.host, {}).update(dict.fromkeys(each.ports))
        titles.setdefault(each.host, {}).update(dict.fromkeys(each.called_ae_titles))
    return [Target(host=host, ports=tuple(ports[host]), called_ae_titles=tuple(titles[host])) for host in ports]


def _nmap_xml(text: str, name: str) -> Iterator[Target]:
    if "<nmaprun" not in text:
        raise TargetsError(f"{name} is XML, but not that of nmap or masscan (-oX)")
    for host in _NMAP_HOST.findall(text):
        address = _NMAP_ADDRESS.search(host)
        ports = tuple(int(port) for port, state in _NMAP_PORT.findall(host) if state == "open")
        if address and ports:
            yield Target(host=unescape(address[1]), ports=ports)


def _grepable(text: str) -> Iterator[Target]:
    for host, rest in _GREPABLE.findall(text) + _MASSCAN_GREP.findall(text):
        ports = tuple(int(port) for port in re.findall(r"(?:^|,)\s*(\d+)/open/tcp", rest))
        if ports:
            yield Target(host=host, ports=ports)


def _json_targets(text: str, name: str) -> Iterator[Target]:
    try:
        # masscan leaves a comma after its last entry.
        value = json.loads(re.sub(r",(\s*\])", r"\1", strip_comments(text)))
    except json.JSONDecodeError as error:
        lines = [line.strip().rstrip(",") for line in text.splitlines()]
        try:
            value = [json.loads(line) for line in lines if line.startswith("{")]
        except json.JSONDecodeError:
            value = []
        if not value:
            raise TargetsError(f"{name} is no JSON that can be read: {error}") from error
    if isinstance(value, Mapping) and "ip" not in value:
        yield from _from_draft(lambda: read_orthanc([(name, text)]))
        return
    for entry in [value] if isinstance(value, Mapping) else value:
        if isinstance(entry, str):
            yield from _plain(entry, name)
        elif isinstance(entry, Mapping) and isinstance(entry.get("ip"), str):
            yield Target(host=entry["ip"], ports=tuple(_masscan_ports(entry)))
        elif not (isinstance(entry, Mapping) and "finished" in entry):
            raise TargetsError(f"{name} is JSON, but neither that of masscan (-oJ) nor an Orthanc configuration")


def _masscan_ports(entry: Mapping[str, Any]) -> Iterator[int]:
    for each in entry.get("ports", ()):
        port = each.get("port") if isinstance(each, Mapping) else each
        if isinstance(port, int) and 1 <= port <= 0xFFFF and (not isinstance(each, Mapping) or _is_open(each)):
            yield port


def _is_open(port: Mapping[str, Any]) -> bool:
    return bool(port.get("proto", "tcp") == "tcp" and port.get("status", "open") == "open")


def _from_draft(read: Any) -> Iterator[Target]:
    try:
        draft: Draft = read()
    except (Dcm4cheeError, LdifError, OrthancError) as error:
        raise TargetsError(str(error)) from error
    for archive in draft.archives:
        titles = (archive.ae_title, *archive.called_ae_titles)
        yield Target(host=archive.address.host, ports=(archive.address.port,), called_ae_titles=titles)
    for device in draft.devices:
        if device.address is not None:
            host, port = device.address.host, device.address.port
            yield Target(host=host, ports=(port,), called_ae_titles=device.ae_titles)


def _plain(text: str, name: str) -> Iterator[Target]:
    """Read a list: one address, name, ADDRESS:PORT or network on each line; `#` begins a comment."""
    for number, line in enumerate(text.splitlines(), start=1):
        content = re.split(r"[#;]", line, maxsplit=1)[0].strip().rstrip(",")
        for word in re.split(r"[\s,]+", content):
            if word:
                yield from _word(word, f"{name}, line {number}")


def _word(word: str, where: str) -> Iterator[Target]:
    if "/" in word:
        try:
            network = ip_network(word, strict=False)
        except ValueError as error:
            raise TargetsError(f"{where}: {word!r} is no network: {error}") from error
        if network.num_addresses > MOST_ADDRESSES:
            raise TargetsError(f"{where}: {word} has more than {MOST_ADDRESSES:,} addresses")
        yield from (Target(host=str(address)) for address in network.hosts())
        return
    try:
        yield Target(host=str(ip_address(word)))
        return
    except ValueError:
        match = _HOST_PORT.match(word)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 1 <= port <= 0xFFFF):
        raise TargetsError(f"{where}: {word!r} is no address, name, ADDRESS:PORT or network")
    yield Target(host=match["v6"] or match["host"], ports=() if port is None else (port,))
