"""The families of the engine `fast` in torch, for batches of fields: the same columns and values, on a GPU or a CPU.

One file a family, with the name of its twin in `profiling.engines.families`, which holds the definitions, the names of
the columns and the references. Here all objects of all fields of a batch are one list of pixels (`batch.Lists`), and a
family is a handful of scans, sorts and sums over runs of it: no loop over objects or fields. Counts are whole numbers
and sums run object by object, so a field's values do not depend on the batch that it came in.

What follows one pixel after the other stays with the processes that prepare the fields (`profiling.engines.
fast_prepare`): finding the objects, convex hulls, the order of ties, neighbours.
"""
