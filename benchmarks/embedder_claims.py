"""Each paper's claim, tested as a claim in the painted world: train, measure, compare, say whether it holds.

`python benchmarks/embedder_claims.py --out runs/claims --minutes 25` paints screens, trains every small recipe that a
claim needs (what is trained already is kept), and prints a table and one JSON line. A claim holds where the 95 %
interval of its paired difference over compounds lies on the claimed side of zero. `--only brightfield` (or chammi,
phenoprofiler, trex) runs one paper. Each training takes `--minutes` on `--threads` cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.embedders.data import load_pictures
from profiling.embedders.train import load_recipe, run
from profiling.embedders.trex import TrexConfig, fit
from profiling.profiles import Profiles
from service.embedder_screen import ScreenConfig, paint
from service.embedder_targets import measure_rows, write_targets
from service.measure import Options
from service.representation_scores import MECHANISM, REPLICATES, STEPS, complete, gain, prepared
from service.representations import chosen, untrained_twin

CONTROL = "IAZDPXIOMUYVGZ-UHFFFAOYSA-N"
RECIPES = Path(__file__).resolve().parent.parent / "configs" / "embedders"
Prepared = tuple[Profiles, np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """`wanted`: "gain" (above zero) or "none" (zero within the interval)."""

    claim: str
    metric: str
    value: float
    low: float
    high: float
    wanted: str

    @property
    def holds(self) -> bool:
        """Whether the interval lies on the claimed side."""
        return self.low > 0 if self.wanted == "gain" else self.low <= 0


@dataclass(frozen=True)
class Lab:
    """Where everything lies, and how long a training takes."""

    out: Path
    minutes: float
    threads: int
    screen: ScreenConfig
    rows: int

    def data(self, kind: str) -> Path:
        """A painted screen, painted once."""
        folder = self.out / kind
        if not (folder / "intensity.json").is_file():
            lines = ("U2OS-sim", "A549-sim") if kind == "lines" else self.screen.lines
            painted = "brightfield" if kind == "brightfield" else "fluorescence"
            paint(folder, replace(self.screen, kind=painted, lines=lines))
        return folder

    def trained(self, recipe: str, kind: str) -> Path:
        """The folder of a recipe's weights, trained once."""
        folder = self.out / "runs" / recipe / "model"
        if not (folder / "embedder.json").is_file():
            own = load_recipe(RECIPES / f"{recipe}.toml")
            training = replace(own.training, max_minutes=self.minutes, threads=self.threads)
            run(replace(own, training=training), load_pictures(self.data(kind)), folder.parent)
        return folder

    def wells(self, kind: str, weights: Path, channels: tuple[str, ...] = (), steps=STEPS) -> Prepared:
        """Prepared test wells of an embedder."""
        engine = json.loads((weights / "embedder.json").read_text())["engine"]
        rows = chosen(self.data(kind), "test", self.rows)
        options = Options(engine=engine, weights=weights, workers=1)
        return prepared(measure_rows(self.data(kind), options, rows, channels).profiles, CONTROL, steps)

    def twin(self, weights: Path) -> Path:
        """The untrained twin."""
        return untrained_twin(weights, self.out / "twins" / weights.parent.name)


def compare(claim: str, one: Prepared, base: Prepared, wanted: str = "gain", metrics=(REPLICATES, MECHANISM)):
    """Verdicts of a paired difference."""
    lines = gain("", one, base, np.random.default_rng(1), "")
    return [Verdict(claim, r["metric"].removeprefix("gain: "), r["value"], r["low"], r["high"], wanted)
            for r in lines if r["metric"].removeprefix("gain: ") in metrics]  # fmt: skip


def chammi(lab: Lab) -> list[Verdict]:
    """A trained bag of channels beats an untrained one, also on channels never read together."""
    made = []
    for recipe in ("dino_boc_small", "dino_mca_small"):
        weights = lab.trained(recipe, "fluorescence")
        twin = lab.twin(weights)
        for channels in ((), ("DNA", "AGP"), ("DNA", "ER", "Mito")):
            one, base = (lab.wells("fluorescence", w, channels) for w in (weights, twin))
            said = f"{recipe} on {'+'.join(channels) or 'all channels'} beats its untrained twin"
            made += compare(said, one, base)
    return made


def brightfield(lab: Lab) -> list[Verdict]:
    """Barlow and cross-batch crops beat DINO; focus helps, mere blur does not."""
    names = ("1_dino", "2_barlow", "3_cross_batch", "4_both", "5_planes", "6_blur")
    weights = {n: lab.trained(f"brightfield_{n}", "brightfield") for n in names}
    wells = {n: lab.wells("brightfield", w) for n, w in weights.items()}
    twin = lab.wells("brightfield", lab.twin(weights["5_planes"]))
    return [
        *compare("DINO + Barlow beats DINO", wells["2_barlow"], wells["1_dino"]),
        *compare("DINO + XB beats DINO", wells["3_cross_batch"], wells["1_dino"]),
        *compare("DINO + Barlow + XB beats DINO", wells["4_both"], wells["1_dino"]),
        *compare("focal planes help", wells["5_planes"], wells["4_both"]),
        *compare("mere blur does not help", wells["6_blur"], wells["4_both"], "none"),
        *compare("row 5 beats its untrained twin", wells["5_planes"], twin),
    ]


def phenoprofiler(lab: Lab) -> list[Verdict]:
    """Each loss and the gradient encoder help; phenotype correction helps."""
    data = lab.data("fluorescence")
    if not (data / "targets.npy").is_file():
        write_targets(data, Options(engine="fast", settings="sim128", workers=lab.threads))
    whole = lab.trained("phenoprofiler_small", "fluorescence")
    base = lab.wells("fluorescence", whole)
    made = compare("PhenoProfiler beats its untrained twin", base, lab.wells("fluorescence", lab.twin(whole)))
    for ablation in ("no_gradient", "no_regression", "no_matching", "no_classification"):
        other = lab.wells("fluorescence", lab.trained(f"phenoprofiler_{ablation}", "fluorescence"))
        made += compare(f"PhenoProfiler beats it with {ablation}", base, other)
    corrected = ({"name": "phenotype", "by": ["batch"], "alpha": 0.7}, *STEPS[1:])
    plain = lab.wells("fluorescence", whole, steps=STEPS[1:])
    return made + compare("phenotype correction helps", lab.wells("fluorescence", whole, steps=corrected), plain)


def trex(lab: Lab) -> list[Verdict]:
    """The compound objective raises replicates, the mechanism objective mechanisms too, neither in another line."""
    data, weights = lab.data("lines"), lab.trained("dino_boc_small", "fluorescence")
    table = pd.read_parquet(data / "rows.parquet")
    options = Options(engine="dino_boc", weights=weights, workers=1)
    parts: dict[str, Profiles] = {}
    for split in ("train", "test"):
        fields = measure_rows(data, options, chosen(data, split, lab.rows)).profiles
        parts[split] = complete(fields)
    home, away = sorted(table["cell_line"].unique(), reverse=True)
    train = parts["train"].rows(parts["train"].column("cell_line") == home)
    names = [n for n in train.names if n in parts["test"].names]
    train = train.features(names)
    made = []
    for objective in ("compound", "moa"):
        fitted = fit(train, TrexConfig(objective=objective, label=objective, batch=64, threads=lab.threads))
        for line in (home, away):
            test = parts["test"].rows(parts["test"].column("cell_line") == line).features(names)
            one, base = prepared(fitted.transform(test), CONTROL), prepared(test, CONTROL)
            where = "same line" if line == home else "a line never seen"
            wanted = "gain" if line == home else "none"
            made += compare(f"TRex, {objective} objective, {where}", one, base, wanted)
    return made


PAPERS: dict[str, Callable[[Lab], list[Verdict]]] = {
    "chammi": chammi, "brightfield": brightfield, "phenoprofiler": phenoprofiler, "trex": trex
}  # fmt: skip


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25.0, help="of each training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=0, help="most test rows measured; 0: all")
    parser.add_argument("--only", choices=sorted(PAPERS), action="append")
    parser.add_argument("--tiny", action="store_true", help="a few compounds, to see that it runs")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    screen = ScreenConfig(moas=10, per_moa=4, unseen=1, wells=15, test_wells=6, dial=0.7)
    if args.tiny:
        screen = replace(screen, moas=3, per_moa=2, wells=4, test_wells=4, control_share=0.4)
    lab = Lab(args.out, args.minutes, args.threads, screen, args.rows)
    verdicts = [v for name in args.only or PAPERS for v in PAPERS[name](lab)]
    for v in verdicts:
        mark = "holds" if v.holds else "does not"
        print(f"{v.claim:62} {v.metric:32} {v.value:+.3f} [{v.low:+.3f}, {v.high:+.3f}] {mark}")
    said = [asdict(v) | {"holds": v.holds} for v in verdicts]
    print(
        json.dumps({"minutes": args.minutes, "threads": args.threads, "machine": platform.processor(), "claims": said})
    )
    (args.out / "claims.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
