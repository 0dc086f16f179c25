"""Which channel number is which stain in the pictures of each JUMP-CP source (cpg0016), and how their files are named.

From `metadata/channel_mapping.csv` of jump-cellpainting/datasets at commit 181fa0d (BSD-3-Clause), read by its authors
off one plate a source: a plate's own load_data file has the last word where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")

#: Source → channel number of DNA, ER, RNA, AGP, Mito. Source 15 takes ER and RNA from the same picture.
_NUMBERS: Mapping[str, tuple[int, int, int, int, int]] = {
    "source_1": (4, 1, 2, 5, 3),
    "source_2": (1, 2, 3, 4, 5),
    "source_3": (5, 4, 3, 2, 1),
    "source_4": (5, 4, 3, 2, 1),
    "source_5": (1, 2, 3, 4, 5),
    "source_6": (1, 2, 3, 4, 5),
    "source_7": (1, 4, 3, 5, 2),
    "source_8": (5, 4, 3, 2, 1),
    "source_9": (4, 1, 5, 3, 2),
    "source_10": (1, 2, 3, 4, 5),
    "source_11": (1, 2, 4, 3, 5),
    "source_13": (1, 4, 3, 5, 2),
    "source_15": (1, 2, 2, 3, 4),
}

#: Channel number of each stain, by source.
CHANNELS: Mapping[str, Mapping[str, int]] = {
    source: dict(zip(STAINS, numbers, strict=True)) for source, numbers in _NUMBERS.items()
}

#: File names of the microscopes: Opera Phenix and Operetta; CV7000 and CV8000; ImageXpress (whose thumbnails are left
#: aside). Groups: row and column or well, site, plane of depth, channel number.
FILE_NAMES: Mapping[str, re.Pattern[str]] = {
    "phenix": re.compile(
        r"r(?P<row>\d+)c(?P<column>\d+)f(?P<site>\d+)p(?P<plane>\d+)-ch(?P<channel>\d+)sk\d+fk\d+fl\d+\.tiff?"
    ),
    "cv": re.compile(r".*_(?P<well>[A-Z]{1,2}\d\d)_T\d+F(?P<site>\d+)L\d+A\d+Z(?P<plane>\d+)C(?P<channel>\d+)\.tiff?"),
    "imagexpress": re.compile(
        r"(?:.*_)?(?P<well>[A-Z]{1,2}\d\d)_s(?P<site>\d+)_w(?P<channel>\d)(?!.*thumb)[^/]*\.tiff?"
    ),
}
