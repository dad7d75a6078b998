"""headsweep: which classification head, and how many of them?"""
