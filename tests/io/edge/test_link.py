"""An association of the agent's own with a real archive, and each way in which it doesn't come about."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj
from dicomward.edge.contexts import propose
from dicomward.io.edge.link import Link, LinkDown, LinkRejected, Response
from dicomward.settings import ListenAddress
from tests.io.edge.place import CT, WHO, Upstreams, upstreams
from tests.real.site import ARCHIVE

PAIR = (CT.sop_class_uid, CT.transfer_syntax_uid)
UNKNOWN = ("1.2.3.4", CT.transfer_syntax_uid)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    with upstreams(tmp_path_factory.mktemp("link")) as made:
        yield made


def connect(place: Upstreams, **changes: object) -> Link:
    upstream = replace(place.upstream, **changes)  # type: ignore[arg-type]
    return Link(
        upstream, place.context, calling_ae_title="CT1", called_ae_title=ARCHIVE, proposed=propose([PAIR, UNKNOWN])
    )


def pieces(data: bytes, size: int) -> Iterator[tuple[bytes, bool]]:
    for at in range(0, len(data), size):
        yield data[at : at + size], at + size >= len(data)


def test_object_arrives_bit_by_bit_however_it_is_cut(place: Upstreams) -> None:
    link = connect(place)
    assert (set(link.contexts), link.refused, link.window) == ({PAIR}, {UNKNOWN}, 1)
    for size in (len(CT.data_set), 1000, 7):
        assert list(link.responses(wait=False)) == []
        number = link.store(WHO, pieces(CT.data_set, size))
        assert not link.has_room
        assert list(link.responses(wait=True)) == [Response(number, 0)]
        assert link.has_room
    link.release()
    assert {each.data_set for each in place.archive.stored} == {CT.data_set}


def test_closed_line_is_told(place: Upstreams) -> None:
    link = connect(place)
    link._connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(LinkDown):
        link.store(WHO, pieces(CT.data_set, 1000))
    with pytest.raises(LinkDown):
        list(link.responses(wait=True))
    # Whatever is left of it, it ends.
    link.release()


def test_who_is_not_the_archive_gets_nothing(place: Upstreams) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = ListenAddress(host="127.0.0.1", port=closed.getsockname()[1])
        with pytest.raises(LinkDown, match="refused"):
            connect(place, address=nobody)
    with pytest.raises(LinkDown, match="TLS with"):
        connect(place, name="other.example")
    with pytest.raises(LinkDown, match="not the pinned one"):
        connect(place, certificate_sha256="0" * 64)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (encode_pdu(AAssociateRj(result=1, source=1, reason=3)), LinkRejected),
        (b"\x07\0\0\0\0\4\0\0\2\1", LinkDown),
        (b"\x06\0\0\0\0\4\0\0\0\0", LinkDown),
        (b"GET / HTTP/1.1\r\n\r\n", LinkDown),
        (b"", LinkDown),
    ],
)
def test_every_other_answer_is_no_association(place: Upstreams, answer: bytes, error: type[LinkDown]) -> None:
    context = place.archive._credentials
    assert context is not None
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        plain, _peer = server.accept()
        with context.server_context().wrap_socket(plain, server_side=True) as sealed:
            sealed.recv(65536)
            sealed.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(error):
        connect(place, address=ListenAddress(host="127.0.0.1", port=server.getsockname()[1]))
    thread.join()
    server.close()
