"""Heads for tests that take too long to run with every head."""

# Each has operations that the others lack: a class token, a fixed number of tokens, a shared query, batch norms of
# vectors and of tokens, softmax pooling with a bias and with many queries, positions, powers.
REPRESENTATIVE = ("cls", "se", "at", "ga", "seqpool", "ep", "aim", "clip", "gem")
