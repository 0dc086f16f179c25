"""Training on two processes (gloo, on processors) ends where one does with the same global batch, copied (DDP) or cut
(FSDP); what the launch files ask of accelerate.
"""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file

from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups

VAE = AutoencoderConfig(widths=(4, 4, 8), latent_channels=2, norm_groups=2)
RECIPE = """
[unet]
latent_size = 4
latent_channels = 4
widths = [8, 16]
layers = 1
head_width = 8
norm_groups = 4
token_width = 8
pooled = 8
[condition]
hidden = 8
fourier = 1
[diffusion_training]
batch = 4
steps = 5
statistics_steps = 2
statistics_batch = 8
warmup_steps = 2
log_every = 1
validate_rows = 4
"""


def launch_environment(repository: Path, file: str) -> dict[str, str]:
    """What `accelerate launch --config_file` would tell its processes."""
    arguments = ["--config_file", str(repository / "configs" / "accelerate" / file), "-m", "ldm.train"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    return {name: value for name, value in prepare_multi_gpu_env(args).items() if name not in os.environ}


@pytest.mark.parametrize(("file", "sharded"), [("ddp.yaml", None), ("fsdp.yaml", "true")])
def test_launch_files_say_what_the_code_asks_for(repository: Path, file: str, sharded: str | None) -> None:
    told = launch_environment(repository, file)
    assert told.get("ACCELERATE_USE_FSDP") == sharded
    assert told["ACCELERATE_MIXED_PRECISION"] == "no"
    if sharded:
        assert told["FSDP_VERSION"] == "2"


State = tuple[dict[str, torch.Tensor], list[float]]


def trained(folder: Path, data: Path, processes: int, environment: dict[str, str]) -> State:
    """The last checkpoint (weights, their average, AdamW's moments), and the loss of every step of stage two."""
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    GroupAutoencoder(build_network(VAE), ChannelGroups()).save(folder / "vae")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(port)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "ldm.train", str(recipe)]
    done = subprocess.run(
        [*command, "--data", str(data), "--out", str(folder)],
        env={**os.environ, **environment, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert (folder / "model" / "model_index.json").is_file()
    losses = {
        int(step): float(loss) for step, loss in re.findall(r" step (\d+) .* v ([\d.]+)$", done.stdout, re.MULTILINE)
    }
    return load_file(folder / "diffusion.safetensors"), [losses[step] for step in sorted(losses)]


@pytest.fixture(scope="module")
def alone(tiny_training: Path, tmp_path_factory: pytest.TempPathFactory) -> State:
    """One process."""
    folder = tmp_path_factory.mktemp("alone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return trained(folder, tiny_training, 1, {})


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize("file", ["ddp.yaml", "fsdp.yaml"])
def test_two_processes_learn_what_one_learns(
    file: str, repository: Path, tiny_training: Path, tmp_path: Path, alone: State
) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        two, losses_two = trained(tmp_path, tiny_training, 2, launch_environment(repository, file))
    one, losses_one = alone
    assert set(two) == set(one)
    for name, value in one.items():
        # float32 sums in another order; AdamW's first steps divide by gradients of about that size
        torch.testing.assert_close(two[name], value, rtol=2e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}")
    assert len(losses_two) == 5
    assert losses_two == pytest.approx(losses_one, abs=2e-4)  # the log has four decimals
