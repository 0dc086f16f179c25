"""Order of convergence of each sampler, and what guidance does to effects, in a world whose scores are exact.

Left: error against the number of steps on a mixture of Gaussians. Right: two compounds and a control, each one
Gaussian; the unconditional score is that of their mixture. The effect of a compound is the difference of means;
guidance changes it, which is why effects refuse every scale but 1. With --model DIR the same is done with the model's
own pictures: effects of the mean and spread of each channel, against those at scale 1.

    python benchmarks/sampler_order.py [--out out/sampler_order] [--model models/simulation-128 --compounds 8 --draws 4]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ldm.mixture import GaussianMixture, errors, order
from ldm.sampler import SAMPLERS, VelocityFn, row_noise
from ldm.schedule import Schedule, time_steps

MIXTURE = GaussianMixture((0.3, 0.7), (-1.0, 1.2), (0.35, 0.5))
NUMBERS = (8, 16, 32, 64, 128)
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
CONTROL, WEAK, STRONG = (
    GaussianMixture((1.0,), (0.0,), (0.5,)),
    *(GaussianMixture((1.0,), (m,), (0.5,)) for m in (0.4, 1.0)),
)
EVERYTHING = GaussianMixture((0.8, 0.1, 0.1), (0.0, 0.4, 1.0), (0.5, 0.5, 0.5))


def guided(of: GaussianMixture, scale: float) -> VelocityFn:
    """The guided velocity, both parts exact."""
    told, free = of.velocity(Schedule()), EVERYTHING.velocity(Schedule())

    def velocity(x: Tensor, t: int) -> Tensor:
        plain = free(x, t)
        return plain + scale * (told(x, t) - plain)

    return velocity


def exact_effects() -> pd.DataFrame:
    """Effect of each compound against the control at every scale, beside the truth."""
    start = row_noise(np.arange(64, dtype=np.uint64), (1, 16, 16), 0).double()
    times = time_steps(Schedule(), 50, "trailing")

    def mean(of: GaussianMixture, scale: float) -> float:
        return float(SAMPLERS["dpm++"](guided(of, scale), start, Schedule(), times, lambda _: start).mean())

    rows = []
    for scale in SCALES:
        control = mean(CONTROL, scale)
        for name, of in (("weak", WEAK), ("strong", STRONG)):
            rows.append({"compound": name, "scale": scale, "effect": mean(of, scale) - control, "truth": of.means[0]})
    return pd.DataFrame(rows)


def model_effects(folder: str, compounds: int, draws: int) -> pd.DataFrame:
    """Length of the model's effect vectors (mean and sd of each channel, in control spreads) at each scale, and their
    cosine with those at scale 1.
    """
    from causal.contexts import Contexts
    from causal.design import draw_contexts
    from service.benchmark_gate import actives
    from service.engine import load_room
    from service.rooms import DMSO_INCHIKEY

    rows = []
    with load_room(folder) as room:
        contexts = Contexts.from_table(room.contexts.plates)
        draw = draw_contexts(contexts, draws, "iid", "valid", 7)
        names = [DMSO_INCHIKEY, *actives(compounds, 7)]
        table = pd.concat([draw.assign(compound=name) for name in names], ignore_index=True)
        vectors = room.vectors(list(table["compound"]))
        first = None
        for scale in SCALES:
            pictures = room._painter.paint(vectors, table, guidance=scale)
            values = np.concatenate([pictures.mean(axis=(2, 3)), pictures.std(axis=(2, 3))], axis=1)
            values = values.reshape(len(names), draws, -1)
            effect = (values[1:] - values[:1]).mean(axis=1) / values[0].std(axis=0).clip(1e-6)
            first = effect if first is None else first
            cosine = (effect * first).sum(1) / np.linalg.norm(effect, axis=1) / np.linalg.norm(first, axis=1)
            length = np.linalg.norm(effect, axis=1) / np.linalg.norm(first, axis=1)
            rows.append({"scale": scale, "length_ratio": float(np.median(length)), "cosine": float(np.median(cosine))})
    return pd.DataFrame(rows)


def draw(found: dict[str, np.ndarray], effects: pd.DataFrame, path: Path) -> None:
    """Both panels as one SVG file."""
    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, error in found.items():
        left.loglog(NUMBERS, error, "o-", label=f"{name}: order {order(NUMBERS[1:], error[1:]):.2f}")
    left.set(xlabel="steps", ylabel="error (root mean square)", title="exact scores, mixture of Gaussians")
    left.legend(frameon=False)
    for name, part in effects.groupby("compound", sort=False):
        right.plot(part["scale"], part["effect"] - part["truth"], "o-", label=str(name))
    right.axhline(0.0, color="0.6", lw=0.8)
    right.set(xlabel="guidance scale", ylabel="bias of the effect", title="guidance biases effects")
    right.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/sampler_order"))
    parser.add_argument("--model", default=None)
    parser.add_argument("--compounds", type=int, default=8)
    parser.add_argument("--draws", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    found = {name: errors(SAMPLERS[name], NUMBERS, MIXTURE, 2048) for name in ("ddim", "dpm++", "unipc")}
    for name, error in found.items():
        print(f"{name:6s} order {order(NUMBERS[1:], error[1:]):.2f}  " + " ".join(f"{e:.1e}" for e in error))
    effects = exact_effects()
    print(effects.to_string(index=False))
    draw(found, effects, options.out / "sampler_order.svg")
    result = {
        "benchmark": "sampler_order",
        "orders": {name: round(order(NUMBERS[1:], error[1:]), 3) for name, error in found.items()},
        "guidance_exact": effects.round(4).to_dict("records"),
    }
    if options.model:
        own = model_effects(options.model, options.compounds, options.draws)
        print(own.to_string(index=False))
        result["guidance_model"] = own.round(4).to_dict("records")
    (options.out / "sampler_order.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
