"""One full batch of pictures, and many pictures measured at once: what fails is one row's affair, never the batch's."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from service.job_run import Task
from service.rooms import Measured, Room

LOG = logging.getLogger("dopaint.engine")


def paint(room: Room, tasks: Sequence[Task]) -> list[Float[np.ndarray, "c h w"] | Exception]:
    """A picture of each task, or why there is none. All of them go to the network together.

    A batch that fails is painted again one by one, so that only the rows at fault fail.
    """
    answers: list[Float[np.ndarray, "c h w"] | Exception | None] = [None] * len(tasks)
    for i, task in enumerate(tasks):
        compound = task.compound
        if compound.vector is None and compound.error is None:
            try:
                compound.vector = room.vector(compound.molecule)
            except Exception as error:
                compound.error = error
        if compound.error is not None:
            answers[i] = compound.error
    good = [i for i, answer in enumerate(answers) if answer is None]
    if good:
        try:
            pictures = _paint(room, [tasks[i] for i in good])
            for i, picture in zip(good, pictures, strict=True):
                answers[i] = picture
        except Exception as error:
            LOG.exception("a batch of %d pictures failed", len(good))
            for i in good:
                answers[i] = error if len(good) == 1 else _alone(room, tasks[i])
    return [answer for answer in answers if answer is not None]


def measure(room: Room, pictures: Sequence[Float[np.ndarray, "c h w"]]) -> list[Measured | Exception]:
    """The measurement of each picture, or why there is none."""
    try:
        return list(room.measure_each(np.stack(pictures), lambda _: None))
    except Exception as error:
        LOG.exception("measuring %d pictures failed", len(pictures))
        if len(pictures) == 1:
            return [error]
        return [one for picture in pictures for one in measure(room, [picture])]


def _alone(room: Room, task: Task) -> Float[np.ndarray, "c h w"] | Exception:
    try:
        picture: np.ndarray = _paint(room, [task])[0]
    except Exception as error:
        return error
    return picture


def _paint(room: Room, tasks: Sequence[Task]) -> Float[np.ndarray, "n c h w"]:
    rows = pd.concat([task.run.rows(task.compound, [task.draw]) for task in tasks], ignore_index=True)
    vectors = [task.compound.vector for task in tasks if task.compound.vector is not None]
    return room.paint_rows(np.stack(vectors), rows, None)
