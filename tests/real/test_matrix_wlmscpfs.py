"""Every client stack against wlmscpfs, straight and through the gateway."""

from tests.real.matrix import here, test_direct_pair_works, test_pair_through_the_gateway_has_the_same_result

__all__ = ["here", "test_direct_pair_works", "test_pair_through_the_gateway_has_the_same_result"]

SERVER = "wlmscpfs"
