"""What the devices of the demonstration do, on pynetdicom; each function is one association."""

import contextlib
import logging
import ssl
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from children import LOOPBACK, DemoError
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)

# Files go out as they are, not decoded and encoded again.
_config.STORE_SEND_CHUNKED_DATASET = True
# Refusals are the point here; pynetdicom would report each as an error.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
LITTLE_ENDIAN: Final = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A real image: its file, what names it, and the bytes of its data set."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A device's key, certificate and authority, as `dicomward device add` wrote them."""

    key: Path
    certificate: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        """Return a context for mutual TLS."""
        context = self.anonymous()
        context.load_cert_chain(self.certificate, self.key)
        return context

    def anonymous(self) -> ssl.SSLContext:
        """Return a context that trusts the gateway and shows no certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.authority)
        return context


class RefusedError(Exception):
    """No association; the message says how the other side showed it."""


def load_image(name: str) -> Image:
    """Return one of pydicom's sample images."""
    found = get_testdata_file(name, download=False)
    if not isinstance(found, str):
        raise DemoError(f"pydicom's sample image {name} is not here")
    path = Path(found)
    raw = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        head = dcmread(path, stop_before_pixels=True)
    # PS3.10 §7.1: preamble 128 bytes, "DICM", group length (12 bytes, its value last), group 0002, the data set.
    (length,) = struct.unpack_from("<I", raw, 140)
    return Image(
        path=path,
        sop_class_uid=str(head.SOPClassUID),
        sop_instance_uid=str(head.SOPInstanceUID),
        study_instance_uid=str(head.StudyInstanceUID),
        transfer_syntax_uid=str(head.file_meta.TransferSyntaxUID),
        data_set=raw[144 + length :],
    )


@contextlib.contextmanager
def association(
    port: int,
    *,
    calling: str,
    called: str,
    contexts: Sequence[tuple[str, Sequence[str]]],
    tls: ssl.SSLContext | None,
    **options: Any,
) -> Iterator[Any]:
    """Open an association, or raise RefusedError; release it at the end."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.connection_timeout = 20
    ae.dimse_timeout = ae.network_timeout = 60
    if tls is not None:
        options["tls_args"] = (tls, "localhost")
    made = ae.associate(
        LOOPBACK,
        port,
        ae_title=called,
        contexts=[build_context(uid, list(syntaxes)) for uid, syntaxes in contexts],
        **options,
    )
    if not made.is_established:
        raise RefusedError(_how(made))
    try:
        yield made
    finally:
        made.release()


def _how(made: Any) -> str:
    if made.is_rejected:
        primitive = made.acceptor.primitive
        return f"rejected ({primitive.result}/{primitive.result_source}/{primitive.diagnostic})"
    return "connection ended"


def _tls(credentials: Credentials | ssl.SSLContext | None) -> ssl.SSLContext | None:
    return credentials.context() if isinstance(credentials, Credentials) else credentials


def echo(port: int, *, calling: str, called: str, credentials: Credentials | ssl.SSLContext | None) -> int:
    """Do a C-ECHO; return its status. Raises RefusedError."""
    contexts = [(Verification, LITTLE_ENDIAN)]
    with association(port, calling=calling, called=called, contexts=contexts, tls=_tls(credentials)) as made:
        return _status(made.send_c_echo())


def store(port: int, *, calling: str, called: str, image: Image, credentials: Credentials | None) -> int:
    """Store an image as it is in its file; return the status. Raises RefusedError."""
    contexts = [(image.sop_class_uid, [image.transfer_syntax_uid])]
    with association(port, calling=calling, called=called, contexts=contexts, tls=_tls(credentials)) as made:
        return _status(made.send_c_store(image.path))


def get(port: int, *, calling: str, called: str, image: Image, credentials: Credentials) -> dict[str, bytes]:
    """Fetch the image by C-GET; return data sets by SOP Instance UID. Raises RefusedError."""
    received: dict[str, bytes] = {}

    def on_store(event: Any) -> int:
        received[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset(include_meta=False)
        return 0

    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = image.study_instance_uid
    query.SeriesInstanceUID = str(dcmread(image.path, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
    query.SOPInstanceUID = image.sop_instance_uid
    model = StudyRootQueryRetrieveInformationModelGet
    with association(
        port,
        calling=calling,
        called=called,
        contexts=[(model, LITTLE_ENDIAN), (image.sop_class_uid, [image.transfer_syntax_uid])],
        tls=credentials.context(),
        ext_neg=[build_role(UID(image.sop_class_uid), scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, on_store)],
    ) as made:
        for _ in made.send_c_get(query, model):
            pass
    return received


def find_until_refused(port: int, *, calling: str, called: str, credentials: Credentials, most: int) -> tuple[int, int]:
    """Query in a loop on one association; return how many succeeded and the status that ended it (0 if none did)."""
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.PatientID = "1CT1"
    query.StudyInstanceUID = ""
    model = StudyRootQueryRetrieveInformationModelFind
    contexts = [(model, LITTLE_ENDIAN)]
    with association(port, calling=calling, called=called, contexts=contexts, tls=credentials.context()) as made:
        for number in range(most):
            last = [_status(status) for status, _ in made.send_c_find(query, model)][-1]
            if last != 0:
                return number, last
    return most, 0


def _status(answer: Any) -> int:
    """Return the status of a response; -1 when the association ended without one."""
    return int(answer.get("Status", -1))
