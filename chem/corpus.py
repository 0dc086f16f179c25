"""Text for training a SMILES encoder: other spellings, a SentencePiece vocabulary, T5's span corruption.

Spelling: the same molecule from another starting atom, with stereo drawn at random where the source has none, so that
the marks of stereo (@, /, \\) are known to the encoder. Span corruption: Raffel et al. 2020 (T5), section 3.1.4, as
MolT5 uses it. Every function takes its random numbers as an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from rdkit import Chem, rdBase

SMILES_CHARACTERS = "BCFHINOPSbcnopsKLMRTUVWXYZADEGaedfghiklmrtuy0123456789()[]=#-+/\\@%.:~$*"


def respell(smiles: str, rng: np.random.Generator, stereo_share: float = 0.5) -> str:
    """Another SMILES of one molecule; with probability `stereo_share`, undefined stereo is drawn at random first.

    Returns the text unchanged where RDKit cannot read it.
    """
    seed = int(rng.integers(1, 2**31 - 1))
    draw_stereo = rng.random() < stereo_share
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            return smiles
        if draw_stereo:
            mol = with_random_stereo(mol, rng)
        return str(Chem.MolToRandomSmilesVect(mol, 1, randomSeed=seed)[0])


def with_random_stereo(mol: Chem.Mol, rng: np.random.Generator) -> Chem.Mol:
    """A copy in which every undefined stereo centre and double bond has one of its two forms."""
    drawn = Chem.Mol(mol)
    for site in Chem.FindPotentialStereo(drawn):
        if site.specified != Chem.StereoSpecified.Unspecified:
            continue
        first = bool(rng.random() < 0.5)
        if site.type == Chem.StereoType.Atom_Tetrahedral:
            tag = Chem.ChiralType.CHI_TETRAHEDRAL_CW if first else Chem.ChiralType.CHI_TETRAHEDRAL_CCW
            drawn.GetAtomWithIdx(site.centeredOn).SetChiralTag(tag)
        elif site.type == Chem.StereoType.Bond_Double:
            bond = drawn.GetBondWithIdx(site.centeredOn)
            ends = list(site.controllingAtoms)  # two neighbours of either end; an implicit hydrogen has no number
            left = [atom for atom in ends[:2] if atom < drawn.GetNumAtoms()]
            right = [atom for atom in ends[2:] if atom < drawn.GetNumAtoms()]
            if not left or not right:
                continue
            bond.SetStereoAtoms(left[0], right[0])
            bond.SetStereo(Chem.BondStereo.STEREOCIS if first else Chem.BondStereo.STEREOTRANS)
    return drawn


def train_vocabulary(spellings: Iterator[str], file: Path, pieces: int) -> None:
    """Write a unigram SentencePiece model with T5's ids: pad 0, </s> 1, <unk> 2; every SMILES character is a piece."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=spellings,
        model_prefix=str(file.with_suffix("")),
        vocab_size=pieces,
        model_type="unigram",
        character_coverage=1.0,
        required_chars="".join(sorted(set(SMILES_CHARACTERS))),
        normalization_rule_name="identity",
        split_by_unicode_script=False,
        split_by_number=False,
        max_sentencepiece_length=12,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    file.with_suffix(".model").rename(file)


def corrupt_spans(
    tokens: Sequence[int], sentinels: Sequence[int], eos: int, rng: np.random.Generator, *, share: float, length: float
) -> tuple[list[int], list[int]]:
    """T5's denoising pair of one sequence without its end mark: (input with sentinels, target with the hidden spans).

    About `share` of the tokens is hidden in spans of mean `length`; both sides end with `eos`. What stands outside the
    sentinels in the input, with the spans of the target put back, is the original sequence.
    """
    n = len(tokens)
    hidden = min(max(round(n * share), 1), n - 1)
    spans = min(max(round(hidden / length), 1), hidden, n - hidden, len(sentinels))
    inside = _partition(hidden, spans, rng)
    outside = _partition(n - hidden, spans, rng)
    source: list[int] = []
    target: list[int] = []
    place = 0
    for sentinel, keep, hide in zip(sentinels, outside, inside, strict=False):
        source += [*tokens[place : place + keep], sentinel]
        target += [sentinel, *tokens[place + keep : place + keep + hide]]
        place += keep + hide
    return [*source, *tokens[place:], eos], [*target, eos]


def _partition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """`total` split at random into `parts` whole numbers >= 1 (uniform over the compositions)."""
    cuts = np.sort(rng.choice(total - 1, size=parts - 1, replace=False)) + 1 if parts > 1 else np.empty(0, int)
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(int).tolist()
