"""chem.encoder: a MolT5-shaped folder through the public path, and vectors that depend on the molecule alone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from chem.corpus import train_vocabulary
from chem.encoder import ENCODERS, Encoder, EncoderError, T5Encoder, folder_hash, load_encoder, masked_mean
from chem.molecule import standardise

SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1", "O=C(O)/C=C/c1ccccc1", "Clc1ccc2c(c1)Cc1ccccc1-2"]


def _molt5_folder(folder: Path, seed: int = 0) -> Path:
    """config.json, spiece.model and the weights of a whole T5 1.1 (with decoder and head), as the hub has MolT5."""
    train_vocabulary(iter(SMILES * 40), folder / "spiece.model", 80)
    (folder / "spiece.vocab").unlink(missing_ok=True)
    config = T5Config(
        vocab_size=180, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 100}')
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _molt5_folder(tmp_path_factory.mktemp("molt5"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> T5Encoder:
    loaded = load_encoder(folder)
    assert isinstance(loaded, T5Encoder)
    assert isinstance(loaded, Encoder)
    return loaded


def test_molt5_folder_loads_by_the_public_path(encoder: T5Encoder):
    """The vector is the mean of the tokens that transformers itself gives for this folder."""
    vectors = encoder.encode(SMILES)
    assert vectors.shape == (5, encoder.dim) == (5, 24)
    assert vectors.dtype == np.float32
    network = T5EncoderModel.from_pretrained(encoder.name, local_files_only=True)
    for text, vector in zip(SMILES, vectors, strict=True):
        ids = encoder.tokenizer(text, return_tensors="pt").input_ids
        assert ids[0, -1] == 1  # </s>
        assert 2 not in ids  # nothing unknown
        with torch.inference_mode():
            states = network(input_ids=ids).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0).numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(encoder.encode_tokens(text), states.numpy(), rtol=1e-5, atol=1e-6)


def test_molt5_vector_has_the_same_bytes_in_any_list(encoder: T5Encoder):
    alone = [encoder.encode([text])[0] for text in SMILES]
    assert np.array_equal(encoder.encode(SMILES), np.stack(alone))
    assert np.array_equal(encoder.encode(SMILES[::-1]), np.stack(alone[::-1]))
    assert np.array_equal(encoder.encode([standardise(text) for text in SMILES]), np.stack(alone))
    assert len({vector.tobytes() for vector in alone}) == len(SMILES)


def test_molt5_batches_agree_with_single_molecules(encoder: T5Encoder):
    """Padding is masked: the tolerance is float32 rounding of a reordered sum."""
    np.testing.assert_allclose(encoder.encode(SMILES, batch_size=3), encoder.encode(SMILES), rtol=1e-4, atol=1e-5)


def test_molt5_weights_as_the_hub_has_them(folder: Path, tmp_path: Path, encoder: T5Encoder):
    """MolT5 was published with pytorch_model.bin and special_tokens_map.json, without safetensors: only tensors are
    read from it.
    """
    published = tmp_path / "molt5-small"
    published.mkdir()
    for name in ("config.json", "spiece.model", "tokenizer_config.json"):
        shutil.copy(folder / name, published / name)
    torch.save(load_file(folder / "model.safetensors"), published / "pytorch_model.bin")
    marks = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (published / "special_tokens_map.json").write_text(json.dumps(marks))
    loaded = load_encoder(published)
    assert np.array_equal(loaded.encode(SMILES), encoder.encode(SMILES))
    assert loaded.hash != encoder.hash


def test_molt5_token_sequences_are_those_of_single_molecules(encoder: T5Encoder):
    """Padded batches, cut back to each molecule's own tokens, in the order given; float32 rounding as above."""
    for batch_size in (1, 2, 5):
        found = encoder.encode_sequences(SMILES, batch_size=batch_size)
        for text, states in zip(SMILES, found, strict=True):
            np.testing.assert_allclose(states, encoder.encode_tokens(text), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(states.mean(0), encoder.encode([text])[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(EncoderError, match="at least 1"):
        encoder.encode_sequences(SMILES, batch_size=0)


def test_molt5_batches_do_not_depend_on_sorting(encoder: T5Encoder):
    mixed = SMILES + [text + "C" * 30 for text in SMILES]
    by_length = encoder.encode(mixed, batch_size=4)
    as_given = encoder.encode(mixed, batch_size=4, by_length=False)
    np.testing.assert_allclose(by_length, as_given, rtol=1e-4, atol=1e-5)


def test_molt5_in_half_precision_is_near_and_has_another_hash(folder: Path, encoder: T5Encoder):
    half = load_encoder(folder, precision="bfloat16")
    assert half.hash != encoder.hash
    vectors = half.encode(SMILES)
    assert vectors.dtype == np.float32
    scale = np.abs(encoder.encode(SMILES)).max()
    np.testing.assert_allclose(vectors, encoder.encode(SMILES), atol=0.05 * scale)  # 8 bits of mantissa, two layers
    assert not np.array_equal(vectors, encoder.encode(SMILES))
    with pytest.raises(EncoderError, match="bfloat16"):
        load_encoder(folder, precision="int4")


def test_encode_leaves_the_thread_count_alone(encoder: T5Encoder):
    before = torch.get_num_threads()
    encoder.encode(SMILES[:1])
    assert torch.get_num_threads() == before


def test_masked_mean_by_hand():
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    assert masked_mean(states, torch.tensor([[1.0, 1.0, 0.0]])).tolist() == [[2.0, 4.0]]


def test_empty_list(encoder: T5Encoder):
    assert encoder.encode([]).shape == (0, 24)


def test_hash_follows_weights_tokenizer_and_config(folder: Path, tmp_path: Path):
    other = _molt5_folder(tmp_path / "other", seed=1)
    assert folder_hash(folder) == folder_hash(folder) != folder_hash(other)
    again = folder_hash(other)
    (other / "training.json").write_text("{}")
    assert folder_hash(other) == again  # the record of the training decides no vector
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    assert folder_hash(other) != again


def test_a_hub_that_cannot_be_reached_says_how_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert ENCODERS["molt5-base"][0] == "laituan245/molt5-base"
    with pytest.raises(EncoderError, match="hf download laituan245/molt5-base --local-dir DIR") as caught:
        load_encoder("molt5-base")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["molt6", "./missing", "a/b/c"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    with pytest.raises(EncoderError, match="molt5-base, molt5-large"):
        load_encoder(name)


def test_the_shipped_encoder(repository: Path):
    shipped = load_encoder(repository / "models" / "simulation-128" / "encoder")
    assert shipped.dim == 256
    size = sum(path.stat().st_size for path in Path(shipped.name).iterdir())
    assert size < 6_000_000
    drug, again, other = shipped.encode(
        ["CC(=O)Oc1ccccc1C(=O)O", "O=C(O)c1ccccc1OC(C)=O", "C[C@H](N)C(=O)N1CCC[C@@H]1C"]
    )
    assert np.linalg.norm(drug - again) < 0.5 * np.linalg.norm(drug - other)  # two spellings of aspirin
    assert not any(2 in shipped.tokenizer(text).input_ids for text in [*SMILES, "[2H]C([O-])[n+]1cc[se]c1/C=C\\[Si]"])


def test_a_folder_that_is_no_encoder(tmp_path: Path):
    with pytest.raises(EncoderError, match=r"no config\.json"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_encoder(tmp_path)
