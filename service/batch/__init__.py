"""100,000 compounds in a night: a file of molecules in, partitioned parquet with a manifest out, on any fsspec address.

A plan is made once (entries, design, hashes, counts). Then compounds stream through stages, chem, paint, profile,
finish, on an executor: in this process, on this machine's cores and GPUs, or on a Ray cluster. Results are kept a part
at a time, whole or not at all; what is kept depends on the plan alone, never on executor, order, or interruptions.
"""

from service.batch.ask import BatchRequest
from service.batch.drive import Summary, run
from service.batch.plan import Plan

__all__ = ["BatchRequest", "Plan", "Summary", "run"]
