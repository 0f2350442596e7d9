"""All sets of kernels of the server: what `penstock compile` compiles, and what a release has."""

from typing import Final

from penstock_server.features import kernel_set as features
from penstock_server.kernels.kernel_set import KernelSet

KERNEL_SETS: Final[tuple[KernelSet, ...]] = (features.KERNELS,)
