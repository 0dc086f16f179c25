"""chem.bounded: the limit interrupts RDKit itself, the order of answers is that of the questions, workers come back."""

import os
import signal
import subprocess
import sys

import pytest
from rdkit import Chem

from chem import bounded
from chem.bounded import Standardiser, Text, standardise_within
from chem.molecule import InvalidSmiles, Molecule, Reason, standardise, standardise_block


def _grid(n: int) -> str:
    """n x n square lattice of carbons: hundreds of fused rings, on which RDKit works long."""
    mol = Chem.RWMol()
    place = {(i, j): mol.AddAtom(Chem.Atom(6)) for i in range(n) for j in range(n)}
    for (i, j), atom in place.items():
        for other in ((i + 1, j), (i, j + 1)):
            if other in place:
                mol.AddBond(atom, place[other], Chem.BondType.SINGLE)
    return Chem.MolToSmiles(mol)


def _result(text: str) -> Molecule | InvalidSmiles:
    try:
        return standardise(text)
    except InvalidSmiles as error:
        return error


def told(result: Molecule | InvalidSmiles) -> tuple[object, ...]:
    if isinstance(result, Molecule):
        return result.smiles, result.inchikey, result.changes
    return result.reason, result.message, result.position


def test_the_limit_interrupts_and_the_others_are_answered():
    hard = _grid(17)
    with Standardiser(workers=1, limit_s=0.01) as workers:
        answers = list(workers.many(["CCO", "CCN", hard, "CCC", "nonsense", hard, "CCCl"]))
    found = [a.result.reason if isinstance(a.result, InvalidSmiles) else a.result.smiles for a in answers]
    assert found == ["CCO", "CCN", Reason.TIMEOUT, "CCC", Reason.UNPARSABLE, Reason.TIMEOUT, "CCCl"]
    assert "0.01 seconds" in str(answers[2].result)
    with Standardiser(workers=1, limit_s=60.0) as workers:
        assert workers.one(hard).smiles == standardise(hard).smiles


def test_answers_are_those_of_one_process_in_order():
    texts = ["C" * n + "O" for n in range(1, 40)] + ["", "C1CC", "CC(=O)O[Na]", "\U0001f600", "C\nC"]
    with Standardiser(workers=2) as workers:
        answers = list(workers.many(iter(texts), chunk=5))
    for text, answer in zip(texts, answers, strict=True):
        assert told(answer.result) == told(_result(text))
        assert answer.seconds >= 0


def test_a_killed_worker_is_replaced():
    with Standardiser(workers=1) as workers:
        assert workers.one("CCO").smiles == "CCO"
        process = workers._all[0]._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert workers.one("CCN").smiles == "CCN"


def test_closing_in_the_middle_leaves_no_process_behind():
    workers = Standardiser(workers=2)
    answers = workers.many(("C" * n + "O" for n in range(1, 250)), chunk=50)
    assert next(answers).result == standardise("CO")
    processes = [worker._process for worker in workers._all]
    workers.close()
    workers._threads.shutdown(wait=True)
    assert all(process is None or process.poll() is not None for process in processes)
    assert all(worker._process is None for worker in workers._all)


def test_mol_blocks():
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]"))
    with Standardiser(workers=1) as workers:
        assert (
            workers.one(Text(block, "block"))
            == standardise_block(block)
            == standardise("CC(=O)Oc1ccccc1C(=O)[O-].[Na+]")
        )
        for bad in ("", "no block", block[:200]):
            with pytest.raises(InvalidSmiles):
                workers.one(Text(bad, "block"))


def test_short_texts_need_no_process_and_long_ones_share_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bounded, "_shared", None)
    assert standardise_within("CCO").smiles == "CCO"
    assert bounded._shared is None
    long = "C" * 250 + "(C)" + "OCC" * 16
    assert standardise_within(long) == standardise(long)
    assert bounded._shared is not None
    with pytest.raises(InvalidSmiles, match="1000000 characters"):
        standardise_within("C" * 1_000_000)
    bounded._shared.close()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="limit_s above 0"):
        Standardiser(limit_s=0.0)


def test_a_worker_reads_without_torch_and_pandas():
    code = "import sys, chem.standardise_worker; print(sorted({'torch', 'pandas', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
