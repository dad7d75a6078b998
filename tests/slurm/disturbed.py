"""`python disturbed.py [-u] -m MODULE ARGUMENTS`: MODULE, in whose process and workers runs misbehave; see sabotage.py.

A worker of multiprocessing imports the file of the main module first.
"""

import runpy
import sys
from pathlib import Path

from headsweep.training import loop

exec(Path(__file__).with_name("sabotage.py").read_text(), vars(loop))
if __name__ == "__main__":
    del sys.argv[: sys.argv.index("-m") + 1]
    runpy.run_module(sys.argv[0], run_name="__main__")  # sys.modules keeps this file as the main module
