"""One archive with all that a sweep's numbers rest on, without what names the machine, its user or their secrets."""
