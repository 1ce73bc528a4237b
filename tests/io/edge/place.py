"""An archive with TLS that records, and the parts of an agent in front of it, all in this process."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicomward.edge.queue import Waiting
from dicomward.io.edge.spool import Spool
from dicomward.io.edge.spool_seal import Description, SharedKey
from dicomward.io.tls import CertificateFiles, named_client_context
from dicomward.settings import ListenAddress
from dicomward.settings.edge import SpoolSettings, Upstream
from tests.real.pki import Authority, Credentials
from tests.real.recording_archive import RecordingArchive
from tests.real.samples import sample
from tests.real.site import ARCHIVE

CT = sample("CT_small.dcm")
WHO = Description(
    calling_ae_title="CT1",
    called_ae_title=ARCHIVE,
    sop_class_uid=CT.sop_class_uid,
    sop_instance_uid=CT.sop_instance_uid,
    transfer_syntax_uid=CT.transfer_syntax_uid,
)


@dataclass(frozen=True, slots=True)
class Upstreams:
    """A running archive, and how an agent calls it."""

    archive: RecordingArchive
    upstream: Upstream
    context: ssl.SSLContext
    credentials: Credentials


@contextmanager
def upstreams(directory: Path) -> Iterator[Upstreams]:
    """Run an archive with TLS."""
    authority = Authority("CA", directory / "ca")
    own, device = authority.issue("archive"), authority.issue("ct1")
    with RecordingArchive(ARCHIVE, credentials=own) as archive:
        upstream = Upstream(
            address=ListenAddress(host="127.0.0.1", port=archive.port),
            name="localhost",
            ae_titles=(ARCHIVE,),
            certificate_sha256="",
            associations=1,
            window=4,
            seconds=10,
        )
        context = named_client_context(
            authority.path, CertificateFiles(certificate=device.certificate, key=device.key), "localhost"
        )
        yield Upstreams(archive, upstream, context, device)


def make_spool(directory: Path, *, quota: int = 1 << 30) -> Spool:
    """Return an open spool."""
    settings = SpoolSettings(
        directory=directory / "spool",
        key="key",
        key_ca=directory / "ca.pem",
        quota_bytes=quota,
        free_bytes=0,
        order="oldest",
        alarm_minutes=15,
        commitment="off",
    )
    key = SharedKey(bytes(32))
    spool = Spool(settings, lambda _device: key)
    spool.open()
    return spool


def put(spool: Spool, description: Description = WHO, data: bytes = CT.data_set) -> Waiting:
    """Accept an object."""
    incoming = spool.receive("ct1", description)
    incoming.write(data)
    return incoming.keep(b"1.2")


def files(directory: Path, folder: str) -> list[str]:
    """Return what lies in a folder of the spool, without reasons."""
    return sorted(path.name for path in (directory / "spool" / folder).iterdir() if path.suffix == ".dw")


def spliced(port: int) -> Callable[[socket.socket], None]:
    """Return what hands a connection over to a server on this machine, byte by byte."""

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for each in (source, sink):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def carry(near: socket.socket) -> None:
        with near:
            try:
                far = socket.create_connection(("127.0.0.1", port))
            except OSError:
                return
            with far:
                back = threading.Thread(target=copy, args=(far, near), daemon=True)
                back.start()
                copy(near, far)
                back.join()

    return lambda near: threading.Thread(target=carry, args=(near,), daemon=True).start()
