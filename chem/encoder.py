"""Molecules -> vectors by a T5 encoder: MolT5 from a hub id or a folder, and the shipped small one, by the same path.

The default vector is the masked mean over the encoder's tokens (the end mark included). One molecule at a time, in
float32, on one fixed number of threads, so the bytes of a vector depend on the molecule and the weights only, never on
its neighbours in the list.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers import AutoTokenizer, T5EncoderModel

from chem.molecule import Molecule

# name -> (hub id or folder inside a model folder, what it is)
ENCODERS: dict[str, tuple[str, str]] = {
    "small-t5": ("encoder", "shipped with a model: small T5 trained on JUMP SMILES, masked mean, 256 numbers"),
    "molt5-small": ("laituan245/molt5-small", "MolT5 small (Edwards et al. 2022), masked mean, 512 numbers"),
    "molt5-base": ("laituan245/molt5-base", "MolT5 base, masked mean, 768 numbers"),
    "molt5-large": ("laituan245/molt5-large", "MolT5 large, masked mean, 1,024 numbers"),
}
THREADS = 1
MAX_TOKENS = 512


class EncoderError(ValueError):
    """An encoder that cannot be found or loaded; the message says what to do."""


@dataclass(frozen=True)
class Encoder:
    """A loaded T5 encoder. `name` is what was asked for; `hash` is the SHA-256 of weights, tokenizer and config."""

    name: str
    hash: str
    dim: int
    tokenizer: Any
    network: Any

    def encode(self, molecules: Sequence[Molecule] | Sequence[str], *, batch_size: int = 1) -> Float[np.ndarray, "n d"]:
        """Masked mean of the tokens of each molecule, float32.

        With `batch_size` 1 (default) the same molecule has the same bytes in any list. Larger batches are sorted by
        length and padded: faster on a GPU, equal within about 1e-5. Tokens beyond 512 are cut.
        """
        if batch_size < 1:
            raise EncoderError(f"batch_size must be at least 1; got {batch_size}.")
        texts = [m.smiles if isinstance(m, Molecule) else m for m in molecules]
        tokens = [self._tokens(text) for text in texts]
        vectors = np.zeros((len(texts), self.dim), np.float32)
        rows = list(range(len(texts)))
        if batch_size > 1:
            rows.sort(key=lambda row: len(tokens[row]))
        with torch.inference_mode(), fixed_threads(THREADS):
            for start in range(0, len(rows), batch_size):
                chosen = rows[start : start + batch_size]
                vectors[chosen] = self._pooled([tokens[row] for row in chosen])
        return vectors

    def encode_tokens(self, molecule: Molecule | str) -> Float[np.ndarray, "t d"]:
        """The encoder's output for every token of one molecule (the end mark last), float32."""
        ids = self._tokens(molecule.smiles if isinstance(molecule, Molecule) else molecule)
        with torch.inference_mode(), fixed_threads(THREADS):
            states = self.network(input_ids=torch.tensor([ids], device=self.network.device)).last_hidden_state
        return np.asarray(states[0].float().cpu().numpy(), np.float32)

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return ids

    def _pooled(self, tokens: list[list[int]]) -> np.ndarray:
        longest = max(len(ids) for ids in tokens)
        ids = torch.zeros((len(tokens), longest), dtype=torch.long)
        mask = torch.zeros((len(tokens), longest))
        for row, line in enumerate(tokens):
            ids[row, : len(line)] = torch.tensor(line)
            mask[row, : len(line)] = 1.0
        ids, mask = ids.to(self.network.device), mask.to(self.network.device)
        states = self.network(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return np.asarray(masked_mean(states, mask).cpu().numpy(), np.float32)


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens with mask 1: [b t d], [b t] -> [b d]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def load_encoder(name_or_folder: str | Path, *, device: str = "cpu") -> Encoder:
    """Load a T5 encoder and its tokenizer from a name in `ENCODERS`, a hub id (owner/name) or a local folder.

    A folder is used without the network. Stored half-precision weights are run in float32. Raises `EncoderError` when
    the folder is missing or incomplete, or the hub cannot be reached (then with the way to download by hand).
    """
    asked = str(name_or_folder)
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = _hub_folder(asked)
    if not (folder / "config.json").is_file():
        raise EncoderError(f"{folder} is not an encoder folder: it has no config.json.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = T5EncoderModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, KeyError, ImportError) as error:
        cause = str(error).strip().splitlines()[0]
        raise EncoderError(f"the encoder in {folder} cannot be loaded: {cause}") from error
    network = network.eval().requires_grad_(False).to(device)
    return Encoder(asked, folder_hash(folder), int(network.config.d_model), tokenizer, network)


def folder_hash(folder: Path | str) -> str:
    """SHA-256 over name and content of the files that decide a vector: weights, tokenizer and config."""
    digest = hashlib.sha256()
    kept = (".safetensors", ".bin", ".model", ".json")
    files = sorted(path for path in Path(folder).iterdir() if path.suffix in kept and path.name != "training.json")
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextmanager
def fixed_threads(count: int) -> Iterator[None]:
    """Run the body with `count` torch threads and put the old number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _hub_folder(asked: str) -> Path:
    hub_id = ENCODERS[asked][0] if asked in ENCODERS else asked
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/")):
        known = ", ".join(sorted(ENCODERS))
        raise EncoderError(f"no encoder folder {asked!r}; give a folder, a hub id (owner/name) or one of {known}.")
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.bin", "*.model"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted, local_files_only=_offline()))
    except Exception as error:  # the hub's client raises many types; each means that the folder is not here
        raise EncoderError(
            f"the encoder {hub_id} is not on this machine and its hub cannot be reached; on a machine with network run "
            f"'hf download {hub_id} --local-dir DIR', copy DIR here and give its path instead of the name."
        ) from error


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on"}
