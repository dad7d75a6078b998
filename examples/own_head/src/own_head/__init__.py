"""A head, a backbone and a data set of one's own. Nothing here imports torch, as headsweep reads `records` at once."""
