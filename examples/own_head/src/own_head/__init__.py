"""A head, a backbone, a data set and a metric of one's own. Nothing here imports torch: see `records`."""
