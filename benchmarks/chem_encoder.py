"""How good is a molecule vector? Nearest neighbour of the same mechanism, and agreement of two spellings.

    python benchmarks/chem_encoder.py FOLDER [--random]     table, then one JSON line

Task 1, on the library's drugs: is the nearest other drug (cosine after z-scoring each number over the seen drugs) of
the same class? All drugs leave-one-out, then the two unseen halves against the seen drugs. Chance is about 1 in 20.
Task 2: encode two random spellings of each drug; share whose nearest vector among all second spellings is their own.
Beside it, in the same run: Tanimoto on Morgan bits, cosine on Morgan counts and, with --random, the same network with
random weights. The interval is a paired bootstrap over drugs of the gain over random (95 %).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import T5EncoderModel

from chem.corpus import respell
from chem.encoder import Encoder, load_encoder
from chem.fingerprint import morgan_bits, morgan_counts, tanimoto
from chem.library import drugs, load_library

ROOT = Path(__file__).resolve().parent.parent


def cosine(vectors: np.ndarray, fit: np.ndarray) -> np.ndarray:
    """Cosine similarity of all pairs after z-scoring with the mean and deviation of the rows `fit`."""
    scaled = (vectors - vectors[fit].mean(0)) / (vectors[fit].std(0) + 1e-8)
    scaled /= np.linalg.norm(scaled, axis=1, keepdims=True) + 1e-12
    return scaled @ scaled.T


def hits(similarity: np.ndarray, labels: np.ndarray, references: np.ndarray) -> np.ndarray:
    """For each row: is its most similar reference row (never itself) of the same class?"""
    allowed = np.where(references[None, :], similarity, -np.inf)
    np.fill_diagonal(allowed, -np.inf)
    return labels[allowed.argmax(1)] == labels


def random_twin(encoder: Encoder, seed: int) -> Encoder:
    """The same architecture and tokenizer with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = T5EncoderModel(encoder.network.config).eval().requires_grad_(False)
    return Encoder("random", "", encoder.dim, encoder.tokenizer, network)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--random", action="store_true")
    arguments = parser.parse_args()
    table = drugs(load_library(ROOT / "configs" / "library"))
    smiles, labels = table["smiles"].tolist(), table["moa"].to_numpy()
    seen = (table["split"] == "seen").to_numpy()
    everyone = np.ones(len(table), bool)
    rng = np.random.default_rng(0)
    first = [respell(text, rng, 0.0) for text in smiles]
    second = [respell(text, rng, 0.0) for text in smiles]
    encoders = {"trained": load_encoder(arguments.folder)}
    if arguments.random:
        encoders["random"] = random_twin(encoders["trained"], 0)
    similarity = {"morgan bits, tanimoto": tanimoto(morgan_bits(smiles), morgan_bits(smiles))}
    similarity["morgan counts, cosine"] = cosine(morgan_counts(smiles), seen)
    spelling: dict[str, float] = {}
    for name, encoder in encoders.items():
        similarity[name] = cosine(encoder.encode(smiles, batch_size=16), seen)
        both = np.concatenate([encoder.encode(first, batch_size=16), encoder.encode(second, batch_size=16)])
        cross = cosine(both, np.ones(len(both), bool))[: len(first), len(first) :]
        spelling[name] = float((cross.argmax(1) == np.arange(len(first))).mean())
    result: dict[str, dict[str, float]] = {}
    found = {name: hits(pairs, labels, everyone) for name, pairs in similarity.items()}
    for name, pairs in similarity.items():
        against_seen = hits(pairs, labels, seen)
        result[name] = {"leave_one_out": float(found[name].mean())}
        for part in ("unseen_random", "unseen_scaffold"):
            result[name][part] = float(against_seen[(table["split"] == part).to_numpy()].mean())
        if name in spelling:
            result[name]["spelling"] = spelling[name]
        print(f"{name:24s}", "  ".join(f"{key} {value:.3f}" for key, value in result[name].items()))
    if arguments.random:
        gain = found["trained"].astype(float) - found["random"]
        means = [rng.choice(gain, len(gain)).mean() for _ in range(2000)]
        low, high = np.percentile(means, [2.5, 97.5])
        result["gain over random"] = {"mean": float(gain.mean()), "low": float(low), "high": float(high)}
        print(f"gain over random {gain.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
