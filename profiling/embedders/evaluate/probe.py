"""What a simple classifier reads out of frozen vectors: linear probes, several labels a row, domain to domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from profiling.embedders.objectives.focal import focal_binary
from profiling.profiles import InvalidProfiles


@dataclass(frozen=True)
class Probe:
    """Accuracy, macro F1 and, for two classes, ROC-AUC (NaN else); `chance`: of the commonest class."""

    accuracy: float
    f1: float
    auc: float
    chance: float
    n: int


def linear_probe(
    train: Float[np.ndarray, "n k"],
    words: Shaped[np.ndarray, " n"],
    test: Float[np.ndarray, "m k"],
    truth: Shaped[np.ndarray, " m"],
    strength: float = 1.0,
) -> Probe:
    """Standardise, logistic regression (L2, 1 / `strength`), and how well it names the test rows.

    Raises InvalidProfiles where the training rows have one class only.
    """
    if len(set(words.astype(str))) < 2:
        raise InvalidProfiles("labels: the training rows have one class only, expected at least 2")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    model.fit(train, words.astype(str))
    known = truth.astype(str)
    said = model.predict(test)
    classes = list(model.classes_)
    auc = float("nan")
    if len(classes) == 2 and len(set(known)) == 2:
        auc = float(roc_auc_score(known == classes[1], model.predict_proba(test)[:, 1]))
    _, counts = np.unique(known, return_counts=True)
    f1 = float(f1_score(known, said, average="macro", zero_division=0.0))
    return Probe(float((said == known).mean()), f1, auc, float(counts.max() / counts.sum()), len(known))


def across_domains(
    values: Float[np.ndarray, "n k"], words: Shaped[np.ndarray, " n"], domain: Shaped[np.ndarray, " n"]
) -> dict[tuple[str, str], Probe]:
    """Trained on one domain (site, laboratory, cell line), tested on each other one (the RBC-MC task)."""
    where = domain.astype(str)
    names = sorted(set(where))
    return {
        (a, b): linear_probe(values[where == a], words[where == a], values[where == b], words[where == b])
        for a in names
        for b in names
        if a != b
    }


@dataclass(frozen=True)
class MultiLabel:
    """Average precision over all decisions (micro) and as the mean over labels (macro); `chance`: mean prevalence."""

    micro: float
    macro: float
    chance: float


def multi_label_probe(
    train: Float[np.ndarray, "n k"],
    truth: Bool[np.ndarray, "n m"],
    test: Float[np.ndarray, "t k"],
    wanted: Bool[np.ndarray, "t m"],
    hidden: int = 256,
    epochs: int = 50,
    seed: int = 1,
) -> MultiLabel:
    """A perceptron of three layers with focal loss (`hidden` 0: a linear probe) on standardised vectors, as CHAMMI-75
    reads protein localisation. Labels without a positive in the test are left out of the macro mean."""
    mean, sd = train.mean(axis=0), train.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    x = torch.from_numpy(((train - mean) / sd).astype(np.float32))
    y = torch.from_numpy(truth.astype(np.float32))
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        k, m = x.shape[1], y.shape[1]
        layers = [nn.Linear(k, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()] if hidden else []
        model = nn.Sequential(*layers, nn.Linear(hidden or k, m))
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3 if hidden else 1e-2, weight_decay=1e-3)
        for _ in range(epochs):
            for part in np.array_split(rng.permutation(len(x)), max(1, len(x) // 256)):
                at = torch.from_numpy(part)
                loss = focal_binary(model(x[at]), y[at])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
    with torch.no_grad():
        said = model(torch.from_numpy(((test - mean) / sd).astype(np.float32))).numpy()
    has = wanted.any(axis=0)
    micro = float(average_precision_score(wanted.ravel(), said.ravel()))
    macro = float(np.mean([average_precision_score(wanted[:, j], said[:, j]) for j in np.flatnonzero(has)]))
    return MultiLabel(micro, macro, float(wanted[:, has].mean()))
