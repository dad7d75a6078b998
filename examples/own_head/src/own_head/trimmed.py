"""The `trimmed` head: of each feature, the mean over tokens without the smallest and the largest."""

from torch import Tensor

from headsweep.heads import Head


class TrimmedHead(Head):
    """Branches share what they pool and differ in their classifiers alone."""

    def __init__(self, width: int, num_classes: int, heads: int, tokens: int, *, share: float = 0.25) -> None:
        super().__init__(width, num_classes, heads, tokens)
        self.share = share

    def pool(self, tokens: Tensor) -> Tensor:  # (b, n, d) to (b, k, d)
        left_out = int(self.share * tokens.shape[1])
        kept = tokens.sort(1).values[:, left_out : tokens.shape[1] - left_out]
        return kept.mean(1, keepdim=True).expand(-1, self.heads, -1)

    def token_weights(self, tokens: Tensor) -> Tensor:  # (b, n, d) to (b, k, n)
        left_out, count = int(self.share * tokens.shape[1]), tokens.shape[1]
        ranks = tokens.argsort(1).argsort(1)
        is_kept = ((ranks >= left_out) & (ranks < count - left_out)).to(tokens.dtype)
        return (is_kept.mean(2) / (count - 2 * left_out)).unsqueeze(1).expand(-1, self.heads, -1)
