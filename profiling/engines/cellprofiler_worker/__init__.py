"""What runs inside CellProfiler's own virtual environment (numpy 1.24, no jaxtyping, no pandas): it loads a pipeline
file, runs its modules on pictures that come over a pipe, and sends the measurements back. Nothing here imports from the
rest of dopaint, and nothing in dopaint but the engine's client talks to it.
"""
