"""Checkpoints: damage of every kind is refused by name, a full disk leaves the earlier file."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.checkpoint import CheckpointError, Ema, Progress, load_checkpoint, save_checkpoint
from ldm.data import TrainingDataError, load_data
from ldm.latents import cached_latents


def network(width: int = 3) -> tuple[nn.Module, Ema, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 1))
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.1)
    net(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    return net, Ema(net, 0.9), optimiser


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "run.safetensors"
    save_checkpoint(path, *network(), Progress(7, 1.5, "recipe"))
    return path


def test_a_whole_checkpoint_comes_back(checkpoint: Path) -> None:
    net, ema, optimiser = network()
    with torch.no_grad():
        net[0].weight.zero_()
    assert load_checkpoint(checkpoint, net, ema, optimiser, "recipe") == Progress(7, 1.5, "recipe")
    assert torch.equal(net[0].weight, network()[0][0].weight)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


def pickle(path: Path) -> None:
    torch.save({"weights.0.weight": torch.zeros(3, 4)}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_shape(path: Path) -> None:
    save_checkpoint(path, *network(5), Progress(7, 1.5, "recipe"))


def without_a_tensor(path: Path) -> None:
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(path)
    del tensors["ema.0.weight"], metadata["sha256"]
    save_file(tensors, path, metadata=metadata)


def foreign(path: Path) -> None:
    save_file({"weights.0.weight": torch.zeros(3, 4)}, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"run\.safetensors is not a whole safetensors file"),
        (empty, r"run\.safetensors is not a whole safetensors file"),
        (pickle, r"run\.safetensors is not a whole safetensors file"),
        (flip, r"run\.safetensors is not what was written"),
        (other_shape, r"run\.safetensors does not fit the network at 0\.bias"),
        (without_a_tensor, r"run\.safetensors does not fit the network at 0\.weight"),
        (foreign, r"run\.safetensors holds no progress"),
    ],
)
def test_damage_is_refused_by_name(checkpoint: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(checkpoint)
    net, ema, optimiser = network()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(checkpoint, net, ema, optimiser, "recipe")
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


class FullDisk:
    """No file may grow beyond `size` bytes: the kernel refuses the write, as it does on a full disk."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)


def test_a_full_disk_leaves_the_earlier_checkpoint(checkpoint: Path) -> None:
    raw = checkpoint.read_bytes()
    with FullDisk(len(raw) // 2), pytest.raises(CheckpointError, match="the earlier checkpoint is untouched, free"):
        save_checkpoint(checkpoint, *network(), Progress(8, 2.0, "recipe"))
    assert checkpoint.read_bytes() == raw
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_latents_that_find_no_room_stop_in_one_sentence(tiny_training: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = build_network(AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)).eval()
    data = load_data(tiny_training)
    with FullDisk(1000), pytest.raises(TrainingDataError, match=r"latents\.npy could not be made .* free some disk"):
        cached_latents(GroupAutoencoder(vae, ChannelGroups()), data, tmp_path)
    assert not list(tmp_path.iterdir())
