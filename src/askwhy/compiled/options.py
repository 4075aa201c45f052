"""How numba compiles: kept on disk, without Python's lock, with the numbers of IEEE arithmetic."""

from __future__ import annotations

from typing import Any

from numba.core.cpu import CPUTargetOptions

KERNEL: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
FUSED = {"contract", "nsz"}  # for fastmath=: a product and a sum in one step; nothing that changes what a NaN or an infinity does

# For functions that make no arrays. numba counts the references to every array at every call, with atomic instructions; the option
# that leaves this out has no public name, so that a numba without it does without.
LEAN = KERNEL | {"forceinline": True} | ({"_nrt": False} if hasattr(CPUTargetOptions, "_nrt") else {})
