"""What every encoder is, whatever is inside it: molecules in, one vector a molecule out, under a name and a hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from chem.molecule import Molecule


class EncoderError(ValueError):
    """An encoder that cannot be found, loaded or used as asked; the message says what to do."""


@runtime_checkable
class Encoder(Protocol):
    """What a model asks of an encoder. Equal `hash` means equal vectors (on one kind of machine)."""

    @property
    def name(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def dim(self) -> int: ...

    def encode(self, molecules: Sequence[Molecule] | Sequence[str], *, batch_size: int = 1) -> Float[np.ndarray, "n d"]:
        """One vector a molecule, float32."""
        ...
