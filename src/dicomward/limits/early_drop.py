"""Random early drop of connections that nobody knows: the fuller the room, the more of them are turned away.

OpenSSH's MaxStartups is the model. Who floods sends most of the newcomers, so most of what is dropped is the flood's;
an honest stranger gets in by trying again.
"""


def drops_early(waiting: int, most: int, draw: float) -> bool:
    """Say if a newcomer is dropped; `waiting` unknown connections of `most` are there, `draw` is from [0, 1).

    Up to half of the room nobody is dropped; from there the chance rises evenly, and in a full room it is certain.
    """
    free = most // 2
    return waiting > free and draw * (most - free) < waiting - free
