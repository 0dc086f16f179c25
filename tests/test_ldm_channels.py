"""Groups of three channels and back; what is refused."""

import pytest
import torch

from ldm.channels import CHANNELS, ChannelError, ChannelGroups, from_groups, to_groups


def test_five_channels_make_the_two_groups_of_the_paper() -> None:
    assert ChannelGroups().groups == (("DNA", "ER", "RNA"), ("DNA", "AGP", "Mito"))
    grouped = to_groups(torch.arange(5.0).view(1, 5, 1, 1), ChannelGroups())
    assert grouped.flatten().tolist() == [0, 1, 2, 0, 3, 4]


@pytest.mark.parametrize(
    "names", [("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "c", "d"), CHANNELS, tuple("abcdefg")]
)
def test_round_trip_of_any_named_channels(names: tuple[str, ...]) -> None:
    channels = ChannelGroups(names)
    pictures = torch.randn(2, len(names), 4, 4)
    assert len(channels.groups) == max(1, len(names) // 2)
    torch.testing.assert_close(from_groups(to_groups(pictures, channels), channels), pictures)


def test_a_repeated_channel_comes_back_as_the_average() -> None:
    grouped = torch.zeros(1, 2, 3, 1, 1)
    grouped[0, 0, 0], grouped[0, 1, 0] = 1.0, 3.0
    assert from_groups(grouped, ChannelGroups())[0, 0].item() == 2.0


def test_three_channels_are_one_group() -> None:
    assert ChannelGroups(("Actin", "Tubulin", "DNA")).groups == (("Actin", "Tubulin", "DNA"),)


def test_bad_channels_are_refused() -> None:
    with pytest.raises(ChannelError, match="got 3 channels, expected 5"):
        to_groups(torch.zeros(1, 3, 2, 2), ChannelGroups())
    with pytest.raises(ChannelError, match="no name twice"):
        ChannelGroups(("DNA", "DNA"))
    with pytest.raises(ChannelError, match="together name"):
        ChannelGroups(("a", "b", "c"), (("a", "b", "b"),))
    with pytest.raises(ChannelError, match="got 1, expected 2"):
        from_groups(torch.zeros(1, 1, 3, 2, 2), ChannelGroups())
