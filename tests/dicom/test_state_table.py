import csv
from pathlib import Path

import pytest
from pynetdicom import fsm

from dicomward.dicom.state_table import TRANSITIONS, Action, Evt, Sta, transition

VECTORS = Path(__file__).parent / "vectors"
PAIRS = [(event, state) for event in Evt for state in Sta]


def _table() -> dict[tuple[str, str], str]:
    with (VECTORS / "table_9_10.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        (row["event"], state): action for row in rows for state, action in row.items() if state != "event" and action
    }


def _next_states() -> dict[str, list[str]]:
    with (VECTORS / "next_states.csv").open(encoding="utf-8", newline="") as stream:
        return {row["action"]: row["next"].split() for row in csv.DictReader(stream)}


TABLE = _table()
NEXT_STATES = _next_states()


def _name(value: Evt | Sta) -> str:
    return f"{type(value).__name__}{value.value}"


def test_matrix_has_19_events_and_13_states() -> None:
    assert len(PAIRS) == 247
    assert len(TRANSITIONS) == len(TABLE) == 123


@pytest.mark.parametrize(("event", "state"), PAIRS, ids=_name)
def test_every_cell_is_that_of_table_9_10(event: Evt, state: Sta) -> None:
    expected = TABLE.get((_name(event), _name(state)))
    action = TRANSITIONS.get((event, state))
    assert (action.value if action else None) == expected
    # No difference from pynetdicom is known, so none is allowed for.
    assert fsm.TRANSITION_TABLE.get((_name(event), _name(state))) == expected


@pytest.mark.parametrize("action", Action, ids=lambda action: action.value)
def test_next_states_are_those_of_the_action_tables(action: Action) -> None:
    states = [_name(state) for state in action.next_states]
    assert states == NEXT_STATES[action.value]
    theirs = fsm.ACTIONS[action.value][2]
    assert states == ([theirs] if isinstance(theirs, str) else list(theirs))


def test_every_action_is_in_the_table_and_the_vectors() -> None:
    assert set(TRANSITIONS.values()) == set(Action)
    assert set(NEXT_STATES) == {action.value for action in Action}


@pytest.mark.parametrize(("event", "state"), PAIRS, ids=_name)
@pytest.mark.parametrize("is_requestor", [True, False])
def test_transition_answers_every_cell(event: Evt, state: Sta, is_requestor: bool) -> None:
    step = transition(event, state, is_requestor=is_requestor)
    action = TRANSITIONS.get((event, state))
    if action is None:
        assert step is None
    elif action is Action.AR_8:
        assert step == (action, Sta.STA9 if is_requestor else Sta.STA10)
    else:
        assert step == (action, action.next_states[0])


def test_every_pdu_has_an_answer_wherever_a_connection_is_open() -> None:
    received = (Evt.EVT3, Evt.EVT4, Evt.EVT6, Evt.EVT10, Evt.EVT12, Evt.EVT13, Evt.EVT16, Evt.EVT19)
    connected = [state for state in Sta if state not in (Sta.STA1, Sta.STA4)]
    assert all((event, state) in TRANSITIONS for event in received for state in connected)


def test_every_state_can_be_reached_and_left() -> None:
    reached = {Sta.STA1}
    while True:
        more = {state for (_, start), action in TRANSITIONS.items() if start in reached for state in action.next_states}
        if more <= reached:
            break
        reached |= more
    assert reached == set(Sta)
    assert {state for _, state in TRANSITIONS} == set(Sta)


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[Evt.EVT1, Sta.STA2] = Action.AE_1  # type: ignore[index]


@pytest.mark.parametrize("value", [*Sta, *Evt, *Action], ids=str)
def test_everything_says_what_it_means(value: Sta | Evt | Action) -> None:
    assert value.meaning
