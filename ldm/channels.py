"""Named channels, and the three-channel groups that an RGB autoencoder takes.

Five channels make two groups, (DNA, ER, RNA) and (DNA, AGP, Mito): the first channel of a staining set stands in
every group, so that each group sees where the nuclei are; coming back, the repeated channel is averaged. Three
channels make one group.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
GROUP_SIZE = 3


class ChannelError(ValueError):
    """Raised when channel names or the number of channels do not fit."""


def default_groups(names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Split channel names into groups of three, the first channel repeated in every group.

    Five names a, b, c, d, e give (a, b, c) and (a, d, e); three give one group; other counts are filled up with the
    first name, so two names a, b give (a, b, a).
    """
    if len(names) <= GROUP_SIZE:
        return ((*names, *[names[0]] * (GROUP_SIZE - len(names))),)
    rest = names[1:]
    step = GROUP_SIZE - 1
    groups = []
    for start in range(0, len(rest), step):
        part = rest[start : start + step]
        groups.append((names[0], *part, *[names[0]] * (step - len(part))))
    return tuple(groups)


@dataclass(frozen=True)
class ChannelGroups:
    """Which named channels there are, and in which groups of three they go through the autoencoder.

    names: unique channel names in picture order. groups: each three names of `names`; together they name every
    channel at least once.
    """

    names: tuple[str, ...] = CHANNELS
    groups: tuple[tuple[str, ...], ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            raise ChannelError(
                f"channel names: got {self.names!r}, expected at least one name and no name twice; rename the channels"
            )
        if not self.groups:
            object.__setattr__(self, "groups", default_groups(self.names))
        named = {name for group in self.groups for name in group}
        if any(len(group) != GROUP_SIZE for group in self.groups) or named != set(self.names):
            raise ChannelError(
                f"channel groups: got {self.groups!r}, expected groups of {GROUP_SIZE} names that together name "
                f"{self.names!r}; leave groups out to get the default"
            )

    @property
    def index(self) -> tuple[tuple[int, ...], ...]:
        """Position in `names` of every channel of every group."""
        return tuple(tuple(self.names.index(name) for name in group) for group in self.groups)


def to_groups(pictures: Float[Tensor, "b c h w"], channels: ChannelGroups) -> Float[Tensor, "b g 3 h w"]:
    """Arrange pictures [b, c, h, w] into groups [b, groups, 3, h, w]; a repeated channel is copied.

    Raises ChannelError when the number of channels is not the number of names.
    """
    if pictures.shape[1] != len(channels.names):
        raise ChannelError(
            f"pictures: got {pictures.shape[1]} channels, expected {len(channels.names)} "
            f"({', '.join(channels.names)}); name the channels of the pictures"
        )
    return torch.stack([pictures[:, list(group)] for group in channels.index], dim=1)


def from_groups(grouped: Float[Tensor, "b g 3 h w"], channels: ChannelGroups) -> Float[Tensor, "b c h w"]:
    """Bring groups [b, groups, 3, h, w] back to pictures [b, c, h, w]; a channel that stands more than once is
    averaged.

    Raises ChannelError when the number of groups differs.
    """
    if grouped.shape[1] != len(channels.groups):
        raise ChannelError(
            f"groups: got {grouped.shape[1]}, expected {len(channels.groups)}; use the channel groups that the "
            "latents were made with"
        )
    back = []
    for position in range(len(channels.names)):
        copies = [
            grouped[:, g, k] for g, group in enumerate(channels.index) for k, at in enumerate(group) if at == position
        ]
        back.append(torch.stack(copies).mean(dim=0))
    return torch.stack(back, dim=1)
