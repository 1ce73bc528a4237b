import pytest

from dicomward.dicom.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, UpperLayerError
from dicomward.vocab.association import AbortReason


@pytest.mark.parametrize("kind", [RemoteProtocolError, LimitExceeded])
def test_remote_error_carries_the_answer_and_the_reason(kind: type[RemoteProtocolError]) -> None:
    error = kind(AbortReason.INVALID_PARAMETER_VALUE, "PS3.8 §9.3.2", "the called AE title is empty")
    assert error.abort_reason is AbortReason.INVALID_PARAMETER_VALUE
    assert error.clause == "PS3.8 §9.3.2"
    assert error.detail == "the called AE title is empty"
    assert str(error) == "the called AE title is empty (PS3.8 §9.3.2)"


def test_one_family_leaves_the_room() -> None:
    assert issubclass(RemoteProtocolError, UpperLayerError)
    assert issubclass(LimitExceeded, RemoteProtocolError)
    assert issubclass(LocalProtocolError, UpperLayerError)
    assert not issubclass(LocalProtocolError, RemoteProtocolError)
