"""What embedders minimise, one idea a file, as functions of tensors: known by hand-written loops in the tests."""
