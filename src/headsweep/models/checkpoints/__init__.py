"""State dicts: read from files, fitted to a model, and published under the names of other codes."""
