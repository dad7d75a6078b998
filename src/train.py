"""Train one run, or with -m a grid of runs: `python src/train.py -m head=seqpool,ga,seqattn heads=1,4,8`."""

import sys

from headsweep.entry import train

if __name__ == "__main__":
    train(sys.argv[1:])
