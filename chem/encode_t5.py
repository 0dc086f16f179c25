"""Molecules -> vectors by a T5 encoder (MolT5's architecture): the masked mean over its tokens, or the tokens.

The mean includes the end mark. By default one molecule at a time, in float32, on one fixed number of threads, so the
bytes of a vector depend on the molecule and the weights only, never on its neighbours in the list.
"""

from __future__ import annotations

import hashlib
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
from chem.vector import EncoderError

THREADS = 1
MAX_TOKENS = 512
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class T5Encoder:
    """A loaded T5 encoder. `name` is what was asked for.

    `hash` is the SHA-256 of weights, tokenizer and config, and of the precision where that is not float32.
    """

    name: str
    hash: str
    dim: int
    tokenizer: Any
    network: Any

    def encode(
        self, molecules: Sequence[Molecule] | Sequence[str], *, batch_size: int = 1, by_length: bool = True
    ) -> Float[np.ndarray, "n d"]:
        """Masked mean of the tokens of each molecule, float32.

        With `batch_size` 1 (default) the same molecule has the same bytes in any list. Larger batches are padded:
        faster, equal within about 1e-5 (float32). They are made of molecules of about one length unless `by_length` is
        false, which is there to measure what that saves. Tokens beyond 512 are cut.
        """
        if batch_size < 1:
            raise EncoderError(f"batch_size must be at least 1; got {batch_size}.")
        tokens = [self._tokens(_text(molecule)) for molecule in molecules]
        vectors = np.zeros((len(tokens), self.dim), np.float32)
        rows = list(range(len(tokens)))
        if batch_size > 1 and by_length:
            rows.sort(key=lambda row: len(tokens[row]))
        with torch.inference_mode(), fixed_threads(THREADS):
            for start in range(0, len(rows), batch_size):
                chosen = rows[start : start + batch_size]
                states, mask = self._states([tokens[row] for row in chosen])
                vectors[chosen] = masked_mean(states, mask).cpu().numpy()
        return vectors

    def encode_tokens(self, molecule: Molecule | str) -> Float[np.ndarray, "t d"]:
        """The encoder's output for every token of one molecule (the end mark last), float32."""
        with torch.inference_mode(), fixed_threads(THREADS):
            states, _ = self._states([self._tokens(_text(molecule))])
        return np.asarray(states[0].cpu().numpy(), np.float32)

    def encode_sequences(
        self, molecules: Sequence[Molecule] | Sequence[str], *, batch_size: int = 1
    ) -> list[Float[np.ndarray, "t d"]]:
        """The token sequences of many molecules, each of its own length, in the order given."""
        if batch_size < 1:
            raise EncoderError(f"batch_size must be at least 1; got {batch_size}.")
        tokens = [self._tokens(_text(molecule)) for molecule in molecules]
        rows = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
        found: dict[int, np.ndarray] = {}
        with torch.inference_mode(), fixed_threads(THREADS):
            for start in range(0, len(rows), batch_size):
                chosen = rows[start : start + batch_size]
                states, _ = self._states([tokens[row] for row in chosen])
                for place, row in enumerate(chosen):
                    found[row] = np.array(states[place, : len(tokens[row])].cpu().numpy(), np.float32)
        return [found[row] for row in range(len(tokens))]

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return ids

    def _states(self, tokens: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 states [b t d] of padded sequences, and their mask [b t]."""
        longest = max(len(ids) for ids in tokens)
        ids = torch.zeros((len(tokens), longest), dtype=torch.long)
        mask = torch.zeros((len(tokens), longest))
        for row, line in enumerate(tokens):
            ids[row, : len(line)] = torch.tensor(line)
            mask[row, : len(line)] = 1.0
        ids, mask = ids.to(self.network.device), mask.to(self.network.device)
        return self.network(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask


def _text(molecule: Molecule | str) -> str:
    return molecule.smiles if isinstance(molecule, Molecule) else molecule


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens with mask 1: [b t d], [b t] -> [b d]."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


def load_t5(folder: Path, name: str, device: str, precision: str) -> T5Encoder:
    """Load a T5 folder without the network: config.json, SentencePiece tokenizer, weights (a whole T5 or its encoder).

    Raises `EncoderError` when it is incomplete or the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = T5EncoderModel.from_pretrained(folder, local_files_only=True, dtype=PRECISIONS[precision])
    except (OSError, ValueError, KeyError, ImportError) as error:
        cause = str(error).strip().splitlines()[0]
        raise EncoderError(f"the encoder in {folder} cannot be loaded: {cause}") from error
    network = network.eval().requires_grad_(False).to(device)
    digest = folder_hash(folder)
    if precision != "float32":
        digest = hashlib.sha256(f"{digest} {precision}".encode()).hexdigest()
    return T5Encoder(name, digest, int(network.config.d_model), tokenizer, network)


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
