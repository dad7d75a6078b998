"""headsweep: which classification head, and how many of them?"""

__version__ = "0.1.0"
