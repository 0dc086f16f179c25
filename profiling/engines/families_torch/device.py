"""The device that a batch is measured on: checked before anything is opened, so that nobody waits for a refusal."""

from __future__ import annotations

import torch

DEVICES = ("cpu", "cuda")


class InvalidDevice(ValueError):
    """No such device, here or anywhere."""


def checked(name: str) -> torch.device:
    """The device of a name: "cpu", "cuda", or "cuda:1" for the second GPU.

    Raises:
        InvalidDevice: another name, or a GPU that torch does not see.
    """
    kind, _, number = name.partition(":")
    if kind not in DEVICES or (number and (kind == "cpu" or not number.isdecimal())):
        raise InvalidDevice(f"device: got {name!r}, expected one of {', '.join(DEVICES)}, or cuda:1 for the second GPU")
    if kind == "cuda":
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(number or 0) >= seen:
            raise InvalidDevice(
                f"device: got {name!r}, but torch {torch.__version__} sees {seen} GPUs: use --device cpu or leave it "
                "out, or install a torch with CUDA on a machine that has one"
            )
    return torch.device(name)
