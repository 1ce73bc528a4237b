"""The way out of a leg: whole messages, one after the other, in PDUs that fit."""

from dicomward.dicom.dimse import CommandSet
from dicomward.dicom.framing import DataRun
from dicomward.relay.effects import Effect, Send
from dicomward.relay.inputs import Leg
from dicomward.relay.messages import Exchange, Mode, Outlet, Transfer
from dicomward.vocab.dimse import Operation
from tests.relay.wire import Reader, c_echo_rq, c_store_rq, fragments, response_to


def run(data: bytes, *, last: bool = True, size: int = 100) -> DataRun:
    view = memoryview(fragments(3, data, command=False, size=size, ends=last))
    return DataRun(3, view, len(data), min(size, len(data)) + 6, last)


def exchange(command: CommandSet) -> Exchange:
    return Exchange(invoker=Leg.REQUESTOR, context_id=3, command=command, operation=Operation.C_STORE, started=0.0)


def transfer(*, complete: bool = False) -> Transfer:
    command = c_store_rq(7)
    return Transfer(
        leg=Leg.REQUESTOR, context_id=3, command=command, mode=Mode.HOLD, exchange=exchange(command), complete=complete
    )


def read(out: list[Effect], maximum: int) -> list[str]:
    reader = Reader(max_pdu=maximum)
    texts = []
    for effect in out:
        assert isinstance(effect, Send)
        assert effect.leg is Leg.ACCEPTOR
        texts += [str(each) for each in reader.read(bytes(effect.data))]
    return texts


def test_a_message_leaves_at_once() -> None:
    out: list[Effect] = []
    Outlet(Leg.ACCEPTOR, 128).message(1, c_echo_rq(1), out)
    assert read(out, 128) == ["C-ECHO-RQ 1 on 1"]


def test_messages_wait_for_the_one_that_is_on_its_way() -> None:
    outlet = Outlet(Leg.ACCEPTOR, 128)
    out: list[Effect] = []
    busy = [outlet.is_busy]
    outlet.begin(transfer(), c_store_rq(7), out)
    busy.append(outlet.is_busy)
    assert busy == [False, True]
    outlet.message(1, c_echo_rq(1), out)
    outlet.message(1, response_to(c_echo_rq(9)), out)
    assert outlet.queued_bytes > 0
    outlet.stream(run(b"a" * 50, last=False), out)
    outlet.stream(run(b"b" * 50), out)
    outlet.finish(out)
    assert outlet.queued_bytes == 0
    assert read(out, 128) == ["C-STORE-RQ 7 on 3 with 100 bytes", "C-ECHO-RQ 1 on 1", "C-ECHO-RSP 9 on 1 status 0000"]


def test_what_was_kept_goes_with_the_command() -> None:
    outlet = Outlet(Leg.ACCEPTOR, 128)
    out: list[Effect] = []
    held = transfer()
    held.head += b"head"
    held.keep(run(b"a" * 300, last=False))
    held.keep(run(b"b" * 10, size=5))
    held.complete = True
    assert held.largest_pdu == 106
    outlet.begin(held, c_store_rq(7), out)
    assert not outlet.is_busy
    assert bytes(held.kept + held.head) == b""
    assert read(out, 128) == ["C-STORE-RQ 7 on 3 with 310 bytes"]


def test_what_was_kept_is_copied() -> None:
    """The buffer of a run is written over by the next read."""
    held = transfer()
    buffer = bytearray(fragments(3, b"data", command=False, size=100))
    held.keep(DataRun(3, memoryview(buffer), 4, 10, True))
    buffer[:] = bytes(len(buffer))
    assert held.kept == fragments(3, b"data", command=False, size=100)


def test_runs_pass_as_they_stand_or_in_pieces_that_fit() -> None:
    outlet = Outlet(Leg.ACCEPTOR, 128)
    out: list[Effect] = []
    small, large = run(b"a" * 50, last=False), run(b"b" * 400, size=400)
    outlet.begin(transfer(), c_store_rq(7), out)
    outlet.stream(small, out)
    outlet.stream(large, out)
    sent = out[-2]
    assert isinstance(sent, Send)
    assert sent.data is small.view
    assert read(out, 128) == ["C-STORE-RQ 7 on 3 with 450 bytes"]


def test_an_exchange_knows_its_message_id() -> None:
    assert exchange(c_store_rq(7)).message_id == 7
    assert exchange(CommandSet(command_field=Operation.C_ECHO)).message_id == 0
