"""HTTP of a server that is assessed: a few GETs that give no patient's data, bounded in bytes and time.

Rules of this file: GET only; no redirect is followed, no login is tried; QIDO-RS asks for a study that nobody has. Of a
body only its shape is looked at, and it is dropped.
"""

import asyncio
import json
import re
import ssl
from dataclasses import dataclass
from typing import Final

from dicomward import __version__
from dicomward.assess.plan import NO_STUDY
from dicomward.assess.seen import WebAnswer

_MOST_BYTES: Final = 64 * 1024
_MOST_HEADERS: Final = 16 * 1024
ORTHANC_PATHS: Final = ("/system",)
ADMIN_PATHS: Final = ("/dcm4chee-arc/devices",)
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r|\n|$)")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]{0,1000}\r\n")
_JSON: Final = ("application/json", "application/dicom+json", "text/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """The status (0: no HTTP), the headers with names in lower case, and the beginning of the body."""

    status: int
    headers: dict[str, str]
    body: bytes
    detail: str = ""


async def get(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, host: str, path: str, contact: str, timeout: float
) -> HttpAnswer:
    """Send one GET, and return the answer; what breaks a bound gives what came until then."""
    data = bytearray()
    detail = ""
    try:
        async with asyncio.timeout(timeout):
            writer.write(request_for(host, path, contact))
            await writer.drain()
            while len(data) < _MOST_BYTES and not is_whole(data):
                more = await reader.read(_MOST_BYTES - len(data))
                if not more:
                    break
                data += more
    except TimeoutError:
        detail = f"no whole answer within {timeout:g} s"
    except (ssl.SSLError, OSError) as error:
        detail = getattr(error, "reason", "") or error.strerror or type(error).__name__
    return parse_answer(bytes(data), detail)


def _header_text(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:200]


def request_for(host: str, path: str, contact: str) -> bytes:
    """Return a GET that says who asks."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Dicomward-assess/{__version__}\r\n"
        f"From: {_header_text(contact)}\r\nAccept: application/dicom+json, application/json, */*;q=0.1\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


def is_whole(data: bytearray) -> bool:
    """Say if nothing more of an answer comes, or is of use."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) > _MOST_HEADERS or (len(data) >= 5 and not data.startswith(b"HTTP/"))
    length = re.search(rb"(?im)^content-length:\s*(\d{1,12})\s*$", data[:end])
    if length is not None:
        return len(data) - end - 4 >= int(length[1])
    return bool(re.search(rb"(?im)^transfer-encoding:\s*chunked", data[:end])) and data.endswith(b"\r\n0\r\n\r\n")


def parse_answer(data: bytes, detail: str) -> HttpAnswer:
    """Return the answer that these bytes are; `detail` says how they ended."""
    match = _STATUS.match(data)
    if match is None:
        return HttpAnswer(status=0, headers={}, body=b"", detail=detail or "the answer is no HTTP")
    head, _, body = data.partition(b"\r\n\r\n")
    headers = {}
    for line in head[:_MOST_HEADERS].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower().decode("ascii", "replace")] = value.strip().decode("ascii", "replace")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = _unchunked(body)
    return HttpAnswer(status=int(match[1]), headers=headers, body=body, detail=detail)


def _unchunked(body: bytes) -> bytes:
    out = bytearray()
    place = 0
    while match := _CHUNK.match(body, place):
        size = int(match[1], 16)
        if not size:
            break
        out += body[match.end() : match.end() + size]
        place = match.end() + size + 2
    return bytes(out)


def qido_path(root: str) -> str:
    """Return the query for a study that nobody has."""
    return f"{root.rstrip('/')}/studies?StudyInstanceUID={NO_STUDY}&limit=1"


def read_answer(kind: str, path: str, answer: HttpAnswer) -> WebAnswer:
    """Return what an answer means, without its body."""
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    right = False
    if kind == "dicomweb":
        right = answer.status == 204 or (
            answer.status == 200 and media_type in _JSON and answer.body.lstrip()[:1] in (b"[", b"")
        )
    elif kind == "orthanc":
        right = answer.status == 200 and orthanc_version(answer) is not None
    elif kind == "admin":
        right = answer.status == 200 and media_type in _JSON
    return WebAnswer(
        kind=kind,
        path=path.partition("?")[0],
        status=answer.status,
        media_type=media_type,
        looks_right=right,
        redirect=answer.headers.get("location", "")[:200] if 300 <= answer.status < 400 else "",
        detail=answer.detail,
    )


def orthanc_version(answer: HttpAnswer) -> str | None:
    """Return the version that Orthanc's /system tells, None if it is not Orthanc's."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return None
    if not isinstance(value, dict) or not {"ApiVersion", "Version", "DicomAet"} <= set(value):
        return None
    version = str(value["Version"])
    return version if re.fullmatch(r"[0-9A-Za-z.+-]{1,32}", version) else ""
