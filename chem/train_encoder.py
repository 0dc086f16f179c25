"""Train the small T5 encoder on SMILES: span corruption, regression on structure, and near molecules as partners.

The losses stand in chem/small_t5.py, what the vectors should say in chem/encoder_targets.py; neither needs labels.
Half of a batch are anchors, the other half one of the nearest molecules of each. A step is a function of (seed, step),
so a resumed run repeats an uninterrupted one. Weights and optimiser state are safetensors.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5Tokenizer

from chem.corpus import corrupt_spans, respell, train_vocabulary
from chem.encode_t5 import fixed_threads
from chem.encoder_targets import Targets, kept_targets
from chem.small_t5 import Batch, SmallT5
from chem.vector import EncoderError

IGNORED = -100  # label of padding in the cross-entropy


@dataclass(frozen=True)
class EncoderRecipe:
    """All settings of a training run; a TOML file holds exactly these names."""

    smiles: str
    column: str
    seed: int
    pieces: int
    tokenizer_sample: int
    tokenizer_respelled_share: float
    sentinels: int
    d_model: int
    d_kv: int
    heads: int
    d_ff: int
    layers: int
    decoder_layers: int
    corrupted_share: float
    span_share: float
    span_length: float
    respelled_share: float
    span_weight: float
    contrast_weight: float
    component_sample: int
    anchors: int
    neighbours: int
    batch: int
    steps: int
    warmup: int
    learning_rate: float
    weight_decay: float
    max_tokens: int
    bfloat16: bool
    threads: int
    minutes: float
    checkpoint_every: int

    @classmethod
    def from_toml(cls, path: Path | str) -> EncoderRecipe:
        """Read a recipe; unknown or missing names are an `EncoderError`."""
        with Path(path).open("rb") as stream:
            given = tomllib.load(stream)
        known = {field.name for field in fields(cls)}
        if set(given) != known:
            unknown, missing = sorted(set(given) - known), sorted(known - set(given))
            raise EncoderError(f"{path}: unknown names {unknown}, missing names {missing}; correct the file.")
        return cls(**given)


def train_encoder(
    recipe: EncoderRecipe,
    data: Path,
    run: Path,
    log: Callable[[dict[str, float]], None] | None = None,
    start_from: Path | None = None,
) -> Path:
    """Train (or resume, if `run` has a checkpoint) and export the encoder folder `run/encoder`; returns that folder.

    `data` is the folder that `recipe.smiles` is relative to. Training stops at `steps`, or when `minutes` are used up;
    the learning rate follows whichever is further on, so only a run that is not cut short by time repeats to the bit.
    `start_from` is an exported encoder folder whose tokenizer and weights a new run begins with (the decoder is new).
    """
    source = data / recipe.smiles
    if not source.is_file():
        raise EncoderError(f"training table {source} does not exist; set DOPAINT_DATA to the folder that holds it.")
    smiles = pd.read_csv(source)[recipe.column].astype(str).tolist()
    run.mkdir(parents=True, exist_ok=True)
    with fixed_threads(recipe.threads):
        return _train(recipe, smiles, run, log, start_from)


def _train(
    recipe: EncoderRecipe,
    smiles: list[str],
    run: Path,
    log: Callable[[dict[str, float]], None] | None,
    start_from: Path | None,
) -> Path:
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16" if recipe.bfloat16 else "no")
    if start_from is not None and not (run / "spiece.model").is_file():
        shutil.copy(_file(start_from, "spiece.model"), run / "spiece.model")
    tokenizer = _tokenizer(recipe, smiles, run)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model: Any = SmallT5(network(recipe, len(tokenizer)))
    if start_from is not None:
        _load_encoder_half(model, start_from)
    optimiser: Any = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
    )
    aim = kept_targets(
        run / "targets.npz",
        smiles,
        recipe.d_model,
        sample=recipe.component_sample,
        anchors=recipe.anchors,
        neighbours=recipe.neighbours,
        seed=recipe.seed,
    )
    step, used = _restore(run / "checkpoint", model, optimiser, recipe)
    model, optimiser = accelerator.prepare(model, optimiser)
    plain = accelerator.unwrap_model(model)
    model.train()
    began = time.monotonic() - used
    while step < recipe.steps and time.monotonic() - began < 60.0 * recipe.minutes:
        elapsed = time.monotonic() - began
        rate = learning_rate(recipe, step, elapsed / (60.0 * recipe.minutes))
        for group in optimiser.param_groups:
            group["lr"] = rate
        batch = Batch(*(part.to(accelerator.device) for part in make_batch(recipe, smiles, tokenizer, aim, step)))
        losses = model(batch)
        accelerator.backward(
            recipe.span_weight * losses.spans + losses.structure + recipe.contrast_weight * losses.contrast
        )
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if log is not None and (step % 20 == 0 or step == 1):
            values = {name: value.item() for name, value in losses._asdict().items()}
            log({"step": step, "minutes": elapsed / 60, "rate": rate, **values})
        if step % recipe.checkpoint_every == 0:
            _save(run / "checkpoint", plain, optimiser, step, time.monotonic() - began, recipe)
    _save(run / "checkpoint", plain, optimiser, step, time.monotonic() - began, recipe)
    return export(plain, tokenizer, recipe, run, step)


def network(recipe: EncoderRecipe, vocabulary: int) -> T5Config:
    """The shape of the T5 network, in transformers' names."""
    return T5Config(
        vocab_size=vocabulary,
        d_model=recipe.d_model,
        d_kv=recipe.d_kv,
        d_ff=recipe.d_ff,
        num_layers=recipe.layers,
        num_decoder_layers=recipe.decoder_layers,
        num_heads=recipe.heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        tie_word_embeddings=True,
    )


def learning_rate(recipe: EncoderRecipe, step: int, time_share: float) -> float:
    """Linear warm-up, then a half cosine to 2 % of the peak over the further of steps and time."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = min(1.0, max((step - recipe.warmup) / max(recipe.steps - recipe.warmup, 1), time_share))
    return recipe.learning_rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def make_batch(recipe: EncoderRecipe, smiles: list[str], tokenizer: Any, aim: Targets, step: int) -> Batch:
    """The rows of one step, a function of (recipe.seed, step): epochs are seeded permutations of the anchors.

    Lengths are padded to a multiple of eight, so that few different shapes reach the kernels.
    """
    half = recipe.batch // 2
    per_epoch = max(len(aim.anchors) // half, 1)
    epoch, place = divmod(step, per_epoch)
    order = np.random.default_rng([recipe.seed, 1, epoch]).permutation(len(aim.anchors))
    picked = order[place * half : (place + 1) * half]
    rng = np.random.default_rng([recipe.seed, 2, step])
    partners = aim.near[picked, rng.integers(0, aim.near.shape[1], len(picked))]
    rows = np.concatenate([aim.anchors[picked], partners])
    texts = [
        respell(smiles[row], rng) if rng.random() < recipe.respelled_share else smiles[row] for row in aim.rows[rows]
    ]
    plain = [ids[: recipe.max_tokens] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    eos = tokenizer.eos_token_id
    marks = [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(recipe.sentinels)]
    corrupted = min(max(round(recipe.corrupted_share * len(plain)), 1), len(plain))
    pairs = [
        corrupt_spans(ids, marks, eos, rng, share=recipe.span_share, length=recipe.span_length)
        if len(ids) > 1
        else ([*ids, eos], [eos])
        for ids in plain[:corrupted]
    ]
    sources = [pair[0] for pair in pairs] + [[*ids, eos] for ids in plain[corrupted:]]
    ids, mask = _padded(sources, 0)
    labels, _ = _padded([pair[1] for pair in pairs], IGNORED)
    return Batch(ids, mask, labels, torch.from_numpy(aim.vectors[rows]))


def export(model: SmallT5, tokenizer: Any, recipe: EncoderRecipe, run: Path, step: int) -> Path:
    """Write the encoder half in half precision, its tokenizer and `training.json` to `run/encoder`, in one rename."""
    from transformers import T5EncoderModel

    draft, final = run / "encoder.part", run / "encoder"
    shutil.rmtree(draft, ignore_errors=True)
    encoder = T5EncoderModel(model.t5.config)
    encoder.load_state_dict(
        {name: value for name, value in model.t5.state_dict().items() if name.startswith(("shared.", "encoder."))}
    )
    encoder.half().save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    shutil.copy(run / "spiece.model", draft / "spiece.model")
    record = {"recipe": asdict(recipe), "steps_done": step, "torch": str(torch.__version__)}
    (draft / "training.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(draft, final)
    return final


# ----------------------------------------------------------------------------------------------------------------------


def _tokenizer(recipe: EncoderRecipe, smiles: list[str], run: Path) -> Any:
    file = run / "spiece.model"
    if not file.is_file():
        rng = np.random.default_rng([recipe.seed, 0])
        rows = rng.choice(len(smiles), size=min(recipe.tokenizer_sample, len(smiles)), replace=False)
        spellings = (
            respell(smiles[row], rng) if rng.random() < recipe.tokenizer_respelled_share else smiles[row]
            for row in rows
        )
        train_vocabulary(spellings, run / "draft.spm", recipe.pieces)
        os.replace(run / "draft.spm", file)
        (run / "draft.vocab").unlink(missing_ok=True)
    return T5Tokenizer.from_pretrained(run, extra_ids=recipe.sentinels, model_max_length=512)


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise EncoderError(f"{folder} is not an exported encoder: it has no {name}.")
    return folder / name


def _load_encoder_half(model: SmallT5, folder: Path) -> None:
    stored = {name: value.float() for name, value in load_file(_file(folder, "model.safetensors")).items()}
    own = model.t5.state_dict()
    other = sorted(name for name, value in stored.items() if name not in own or own[name].shape != value.shape)
    if other:
        raise EncoderError(f"the weights in {folder} are of another architecture (first {other[0]}); adapt the recipe.")
    model.t5.load_state_dict(stored, strict=False)


def _padded(lines: list[list[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    longest = -(-max(len(line) for line in lines) // 8) * 8
    ids = torch.full((len(lines), longest), filler, dtype=torch.long)
    mask = torch.zeros((len(lines), longest))
    for row, line in enumerate(lines):
        ids[row, : len(line)] = torch.tensor(line, dtype=torch.long)
        mask[row, : len(line)] = 1.0
    return ids, mask


def _save(folder: Path, model: SmallT5, optimiser: Any, step: int, seconds: float, recipe: EncoderRecipe) -> None:
    """One checkpoint folder, written beside and renamed, so that an interruption leaves a whole one."""
    draft, old = folder.with_suffix(".part"), folder.with_suffix(".old")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    names = dict(model.named_parameters())
    save_file({name: value.detach().contiguous() for name, value in names.items()}, draft / "model.safetensors")
    inner = getattr(optimiser, "optimizer", optimiser)
    moments = {
        f"{name}|{key}": torch.as_tensor(value).clone()
        for name, parameter in names.items()
        for key, value in inner.state[parameter].items()
    }
    save_file(moments, draft / "optimiser.safetensors")
    record = {"step": step, "seconds": seconds, "recipe": asdict(recipe)}
    (draft / "state.json").write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(draft, folder)
    shutil.rmtree(old, ignore_errors=True)


def _restore(folder: Path, model: SmallT5, optimiser: Any, recipe: EncoderRecipe) -> tuple[int, float]:
    if not (folder / "state.json").is_file():
        old = folder.with_suffix(".old")
        if not (old / "state.json").is_file():
            return 0, 0.0
        folder = old
    record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    free = {"steps", "minutes", "checkpoint_every"}
    given = asdict(recipe)
    changed = sorted(name for name in given if name not in free and record["recipe"].get(name) != given[name])
    if changed:
        raise EncoderError(f"{folder} was made with other settings ({', '.join(changed)}); use another run folder.")
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    stored = load_file(folder / "optimiser.safetensors")
    for name, parameter in model.named_parameters():
        own = {key.split("|")[1]: value for key, value in stored.items() if key.split("|")[0] == name}
        optimiser.state[parameter] = own
    return int(record["step"]), float(record["seconds"])
