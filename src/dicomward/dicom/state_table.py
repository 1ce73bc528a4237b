"""The upper layer state machine as data: PS3.8 §9.2, Tables 9-1 to 9-10.

Rules of this room: the table knows neither role nor socket. Where an action may lead to one of two states (AE-6, AR-8),
the standard decides by what is acceptable or by who requested the association.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final


class Sta(IntEnum):
    """States (PS3.8 Tables 9-1 to 9-5)."""

    STA1 = 1
    STA2 = 2
    STA3 = 3
    STA4 = 4
    STA5 = 5
    STA6 = 6
    STA7 = 7
    STA8 = 8
    STA9 = 9
    STA10 = 10
    STA11 = 11
    STA12 = 12
    STA13 = 13

    @property
    def meaning(self) -> str:
        """Say what the state is, in the standard's terms."""
        return _STATE_MEANINGS[self]


class Evt(IntEnum):
    """Events, the rows of PS3.8 Table 9-10."""

    EVT1 = 1
    EVT2 = 2
    EVT3 = 3
    EVT4 = 4
    EVT5 = 5
    EVT6 = 6
    EVT7 = 7
    EVT8 = 8
    EVT9 = 9
    EVT10 = 10
    EVT11 = 11
    EVT12 = 12
    EVT13 = 13
    EVT14 = 14
    EVT15 = 15
    EVT16 = 16
    EVT17 = 17
    EVT18 = 18
    EVT19 = 19

    @property
    def meaning(self) -> str:
        """Say what has happened, in the standard's terms."""
        return _EVENT_MEANINGS[self]


class Action(Enum):
    """Actions (PS3.8 Tables 9-6 to 9-9); the value is the standard's name."""

    AE_1 = "AE-1"
    AE_2 = "AE-2"
    AE_3 = "AE-3"
    AE_4 = "AE-4"
    AE_5 = "AE-5"
    AE_6 = "AE-6"
    AE_7 = "AE-7"
    AE_8 = "AE-8"
    DT_1 = "DT-1"
    DT_2 = "DT-2"
    AR_1 = "AR-1"
    AR_2 = "AR-2"
    AR_3 = "AR-3"
    AR_4 = "AR-4"
    AR_5 = "AR-5"
    AR_6 = "AR-6"
    AR_7 = "AR-7"
    AR_8 = "AR-8"
    AR_9 = "AR-9"
    AR_10 = "AR-10"
    AA_1 = "AA-1"
    AA_2 = "AA-2"
    AA_3 = "AA-3"
    AA_4 = "AA-4"
    AA_5 = "AA-5"
    AA_6 = "AA-6"
    AA_7 = "AA-7"
    AA_8 = "AA-8"

    @property
    def meaning(self) -> str:
        """Say what is done, in short."""
        return _ACTIONS[self][0]

    @property
    def next_states(self) -> tuple[Sta, ...]:
        """Return the state that follows; AE-6 and AR-8 have two."""
        return _ACTIONS[self][1]


_STATE_MEANINGS: Final[Mapping[Sta, str]] = {
    Sta.STA1: "idle",
    Sta.STA2: "transport connection open; awaiting A-ASSOCIATE-RQ",
    Sta.STA3: "awaiting the local A-ASSOCIATE response",
    Sta.STA4: "awaiting the transport connection",
    Sta.STA5: "awaiting A-ASSOCIATE-AC or A-ASSOCIATE-RJ",
    Sta.STA6: "association established, ready for data transfer",
    Sta.STA7: "awaiting A-RELEASE-RP",
    Sta.STA8: "awaiting the local A-RELEASE response",
    Sta.STA9: "release collision, requestor; awaiting the local A-RELEASE response",
    Sta.STA10: "release collision, acceptor; awaiting A-RELEASE-RP",
    Sta.STA11: "release collision, requestor; awaiting A-RELEASE-RP",
    Sta.STA12: "release collision, acceptor; awaiting the local A-RELEASE response",
    Sta.STA13: "awaiting the close of the transport connection",
}

_EVENT_MEANINGS: Final[Mapping[Evt, str]] = {
    Evt.EVT1: "A-ASSOCIATE request (local)",
    Evt.EVT2: "transport connection confirmed",
    Evt.EVT3: "A-ASSOCIATE-AC received",
    Evt.EVT4: "A-ASSOCIATE-RJ received",
    Evt.EVT5: "transport connection indicated",
    Evt.EVT6: "A-ASSOCIATE-RQ received",
    Evt.EVT7: "A-ASSOCIATE response, accept (local)",
    Evt.EVT8: "A-ASSOCIATE response, reject (local)",
    Evt.EVT9: "P-DATA request (local)",
    Evt.EVT10: "P-DATA-TF received",
    Evt.EVT11: "A-RELEASE request (local)",
    Evt.EVT12: "A-RELEASE-RQ received",
    Evt.EVT13: "A-RELEASE-RP received",
    Evt.EVT14: "A-RELEASE response (local)",
    Evt.EVT15: "A-ABORT request (local)",
    Evt.EVT16: "A-ABORT received",
    Evt.EVT17: "transport connection closed",
    Evt.EVT18: "ARTIM timer expired",
    Evt.EVT19: "unrecognised or invalid PDU received",
}

_ACTIONS: Final[Mapping[Action, tuple[str, tuple[Sta, ...]]]] = {
    Action.AE_1: ("open the transport connection", (Sta.STA4,)),
    Action.AE_2: ("send A-ASSOCIATE-RQ", (Sta.STA5,)),
    Action.AE_3: ("confirm the association, accepted", (Sta.STA6,)),
    Action.AE_4: ("confirm the association, rejected; close the transport connection", (Sta.STA1,)),
    Action.AE_5: ("accept the transport connection; start ARTIM", (Sta.STA2,)),
    Action.AE_6: (
        "stop ARTIM; indicate the association, or send A-ASSOCIATE-RJ and start ARTIM",
        (Sta.STA3, Sta.STA13),
    ),
    Action.AE_7: ("send A-ASSOCIATE-AC", (Sta.STA6,)),
    Action.AE_8: ("send A-ASSOCIATE-RJ; start ARTIM", (Sta.STA13,)),
    Action.DT_1: ("send P-DATA-TF", (Sta.STA6,)),
    Action.DT_2: ("indicate the data", (Sta.STA6,)),
    Action.AR_1: ("send A-RELEASE-RQ", (Sta.STA7,)),
    Action.AR_2: ("indicate the release", (Sta.STA8,)),
    Action.AR_3: ("confirm the release; close the transport connection", (Sta.STA1,)),
    Action.AR_4: ("send A-RELEASE-RP; start ARTIM", (Sta.STA13,)),
    Action.AR_5: ("stop ARTIM", (Sta.STA1,)),
    Action.AR_6: ("indicate the data", (Sta.STA7,)),
    Action.AR_7: ("send P-DATA-TF", (Sta.STA8,)),
    Action.AR_8: ("indicate the release collision", (Sta.STA9, Sta.STA10)),
    Action.AR_9: ("send A-RELEASE-RP", (Sta.STA11,)),
    Action.AR_10: ("confirm the release", (Sta.STA12,)),
    Action.AA_1: ("send A-ABORT; start or restart ARTIM", (Sta.STA13,)),
    Action.AA_2: ("stop ARTIM; close the transport connection", (Sta.STA1,)),
    Action.AA_3: ("indicate the abort; close the transport connection", (Sta.STA1,)),
    Action.AA_4: ("indicate the provider's abort", (Sta.STA1,)),
    Action.AA_5: ("stop ARTIM", (Sta.STA1,)),
    Action.AA_6: ("ignore the PDU", (Sta.STA13,)),
    Action.AA_7: ("send A-ABORT", (Sta.STA13,)),
    Action.AA_8: ("send A-ABORT of the provider; indicate the abort; start ARTIM", (Sta.STA13,)),
}


def _received(exceptions: Mapping[Sta, Action], *, over: Action = Action.AA_6) -> dict[Sta, Action]:
    """Return the row of a PDU: unexpected in every state with a connection, save for `exceptions`."""
    row = dict.fromkeys((Sta.STA3, *range(Sta.STA5, Sta.STA13)), Action.AA_8)
    return {
        Sta.STA2: Action.AA_1,
        **{Sta(state): action for state, action in row.items()},
        Sta.STA13: over,
        **exceptions,
    }


def _whenever_open(action: Action, exceptions: Mapping[Sta, Action]) -> dict[Sta, Action]:
    """Return a row that has `action` from Sta3 to Sta12, save for `exceptions`."""
    return {**{Sta(state): action for state in range(Sta.STA3, Sta.STA13)}, **exceptions}


_ROWS: Final[Mapping[Evt, Mapping[Sta, Action]]] = {
    Evt.EVT1: {Sta.STA1: Action.AE_1},
    Evt.EVT2: {Sta.STA4: Action.AE_2},
    Evt.EVT3: _received({Sta.STA5: Action.AE_3}),
    Evt.EVT4: _received({Sta.STA5: Action.AE_4}),
    Evt.EVT5: {Sta.STA1: Action.AE_5},
    Evt.EVT6: _received({Sta.STA2: Action.AE_6}, over=Action.AA_7),
    Evt.EVT7: {Sta.STA3: Action.AE_7},
    Evt.EVT8: {Sta.STA3: Action.AE_8},
    Evt.EVT9: {Sta.STA6: Action.DT_1, Sta.STA8: Action.AR_7},
    Evt.EVT10: _received({Sta.STA6: Action.DT_2, Sta.STA7: Action.AR_6}),
    Evt.EVT11: {Sta.STA6: Action.AR_1},
    Evt.EVT12: _received({Sta.STA6: Action.AR_2, Sta.STA7: Action.AR_8}),
    Evt.EVT13: _received({Sta.STA7: Action.AR_3, Sta.STA10: Action.AR_10, Sta.STA11: Action.AR_3}),
    Evt.EVT14: {Sta.STA8: Action.AR_4, Sta.STA9: Action.AR_9, Sta.STA12: Action.AR_4},
    Evt.EVT15: _whenever_open(Action.AA_1, {Sta.STA4: Action.AA_2}),
    Evt.EVT16: _received(
        {Sta.STA2: Action.AA_2, **{Sta(s): Action.AA_3 for s in (3, *range(5, 13))}}, over=Action.AA_2
    ),
    Evt.EVT17: _whenever_open(Action.AA_4, {Sta.STA2: Action.AA_5, Sta.STA13: Action.AR_5}),
    Evt.EVT18: {Sta.STA2: Action.AA_2, Sta.STA13: Action.AA_2},
    Evt.EVT19: _received({}, over=Action.AA_7),
}

TRANSITIONS: Final[Mapping[tuple[Evt, Sta], Action]] = MappingProxyType(
    {(event, state): action for event, row in _ROWS.items() for state, action in row.items()}
)
"""Table 9-10. A pair that is not in it cannot happen to a correct local user."""


def transition(event: Evt, state: Sta, *, is_requestor: bool) -> tuple[Action, Sta] | None:
    """Return what Table 9-10 does and the state that follows, or None where the table has no entry.

    AE-6 leads to Sta3: the service user judges what is acceptable, and rejects with Evt8. AR-8 leads to Sta9 for the
    requestor of the association and to Sta10 for its acceptor.
    """
    action = TRANSITIONS.get((event, state))
    if action is None:
        return None
    states = action.next_states
    if action is Action.AR_8 and not is_requestor:
        return action, states[1]
    return action, states[0]
