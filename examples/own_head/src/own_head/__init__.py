"""A head and a backbone of one's own. Nothing here imports torch: headsweep reads `records` for every --help."""
