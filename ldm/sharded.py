"""Training with weights, averages and optimiser state cut over processes (FSDP 2), instead of copied to each (DDP).

`accelerate launch --config_file configs/accelerate/fsdp.yaml` asks for it. Accelerate itself shards on accelerators
only; `fully_shard` of torch does it on processors too (gloo), so that the same lines run in a test. Every rank must
take part in whatever gathers: checkpoints, held-out losses, norms.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from ldm.checkpoint import Ema
from ldm.pieces import whole
from ldm.unet import Denoiser

ASKED = "ACCELERATE_USE_FSDP"  # what `accelerate launch` says to its processes


def asked(accelerator: Accelerator) -> bool:
    """Whether weights are to be sharded: asked for, and there is more than one process."""
    return os.environ.get(ASKED, "false").lower() == "true" and int(accelerator.num_processes) > 1


def shard(
    accelerator: Accelerator, net: Denoiser, optimiser: torch.optim.Optimizer, ema: Ema, precision: str
) -> Denoiser:
    """Cut everything in place, each block of the U-Net by itself and the rest together; returns the network.

    All ranks must hold the same whole weights, averages and optimiser state before. precision: "bf16" computes in it
    and reduces gradients in float32.
    """
    mesh = init_device_mesh(accelerator.device.type, (int(accelerator.num_processes),))
    policy = MixedPrecisionPolicy()
    if precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    before = list(net.parameters())
    held = [{**optimiser.state[p]} for p in before]
    blocks: list[nn.Module] = [*net.unet.down_blocks, net.unet.mid_block, *net.unet.up_blocks]
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(net, "statistics")
    after = list(net.parameters())
    place = {id(old): new for old, new in zip(before, after, strict=True)}
    for group in optimiser.param_groups:
        group["params"] = [place[id(p)] for p in group["params"]]
    optimiser.state.clear()
    for new, state in zip(after, held, strict=True):
        if state:
            optimiser.state[new] = {name: _like(value, new) for name, value in state.items()}
    weights = dict(net.named_parameters())
    ema.average = {name: _like(value, weights[name]) for name, value in ema.average.items()}
    return net


def settle(net: nn.Module) -> None:
    """Give back what a pass without a backward one has put together, so that every parameter is its piece again."""
    for module in net.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def agreed(accelerator: Accelerator, wish: bool) -> bool:
    """What the main process wishes, on every rank: clocks differ."""
    told = broadcast(torch.tensor(float(wish), device=accelerator.device))
    return bool(told > 0)


def clip(net: nn.Module, most: float) -> Tensor:
    """Scale gradients to a norm of at most `most` over all ranks; returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), most)
    gathered: Tensor = whole(norm)
    return gathered


def _like(value: Any, parameter: Tensor) -> Any:
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
