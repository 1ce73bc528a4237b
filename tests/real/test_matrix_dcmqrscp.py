"""Every client stack against dcmqrscp, straight and through the gateway."""

from tests.real.matrix import here as here
from tests.real.matrix import test_direct_pair_works as test_direct_pair_works
from tests.real.matrix import (
    test_pair_through_the_gateway_has_the_same_result as test_pair_through_the_gateway_has_the_same_result,
)

SERVER = "dcmqrscp"
