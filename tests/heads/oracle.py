"""The heads as the papers write them: a plain loop over branches, each made of ordinary torch modules (docs/heads.md).

`reference(name, head)` copies the parameters of a stacked head into the loop; `NAMES[name]` says which stacked
parameter becomes which parameter of a branch.
"""

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.q = nn.Linear(d, d // 4, bias=False)
        self.k = nn.Linear(d, d // 4, bias=False)
        self.v = nn.Linear(d, d // 4, bias=False)
        self.proj = nn.Linear(d // 4, d)

    def forward(self, u: Tensor) -> Tensor:
        b, _, d = u.shape
        q, k, v = (
            f(x).view(b, -1, 8, d // 32).transpose(1, 2) for f, x in ((self.q, u[:, :1]), (self.k, u), (self.v, u))
        )
        attention = (q @ k.transpose(-2, -1) * (d // 32) ** -0.5).softmax(-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, 1, d // 4))


class Block(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(d), Attention(d), nn.LayerNorm(d)
        self.fc1 = nn.Conv2d(d, 4 * d, 1, groups=2)
        self.fc2 = nn.Conv2d(4 * d, d, 1, groups=2)
        self.gamma_1 = nn.Parameter(torch.full((d,), 1e-4))
        self.gamma_2 = nn.Parameter(torch.full((d,), 1e-4))

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        u = torch.cat([query.unsqueeze(1), x], 1)
        query = query + self.gamma_1 * self.attn(self.norm1(u)).squeeze(1)
        hidden = F.gelu(self.fc1(self.norm2(query)[:, :, None, None]))
        b, channels = hidden.shape[:2]
        hidden = hidden.view(b, channels // 2, 2).transpose(1, 2).reshape(b, channels, 1, 1)
        return query + self.gamma_2 * self.fc2(hidden).flatten(1)


class Gap(nn.Module):
    def __init__(self, d: int, c: int) -> None:
        super().__init__()
        self.fc = nn.Linear(d, c)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(1))


class SeqPool(nn.Module):
    def __init__(self, d: int, c: int) -> None:
        super().__init__()
        self.score, self.fc = nn.Linear(d, 1), nn.Linear(d, c)

    def pool(self, x: Tensor) -> Tensor:
        return (self.score(x).softmax(1).transpose(1, 2) @ x).squeeze(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x))


class SeqAttn(SeqPool):
    def __init__(self, d: int, c: int) -> None:
        super().__init__(d, c)
        self.block = Block(d)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(x, self.pool(x)))


class Ga(nn.Module):
    def __init__(self, d: int, c: int, gram_dim: int = 64) -> None:
        super().__init__()
        self.contraction = nn.Sequential(nn.Conv2d(d, gram_dim, 1, groups=8), nn.BatchNorm2d(gram_dim))
        self.embedding = nn.Sequential(nn.Conv2d(gram_dim * (gram_dim + 1) // 2, d, 1, groups=8), nn.BatchNorm2d(d))
        self.block, self.fc = Block(d), nn.Linear(d, c)

    def forward(self, x: Tensor) -> Tensor:
        f = self.contraction(x.transpose(1, 2).unsqueeze(-1)).squeeze(-1)
        rows, columns = torch.triu_indices(f.shape[1], f.shape[1])
        gram = F.normalize((f @ f.transpose(1, 2))[:, rows, columns])
        return self.fc(self.block(x, self.embedding(gram[:, :, None, None]).flatten(1)))


_FC = {"classifier.weight": "fc.weight", "classifier.bias": "fc.bias"}
_BLOCK = {
    f"attention.{stacked}": f"block.{plain}"
    for stacked, plain in {
        "norm1.weight": "norm1.weight",
        "norm1.bias": "norm1.bias",
        "proj.weight": "attn.proj.weight",
        "proj.bias": "attn.proj.bias",
        "norm2.weight": "norm2.weight",
        "norm2.bias": "norm2.bias",
        "mlp.fc1.weight": "fc1.weight",
        "mlp.fc1.bias": "fc1.bias",
        "mlp.fc2.weight": "fc2.weight",
        "mlp.fc2.bias": "fc2.bias",
        "gamma_1": "gamma_1",
        "gamma_2": "gamma_2",
    }.items()
} | {"attention.qkv": "block.attn.q.weight block.attn.k.weight block.attn.v.weight"}
_SCORE = {"score.weight": "score.weight", "score.bias": "score.bias"}
NAMES: dict[str, dict[str, str]] = {
    "gap": _FC,
    "seqpool": _FC | {f"pooling.{a}": b for a, b in _SCORE.items()},
    "seqattn": _FC | _BLOCK | {f"query.{a}": b for a, b in _SCORE.items()},
    "ga": _FC
    | _BLOCK
    | {
        "query.contraction.weight": "contraction.0.weight",
        "query.contraction.bias": "contraction.0.bias",
        "query.contraction_norm.weight": "contraction.1.weight",
        "query.contraction_norm.bias": "contraction.1.bias",
        "query.contraction_norm.running_mean": "contraction.1.running_mean",
        "query.contraction_norm.running_var": "contraction.1.running_var",
        "query.embedding.weight": "embedding.0.weight",
        "query.embedding.bias": "embedding.0.bias",
        "query.embedding_norm.weight": "embedding.1.weight",
        "query.embedding_norm.bias": "embedding.1.bias",
        "query.embedding_norm.running_mean": "embedding.1.running_mean",
        "query.embedding_norm.running_var": "embedding.1.running_var",
    },
}
BRANCHES: dict[str, type[nn.Module]] = {"gap": Gap, "seqpool": SeqPool, "seqattn": SeqAttn, "ga": Ga}


class Loop(nn.Module):
    """K branches, one after the other."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches], 1)


def reference(name: str, head: nn.Module) -> Loop:
    """A loop whose branch k holds the parameters and statistics of the stacked head's branch k."""
    sizes = (head.width, head.num_classes)
    options = {"gram_dim": head.query.contraction.bias.shape[1]} if name == "ga" else {}
    loop = Loop([BRANCHES[name](*sizes, **options) for _ in range(head.heads)])
    dtype = head.classifier.weight.dtype
    loop.to(dtype)
    with torch.no_grad():
        for stacked, plain in pairs(name, head.state_dict(), loop.state_dict()):
            plain.copy_(stacked)
    return loop


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients under the names of the state dict, with copies of the buffers."""
    found = {n: p.grad for n, p in module.named_parameters()}
    return found | {n: copy.copy(b) for n, b in module.named_buffers()}


def pairs(name: str, stacked: dict[str, Tensor], loop: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each stacked tensor's branches (or thirds of one) beside the same tensor of the loop, in the loop's shape."""
    for stacked_name, plain_names in NAMES[name].items():
        for k, branch in enumerate(stacked[stacked_name]):
            plain = plain_names.split()
            for part, plain_name in zip(branch.chunk(len(plain)), plain, strict=True):
                target = loop[f"branches.{k}.{plain_name}"]
                yield part.reshape(target.shape), target
