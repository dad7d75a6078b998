"""Sweeps from Python: `import headsweep as hs`, then `hs.sweep`, `hs.results` and `hs.load`."""
