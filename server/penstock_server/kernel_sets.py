"""All sets of kernels of the server: what `penstock compile` compiles, and what a release has."""

from typing import Final

from penstock_server.compiled_models import kernel_set as compiled_models
from penstock_server.features import kernel_set as features
from penstock_server.kernels.kernel_set import KernelSet
from penstock_server.plain import kernel_set as plain
from penstock_server.rest import kernel_set as rest
from penstock_server.transport import kernel_set as transport

KERNEL_SETS: Final[tuple[KernelSet, ...]] = (
    features.KERNELS,
    transport.KERNELS,
    plain.KERNELS,
    rest.KERNELS,
    compiled_models.KERNELS,
)
