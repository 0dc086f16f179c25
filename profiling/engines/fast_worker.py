"""A worker process of the engine `fast`: one picture in, its measurements out, until the pipe closes.

Started by `profiling.engines.fast` as `python -m profiling.engines.fast_worker '{"pipeline": …}'`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from profiling.engines.cellprofiler_worker import frames
from profiling.engines.fast import answer
from profiling.engines.pipeline_steps import read_plan


def main(config: dict[str, Any]) -> int:
    """Says hello, then answers each picture until the client closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints goes to the log
    warnings.simplefilter("ignore")
    plan = read_plan(Path(config["pipeline"]))

    def send(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        answers.write(frames.encode(header, arrays))
        answers.flush()

    send({"hello": "fast"})
    while len(prefix := requests.read(frames.PREFIX.size)) == frames.PREFIX.size:
        (length,) = frames.PREFIX.unpack(prefix)
        body = requests.read(length)
        if len(body) < length:
            break
        header, arrays = frames.decode(body)
        given = {name.removeprefix("given/"): a for name, a in arrays.items() if name.startswith("given/")}
        try:
            out = answer(plan, arrays["picture"], given, header)
        except Exception as error:
            send({"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else repr(error)}"})
            continue
        send({}, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
