"""Molecules -> vectors, by name or folder: MolT5, the shipped small T5, and the Morgan sketch, behind one interface.

A vector is a function of the molecule and the encoder's hash. `chem.encode_t5` and `chem.encode_morgan` hold the two
kinds, `chem.vector` what both are; `chem.cache` keeps vectors on disk.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from chem.encode_morgan import MODEL_TYPE, MorganEncoder
from chem.encode_t5 import T5Encoder, fixed_threads, folder_hash, load_t5, masked_mean
from chem.vector import Encoder, EncoderError

__all__ = [
    "ENCODERS",
    "MORGAN",
    "Encoder",
    "EncoderError",
    "MorganEncoder",
    "T5Encoder",
    "fixed_threads",
    "folder_hash",
    "load_encoder",
    "masked_mean",
]

MORGAN = "morgan-sketch"
# name -> (hub id, folder inside a model folder, or "" for none needed; what it is)
ENCODERS: dict[str, tuple[str, str]] = {
    "small-t5": ("encoder", "shipped with a model: small T5 trained on JUMP SMILES, masked mean, 256 numbers"),
    MORGAN: ("", "random projection of normalised Morgan counts, no weights, 256 numbers"),
    "molt5-small": ("laituan245/molt5-small", "MolT5 small (Edwards et al. 2022), masked mean, 512 numbers"),
    "molt5-base": ("laituan245/molt5-base", "MolT5 base, masked mean, 768 numbers"),
    "molt5-large": ("laituan245/molt5-large", "MolT5 large, masked mean, 1,024 numbers"),
}


def load_encoder(
    name_or_folder: str | Path, *, device: str = "cpu", precision: str = "float32"
) -> T5Encoder | MorganEncoder:
    """Load an encoder from a name in `ENCODERS`, a hub id (owner/name) or a local folder.

    A folder is used without the network. `precision` is "float32", or "float16" or "bfloat16" for T5 on a GPU (on a
    CPU they only save memory). Raises `EncoderError` when the folder is missing or incomplete, the precision is
    unknown, or the hub cannot be reached (then with the way to download by hand).
    """
    asked = str(name_or_folder)
    if asked == MORGAN:
        return MorganEncoder()
    folder = Path(name_or_folder)
    if not folder.is_dir():
        folder = _hub_folder(asked)
    config = folder / "config.json"
    if not config.is_file():
        raise EncoderError(f"{folder} is not an encoder folder: it has no config.json.")
    try:
        facts = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"the encoder in {folder} cannot be loaded: config.json is not JSON.") from error
    if isinstance(facts, dict) and facts.get("model_type") == MODEL_TYPE:
        try:
            return MorganEncoder.from_config(facts, asked)
        except ValueError as error:
            raise EncoderError(str(error)) from error
    return load_t5(folder, asked, device, precision)


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
