"""A process that standardises what it is sent: lines of JSON on stdin, one line of JSON an answer on stdout.

A request is a line with a number n and n lines [kind, text], kind "smiles" or "block". An answer is [smiles, inchikey,
changes] or {reason, message, position}, each with the CPU seconds it took at the end. A molecule that uses more CPU
time than the limit (argument 1, seconds) ends the process: the timer's signal is left to the kernel, which needs no
leave from the C++ code that is running. `chem.bounded` starts another one.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import Any

from chem.molecule import InvalidSmiles, standardise, standardise_block

FLUSH_AFTER_S = 0.25  # answers wait in the buffer for so long at most while a request is worked on


def answer(kind: str, text: str) -> list[Any]:
    """The answer to one molecule, without its time."""
    try:
        molecule = standardise(text) if kind == "smiles" else standardise_block(text)
    except InvalidSmiles as error:
        return [{"reason": error.reason.value, "message": error.message, "position": error.position}]
    return [molecule.smiles, molecule.inchikey, molecule.changes]


def serve(limit_s: float) -> None:
    """Answer requests until stdin ends."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    lines, answers = sys.stdin.buffer, sys.stdout.buffer
    while head := lines.readline():
        requests = [lines.readline() for _ in range(int(head))]
        flushed = time.monotonic()
        for line in requests:
            kind, text = json.loads(line)
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            began = time.process_time()
            found = answer(kind, text)
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            found.append(round(time.process_time() - began, 6))
            answers.write(json.dumps(found).encode() + b"\n")
            if time.monotonic() - flushed > FLUSH_AFTER_S:
                answers.flush()
                flushed = time.monotonic()
        answers.flush()


if __name__ == "__main__":
    serve(float(sys.argv[1]))
