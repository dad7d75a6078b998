"""The heads as defined in the papers: a loop over branches of ordinary torch modules (docs/heads.md).

`reference(name, head)` copies the parameters of a stacked head into the loop. A branch lists in `NAMES` which parameter
of the stacked head becomes which of its own, and in `SHARED` which of its modules all branches are.
"""

import copy
from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headsweep.heads import Head


class Attention(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.q = nn.Linear(d, d // 4, bias=False)
        self.k = nn.Linear(d, d // 4, bias=False)
        self.v = nn.Linear(d, d // 4, bias=False)
        self.proj = nn.Linear(d // 4, d)

    def forward(self, u: Tensor) -> Tensor:
        b, _, d = u.shape
        values = self._by_head(self.v(u))
        return self.proj((self.attention(u) @ values).transpose(1, 2).reshape(b, 1, d // 4))

    def attention(self, u: Tensor) -> Tensor:
        q, k = self._by_head(self.q(u[:, :1])), self._by_head(self.k(u))
        return (q @ k.transpose(-2, -1) * (u.shape[2] // 32) ** -0.5).softmax(-1)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (8, -1)).transpose(1, 2)


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

    def token_weights(self, x: Tensor, query: Tensor) -> Tensor:
        u = torch.cat([query.unsqueeze(1), x], 1)
        on_tokens = self.attn.attention(self.norm1(u)).mean(1)[:, 0, 1:]
        return on_tokens / on_tokens.sum(1, keepdim=True)


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
_GRAM = {
    f"query.{stacked}.{tensor}": f"{plain}.{tensor}"
    for layer in ("contraction", "embedding")
    for stacked, plain, tensors in (
        (layer, f"{layer}.0", ("weight", "bias")),
        (f"{layer}_norm", f"{layer}.1", ("weight", "bias", "running_mean", "running_var")),
    )
    for tensor in tensors
}


class Branch(nn.Module):
    """One branch of a head; made for the sizes of the stacked one."""

    NAMES: ClassVar[dict[str, str]]
    SHARED: ClassVar[tuple[str, ...]] = ()

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.fc = nn.Linear(head.pooled_width, head.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x))


class Gap(Branch):
    NAMES = _FC

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(1)

    def token_weights(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, :, 0]) / x.shape[1]


class Cls(Branch):
    NAMES = _FC

    def pool(self, x: Tensor) -> Tensor:
        return x[:, 0]

    def token_weights(self, x: Tensor) -> None:
        return None


class SeqPool(Branch):
    NAMES = _FC | {"pooling.score.weight": "score.weight", "pooling.score.bias": "score.bias"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.score = nn.Linear(head.width, 1)

    def pool(self, x: Tensor) -> Tensor:
        return (self.score(x).softmax(1).transpose(1, 2) @ x).squeeze(1)

    def token_weights(self, x: Tensor) -> Tensor:
        return self.score(x).squeeze(2).softmax(1)


class Se(Branch):
    NAMES = _FC | {
        f"pooling.fc{i + 1}.{tensor}": f"se.{2 * i}.{tensor}" for i in (0, 1) for tensor in ("weight", "bias")
    }

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        n = head.tokens
        hidden = max(1, n // 16)
        self.se = nn.Sequential(nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, n), nn.Sigmoid())

    def pool(self, x: Tensor) -> Tensor:
        return (self.se(x.mean(2)).unsqueeze(2) * x).mean(1)

    def token_weights(self, x: Tensor) -> Tensor:
        gates = self.se(x.mean(2))
        return gates / gates.sum(1, keepdim=True)


class Cait(Branch):
    NAMES = _FC | _BLOCK | {"token": "token"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.token, self.block = nn.Parameter(torch.empty(head.width)), Block(head.width)

    def pool(self, x: Tensor) -> Tensor:
        return self.block(x, self.token.expand(len(x), -1))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.block.token_weights(x, self.token.expand(len(x), -1))


class At(Branch):
    NAMES = _FC | _BLOCK | {"query.weight": "query.weight", "query.bias": "query.bias"}
    SHARED = ("query",)

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.query, self.average, self.block = nn.Linear(head.tokens, 128), nn.AdaptiveAvgPool1d(1), Block(head.width)

    def pool(self, x: Tensor) -> Tensor:
        return self.block(x, self._query(x))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.block.token_weights(x, self._query(x))

    def _query(self, x: Tensor) -> Tensor:
        return self.average(self.query(x.transpose(1, 2))).squeeze(2)


class Sg(Branch):
    NAMES = _FC | _GRAM

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d, g = head.width, head.query.contraction.bias.shape[1]
        self.contraction = nn.Sequential(nn.Conv2d(d, g, 1, groups=8), nn.BatchNorm2d(g))
        self.embedding = nn.Sequential(nn.Conv2d(g * (g + 1) // 2, d, 1, groups=8), nn.BatchNorm2d(d))

    def pool(self, x: Tensor) -> Tensor:
        f = self.contraction(x.transpose(1, 2).unsqueeze(-1)).squeeze(-1)
        gram = F.normalize(self._triangle(f @ f.transpose(1, 2)))
        return self.embedding(gram[:, :, None, None]).flatten(1)

    def token_weights(self, x: Tensor) -> Tensor:
        f = self.contraction(x.transpose(1, 2).unsqueeze(-1)).squeeze(-1)
        of_tokens = torch.stack([self._triangle(f_n[:, :, None] * f_n[:, None]) for f_n in f.unbind(2)], 1)
        gram = of_tokens.sum(1, keepdim=True)
        return (of_tokens * gram).sum(2) / gram.square().sum(2)

    def _triangle(self, gram: Tensor) -> Tensor:
        rows, columns = torch.triu_indices(*gram.shape[1:])
        return gram[:, rows, columns]


class Ga(Sg):
    NAMES = Sg.NAMES | _BLOCK

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.block = Block(head.width)

    def pool(self, x: Tensor) -> Tensor:
        return self.block(x, super().pool(x))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.block.token_weights(x, super().pool(x))


class SeqAttn(SeqPool):
    NAMES = _FC | _BLOCK | {"query.score.weight": "score.weight", "query.score.bias": "score.bias"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.block = Block(head.width)

    def pool(self, x: Tensor) -> Tensor:
        return self.block(x, super().pool(x))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.block.token_weights(x, super().pool(x))


class Ep(Branch):
    NAMES = _FC | {"query": "query", "value": "value.weight"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.query = nn.Parameter(torch.empty(head.queries, head.width))
        self.value = nn.Linear(head.width, head.pooled_width, bias=False)

    def pool(self, x: Tensor) -> Tensor:
        parts = self.value(x).unflatten(2, (len(self.query), -1))
        return (self._weights(x).unsqueeze(3) * parts).sum(1).flatten(1)

    def token_weights(self, x: Tensor) -> Tensor:
        return self._weights(x).mean(2)

    def _weights(self, x: Tensor) -> Tensor:
        return (x @ self.query.T * x.shape[2] ** -0.5).softmax(1)


class MultiHead(nn.Module):
    """Attention of vectors that are split into attention heads; nothing is projected."""

    def __init__(self, attention_heads: int) -> None:
        super().__init__()
        self.attention_heads = attention_heads

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        found = self.weights(query, keys) @ self._split(values)
        return found.transpose(1, 2).flatten(2)

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        q, k = self._split(query), self._split(keys)
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)

    def mean_weights(self, query: Tensor, keys: Tensor) -> Tensor:
        return self.weights(query, keys).mean((1, 2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.attention_heads, -1)).transpose(1, 2)


class Aim(Branch):
    NAMES = _FC | {
        "norm.running_mean": "norm.running_mean",
        "norm.running_var": "norm.running_var",
        "query": "query",
        "key": "key.weight",
        "value": "value.weight",
    }

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.norm = nn.BatchNorm1d(d, affine=False, eps=1e-6)
        self.query = nn.Parameter(torch.empty(head.query.shape[1], d))
        self.key, self.value = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
        self.attention = MultiHead(head.attention_heads)

    def pool(self, x: Tensor) -> Tensor:
        u = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.attention(self.query.expand(len(x), -1, -1), self.key(u), self.value(u)).mean(1)

    def token_weights(self, x: Tensor) -> Tensor:
        u = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return self.attention.mean_weights(self.query.expand(len(x), -1, -1), self.key(u))


class SimPool(Branch):
    NAMES = _FC | {
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
        "query": "query.weight",
        "key": "key.weight",
    }

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.gamma, self.norm = head.gamma, nn.LayerNorm(d)
        self.query, self.key = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)

    def pool(self, x: Tensor) -> Tensor:
        u, weights = self.norm(x), self.token_weights(x).unsqueeze(2)
        if self.gamma is None:
            return (weights * u).sum(1)
        values = u - u.flatten(1).min(1).values[:, None, None] + 1e-6
        return (weights * values**self.gamma).sum(1) ** (1 / self.gamma)

    def token_weights(self, x: Tensor) -> Tensor:
        q, keys = self.query(x.mean(1, keepdim=True)), self.key(self.norm(x))
        return (q * keys).sum(2).mul(x.shape[2] ** -0.5).softmax(1)


def projections(*names: str) -> dict[str, str]:
    """Linear layers of the same names in the stacked head and in the loop."""
    return {f"{name}.{tensor}": f"{name}.{tensor}" for name in names for tensor in ("weight", "bias")}


_MLP = {f"mlp.fc{i + 1}.{tensor}": f"mlp.{2 * i}.{tensor}" for i in (0, 1) for tensor in ("weight", "bias")}


def mlp(d: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))


class Map(Branch):
    NAMES = _FC | _MLP | projections("query", "key", "value", "proj", "norm") | {"probe": "probe"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.probe, self.attention = nn.Parameter(torch.empty(d)), MultiHead(head.attention_heads)
        self.query, self.key, self.value, self.proj = (nn.Linear(d, d) for _ in range(4))
        self.norm, self.mlp = nn.LayerNorm(d), mlp(d)

    def pool(self, x: Tensor) -> Tensor:
        y = self.proj(self.attention(self._query(x), self.key(x), self.value(x)).squeeze(1))
        return y + self.mlp(self.norm(y))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.attention.mean_weights(self._query(x), self.key(x))

    def _query(self, x: Tensor) -> Tensor:
        return self.query(self.probe.expand(len(x), 1, -1))


class Abmilp(Branch):
    NAMES = _FC | projections("score", "layers.0")

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.layers, self.score = nn.ModuleList(nn.Linear(d, d) for _ in head.layers), nn.Linear(d, 1)

    def pool(self, x: Tensor) -> Tensor:
        return (self.token_weights(x).unsqueeze(2) * x).sum(1)

    def token_weights(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return self.score(x).squeeze(2).softmax(1)


class Gem(Branch):
    NAMES = _FC | {"power": "power"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.power = nn.Parameter(torch.empty(1))

    def pool(self, x: Tensor) -> Tensor:
        return (x.clamp(min=1e-6) ** self.power).mean(1) ** (1 / self.power)

    def token_weights(self, x: Tensor) -> Tensor:
        powers = x.clamp(min=1e-6) ** self.power
        return (powers / powers.sum(1, keepdim=True)).mean(2)


class Max(Branch):
    NAMES = _FC

    def pool(self, x: Tensor) -> Tensor:
        return x.max(1).values

    def token_weights(self, x: Tensor) -> Tensor:
        return F.one_hot(x.max(1).indices, x.shape[1]).to(x.dtype).mean(1)


class Lse(Branch):
    NAMES = _FC

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        self.r = head.sharpness

    def pool(self, x: Tensor) -> Tensor:
        return (self.r * x).exp().mean(1).log() / self.r

    def token_weights(self, x: Tensor) -> Tensor:
        return (self.r * x).softmax(1).mean(2)


class ClsGap(Branch):
    NAMES = _FC

    def pool(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 0], x[:, 1:].mean(1)], 1)

    def token_weights(self, x: Tensor) -> Tensor:
        return torch.ones_like(x[:, 1:, 0]) / (x.shape[1] - 1)


class Clip(Branch):
    NAMES = _FC | projections("query", "key", "value", "proj") | {"positions": "positions"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.positions, self.attention = nn.Parameter(torch.empty(1 + head.tokens, d)), MultiHead(head.attention_heads)
        self.query, self.key, self.value, self.proj = (nn.Linear(d, d) for _ in range(4))

    def pool(self, x: Tensor) -> Tensor:
        u = self._sequence(x)
        return self.proj(self.attention(self.query(u[:, :1]), self.key(u), self.value(u))).squeeze(1)

    def token_weights(self, x: Tensor) -> Tensor:
        u = self._sequence(x)
        shares = self.attention.mean_weights(self.query(u[:, :1]), self.key(u))
        return shares[:, 1:] + shares[:, :1] / x.shape[1]

    def _sequence(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean(1, keepdim=True), x], 1) + self.positions


class SelfAttention(nn.Module):
    def __init__(self, d: int, attention_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(d), nn.LayerNorm(d), mlp(d)
        self.qkv, self.proj, self.attention = nn.Linear(d, 3 * d), nn.Linear(d, d), MultiHead(attention_heads)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self.attention(*self.qkv(self.norm1(x)).chunk(3, -1)))
        return x + self.mlp(self.norm2(x))


class VJepa(Branch):
    NAMES = _FC | _MLP | projections("norm1", "query", "key", "value", "norm2") | {"token": "token"}

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d, h = head.width, head.attention_heads
        self.blocks = nn.Sequential(*(SelfAttention(d, h) for _ in head.blocks))
        self.token, self.attention = nn.Parameter(torch.empty(d)), MultiHead(h)
        self.query, self.key, self.value = (nn.Linear(d, d) for _ in range(3))
        self.norm1, self.norm2, self.mlp = nn.LayerNorm(d), nn.LayerNorm(d), mlp(d)

    def pool(self, x: Tensor) -> Tensor:
        u = self.norm1(self.blocks(x))
        y = self.token + self.attention(self._query(x), self.key(u), self.value(u)).squeeze(1)
        return y + self.mlp(self.norm2(y))

    def token_weights(self, x: Tensor) -> Tensor:
        return self.attention.mean_weights(self._query(x), self.key(self.norm1(self.blocks(x))))

    def _query(self, x: Tensor) -> Tensor:
        return self.query(self.token.expand(len(x), 1, -1))


class Cae(Branch):
    NAMES = (
        _FC
        | projections("query_norm", "key_norm", "value_norm", "proj")
        | {"token": "token", "query": "query.weight", "key": "key.weight", "value": "value.weight"}
    )

    def __init__(self, head: Head) -> None:
        super().__init__(head)
        d = head.width
        self.token, self.attention = nn.Parameter(torch.empty(d)), MultiHead(head.attention_heads)
        self.query_norm, self.key_norm, self.value_norm = (nn.LayerNorm(d) for _ in range(3))
        self.query, self.key, self.value = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.proj = nn.Linear(d, d)

    def pool(self, x: Tensor) -> Tensor:
        keys, values = self.key(self.key_norm(x)), self.value(self.value_norm(x))
        return self.proj(self.attention(self._query(x), keys, values)).squeeze(1)

    def token_weights(self, x: Tensor) -> Tensor:
        return self.attention.mean_weights(self._query(x), self.key(self.key_norm(x)))

    def _query(self, x: Tensor) -> Tensor:
        return self.query(self.query_norm(self.token.expand(len(x), 1, -1)))


BRANCHES: dict[str, type[Branch]] = {
    "gap": Gap,
    "cls": Cls,
    "seqpool": SeqPool,
    "se": Se,
    "cait": Cait,
    "at": At,
    "sg": Sg,
    "ga": Ga,
    "seqattn": SeqAttn,
    "ep": Ep,
    "aim": Aim,
    "simpool": SimPool,
    "map": Map,
    "abmilp": Abmilp,
    "gem": Gem,
    "max": Max,
    "lse": Lse,
    "cls_gap": ClsGap,
    "clip": Clip,
    "vjepa": VJepa,
    "cae": Cae,
}


class Loop(nn.Module):
    """K branches, one after the other."""

    def __init__(self, branches: list[Branch]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        for branch in branches[1:]:
            for shared in branch.SHARED:
                setattr(branch, shared, getattr(branches[0], shared))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([branch(x) for branch in self.branches], 1)

    def token_weights(self, x: Tensor) -> Tensor | None:
        each = [branch.token_weights(x) for branch in self.branches]
        return None if each[0] is None else torch.stack(each, 1)


def reference(name: str, head: Head) -> Loop:
    """A loop whose branch k holds the parameters and statistics of the stacked head's branch k."""
    loop = Loop([BRANCHES[name](head) for _ in range(head.heads)]).to(head.classifier.weight.dtype)
    with torch.no_grad():
        for stacked, plain in pairs(name, head.state_dict(), loop.state_dict()):
            plain.copy_(stacked)
    return loop


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """Gradients under the names of the state dict, with copies of the buffers."""
    found = {n: p.grad for n, p in module.named_parameters()}
    return found | {n: copy.copy(b) for n, b in module.named_buffers()}


def pairs(name: str, stacked: dict[str, Tensor], loop: dict[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each stacked tensor's branches (or thirds of one) beside the same tensor of the loop, in the loop's shape.

    What branches share has one of them: the loop's first branch holds it if it is `SHARED`, else each has a copy.
    """
    heads = len({key.split(".")[1] for key in loop})
    for stacked_name, plain_names in BRANCHES[name].NAMES.items():
        plain, tensor = plain_names.split(), stacked[stacked_name]
        copied = len(tensor) == 1 and not plain_names.startswith(BRANCHES[name].SHARED)
        for k, branch in enumerate(tensor.expand(heads, *tensor.shape[1:]) if copied else tensor):
            for part, plain_name in zip(branch.chunk(len(plain)), plain, strict=True):
                target = loop[f"branches.{k}.{plain_name}"]
                yield part.reshape(target.shape), target
