"""The network that the small encoder is trained in: T5 encoder-decoder, and what its masked mean must say.

Three losses of a batch: cross-entropy of hidden spans (T5, MolT5); regression of the masked mean on the targets
(chem/encoder_targets.py); and InfoNCE (van den Oord 2018), in which each molecule must find its partner, a near
molecule, among all others of the batch. The regression goes through one gain and one offset a dimension only, so that
the geometry of the mean itself must follow. Heads of attention begin by looking at the token before, after, at
themselves and a few before: without that local start short trainings do not learn to read rings.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import T5Config, T5ForConditionalGeneration

from chem.encode_t5 import masked_mean

LOOKS = ((-1, 1.5), (1, 1.5), (0, 1.5), (-3, 0.375))  # of each head: relative place, loss of logit per token off it
FARTHEST = -6.0  # lowest logit of the local start


class Batch(NamedTuple):
    """One step's rows: tokens and mask [b t], targets [b d]; row i and row i + b/2 are partners.

    The first c rows are corrupted; `labels` [c u] are their hidden spans.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor


class Losses(NamedTuple):
    """Mean losses of a batch; `structure` is 1 for a constant prediction, `contrast` log(b - 1) for chance."""

    spans: torch.Tensor
    structure: torch.Tensor
    contrast: torch.Tensor


class SmallT5(nn.Module):
    """T5 encoder-decoder, gain and offset from the masked mean to the targets, and the temperature of the contrast."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.t5 = T5ForConditionalGeneration(config)
        self.gain = nn.Parameter(torch.full((config.d_model,), 2.0))
        self.offset = nn.Parameter(torch.zeros(config.d_model))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(10.0)))
        start_local(self.t5)

    def forward(self, batch: Batch) -> Losses:
        """All three losses of one batch."""
        states = self.t5.encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        corrupted = len(batch.labels)
        spans = self.t5(
            encoder_outputs=(states[:corrupted],), attention_mask=batch.mask[:corrupted], labels=batch.labels
        ).loss
        predicted = self.gain * masked_mean(states.float(), batch.mask) + self.offset
        structure = functional.mse_loss(predicted, batch.targets) / batch.targets.var()
        return Losses(spans, structure, contrast(predicted, self.log_sharpness.exp()))


def contrast(vectors: torch.Tensor, sharpness: torch.Tensor) -> torch.Tensor:
    """InfoNCE of partners i and i + b/2 among the b - 1 other rows, by cosine times `sharpness`; vectors [b d]."""
    unit = functional.normalize(vectors, dim=1)
    alike = sharpness * unit @ unit.T
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    partner = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return functional.cross_entropy(alike.float().masked_fill(itself, -math.inf), partner)


@torch.no_grad()
def start_local(t5: Any) -> None:
    """Set the encoder's relative attention bias so that head h looks at `LOOKS`[h] (again from the first, if more)."""
    attention = t5.encoder.block[0].layer[0].SelfAttention
    bias = attention.relative_attention_bias.weight
    away = torch.arange(-40, 41)
    bucket = attention._relative_position_bucket(
        away,
        bidirectional=True,
        num_buckets=attention.relative_attention_num_buckets,
        max_distance=attention.relative_attention_max_distance,
    )
    for head in range(bias.shape[1]):
        place, slope = LOOKS[head % len(LOOKS)]
        logits = torch.full((bias.shape[0],), FARTHEST)
        logits.scatter_reduce_(0, bucket, -slope * (away - place).abs().float(), "amax")
        bias[:, head] = logits
