"""Pending moves: turns where a sub-operation could not be told from another's, and matching that never guesses."""

from hypothesis import given
from hypothesis import strategies as st

from dicomward.relay.correlations import Ambiguous, MoveTable, PendingMove


def move(
    move_id: str, *, originator: str = "WS1", message_id: int = 1, destination: str = "WS1", archive: str = "pacs"
) -> PendingMove:
    return PendingMove(
        move_id=move_id,
        archive=archive,
        destination_ae_title=destination,
        originator_ae_title=originator,
        message_id=message_id,
        device="ws1",
        called_ae_title="PACS",
        association="a-1",
    )


def named(**archives: bool) -> MoveTable:
    return MoveTable(names_originator=dict(archives))


def test_one_move_at_a_time_towards_a_destination_of_an_archive_that_names_nobody() -> None:
    table = MoveTable()
    first, second, third = move("1"), move("2", message_id=2), move("3", message_id=3)
    assert table.request(first)
    assert not table.request(second)
    assert not table.request(third)
    assert table.towards("pacs", "WS1") == [first]
    assert table.finish("1") == (0, [second])
    assert table.finish("2") == (0, [third])
    assert table.finish("3") == (0, [])


def test_other_destinations_and_archives_do_not_wait() -> None:
    table = MoveTable()
    assert all(table.request(m) for m in (move("1"), move("2", destination="WS2"), move("3", archive="other")))


def test_moves_run_side_by_side_once_the_archive_names_them() -> None:
    table = named(pacs=True)
    assert table.request(move("1"))
    assert table.request(move("2", message_id=2))
    assert table.request(move("3", originator="WS2"))
    # The same originator and message ID could not be told apart.
    assert not table.request(move("4"))
    assert table.finish("1") == (0, [move("4")])


def test_a_waiting_move_keeps_those_behind_it_waiting() -> None:
    table = named(pacs=True)
    assert table.request(move("1"))
    assert not table.request(move("2"))
    assert not table.request(move("3"))
    table.names_originator["pacs"] = True
    assert table.finish("1") == (0, [move("2")])


def test_a_waiting_move_that_is_given_up_lets_others_pass() -> None:
    table = MoveTable()
    assert table.request(move("1"))
    assert not table.request(move("2", message_id=2))
    assert table.finish("2") == (0, [])
    assert table.finish("1") == (0, [])
    assert table.request(move("3"))


def test_refused_suboperations_are_counted_for_running_moves() -> None:
    table = MoveTable()
    table.request(move("1"))
    table.note_refused("1")
    table.note_refused("1")
    table.note_refused("unknown")
    assert table.finish("1") == (2, [])
    assert table.finish("1") == (0, [])


def test_matching_learns_if_the_archive_names_the_originator() -> None:
    table = MoveTable()
    table.request(move("1"))
    assert table.match("pacs", "WS1", None, None) == move("1")
    assert table.names_originator == {"pacs": False}
    assert table.match("pacs", "WS1", "WS1", 1) == move("1")
    assert table.names_originator == {"pacs": True}
    assert table.match("pacs", "WS1", "WS1", None) == move("1")
    assert table.names_originator == {"pacs": False}


def test_matching_never_guesses() -> None:
    table = named(pacs=True)
    table.request(move("1"))
    table.request(move("2", message_id=2))
    assert table.match("pacs", "WS1", None, None) == Ambiguous()
    assert table.match("pacs", "WS1", "WS1", 2) == move("2", message_id=2)
    # A name that is not that of a pending move is not replaced by the only one there is.
    assert table.match("pacs", "WS1", "WS1", 9) is None
    assert table.match("pacs", "WS2", "WS1", 1) is None
    assert table.match("pacs", "WS2", None, None) is None
    assert table.match("other", "WS1", "WS1", 1) is None


MOVES = st.builds(
    move,
    st.uuids().map(str),
    originator=st.sampled_from(["WS1", "WS2"]),
    message_id=st.integers(1, 2),
    destination=st.sampled_from(["WS1", "WS2"]),
)


@given(st.lists(MOVES, max_size=8), st.booleans(), st.randoms())
def test_every_move_gets_its_turn_and_no_two_that_run_are_alike(
    moves: list[PendingMove], names: bool, random: object
) -> None:
    table = named(pacs=names)
    running = {m.move_id: m for m in moves if table.request(m)}
    done = set()
    while running:
        keys = [m.key if names else m.key[:2] for m in running.values()]
        assert len(keys) == len(set(keys))
        ending = random.choice(sorted(running))  # type: ignore[attr-defined]
        done.add(ending)
        del running[ending]
        running |= {m.move_id: m for m in table.finish(ending)[1]}
    assert done == {m.move_id for m in moves}
