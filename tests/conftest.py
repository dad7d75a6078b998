"""Shapes in annotations are checked at run time, in tests only; torch computes in one thread."""

import os

from jaxtyping import install_import_hook

# Before torch is imported, here or in a command that a test gives: on a busy machine two threads wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

install_import_hook(["headsweep.heads", "headsweep.models"], "beartype.beartype")
