"""Between a training run and the model folder that it ends in."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ldm.autoencoder import GroupAutoencoder
from ldm.data import TrainingDataError, load_data, read_about
from ldm.folder import PipelineSettings
from ldm.intensity import IntensityScale
from ldm.pipeline import CellPaintingPipeline, scheduler_of
from ldm.schedule import Schedule
from ldm.sensor import fit_grain
from ldm.unet import Denoiser

SCALES = ("compound_mean", "compound_sd")  # of the condition encoder: facts about the data, not learned


def load_weights(net: Denoiser, folder: Path) -> tuple[int, float]:
    """Begin with the weights of a trained model folder; returns the steps and seconds that they took.

    Mean and sd of the compound vectors stay those of the new training data, whose molecule encoder may be another
    one. Raises ModelFolderError when the folder is damaged, RuntimeError when the sizes differ.
    """
    trained = CellPaintingPipeline.from_pretrained(folder)
    own = {name: value.clone() for name, value in net.condition.state_dict().items() if name in SCALES}
    net.unet.load_state_dict(trained.unet.state_dict())
    net.condition.load_state_dict({**trained.condition.state_dict(), **own})
    return trained.settings.training_steps, 60.0 * trained.settings.training_minutes


def export(
    net: Denoiser, autoencoder: GroupAutoencoder, schedule: Schedule, data: Path, out: Path, steps: int, seconds: float
) -> Path:
    """Write the model folder `out` of a trained network: the weights as they are in `net` (average them before), and
    from the data folder intensity.json, the contexts of its training rows and the InChIKeys of the compounds that it
    trained on. Raises TrainingDataError, IntensityError.
    """
    rows = load_data(data).rows
    trained_on = rows[rows["split"] == "train"]
    if "plate" not in trained_on.columns:
        raise TrainingDataError(
            f"training data: rows.parquet of {data} lacks plate; expected it, to write the contexts of the model"
        )
    contexts = (
        trained_on[["source", "batch", "plate", "plate_format"]]
        .drop_duplicates()
        .sort_values(["source", "batch", "plate"])
        .reset_index(drop=True)
    )
    pipeline = CellPaintingPipeline(
        vae=autoencoder.vae,
        unet=net.unet,
        condition=net.condition,
        scheduler=scheduler_of(schedule),
        channels=autoencoder.channels,
        intensity=fit_grain(autoencoder, load_data(data), IntensityScale.load(data / "intensity.json")),
        known_contexts=contexts,
        settings=PipelineSettings(
            training_steps=steps,
            training_minutes=round(seconds / 60.0, 1),
            **read_about(data),  # type: ignore[arg-type]
        ),
    )
    pipeline.save_pretrained(out)
    compounds = pd.DataFrame({"compound": sorted(trained_on["compound"].astype(str).unique())})
    compounds.to_parquet(out / "training_compounds.parquet", index=False)
    return out
