"""The published models as their papers describe them, in plain torch modules under the authors' parameter names.

Independent of headsweep: loops over branches, full keys and values, no stacking. A file that the authors' code wrote
loads here with strict=True, and a state dict of these models loads there.

`authors_model("ga8_cct_7_3x1_32")` has SeqAttention's blocks, `authors_model("cct_7_3x1_32", official=True)` the CCT
authors'.
"""

import math
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = {2: (128, 2, 1), 4: (128, 2, 1), 6: (256, 4, 2), 7: (256, 4, 2), 14: (384, 6, 3)}  # width, heads, MLP ratio
NAME = re.compile(
    r"(?:(?P<head>[a-z]+?)(?P<heads>\d*)_)?(?P<kind>cct|cvt|vit)_(?P<depth>\d+)_(?P<kernel>\d+)(?:x(?P<layers>\d))?"
    r"_(?P<size>\d+)(?P<sine>_sine)?"
)


def authors_model(
    name: str,
    *,
    official: bool = False,
    num_classes: int = 10,
    image_size: int | None = None,
    sine: bool | None = None,
    gram_dim: int = 64,
) -> nn.Module:
    """The published model of a timm name; `sine` None: as in the name."""
    parts = NAME.fullmatch(name)
    assert parts is not None, name
    head = parts["head"] or ("cls" if parts["kind"] == "vit" else "seqpool")
    width, attention_heads, ratio = SIZES[int(parts["depth"])]
    tokenizer = Tokenizer(int(parts["kernel"]), int(parts["layers"] or 0), width)
    size = image_size or int(parts["size"])
    with torch.no_grad():
        tokens = tokenizer(torch.zeros(1, 3, size, size)).shape[1]
    sine = bool(parts["sine"]) if sine is None else sine
    pool = HEADS[head](width, tokens, num_classes, int(parts["heads"] or 1), gram_dim)
    block = StreamNormBlock if official else NoAttentionBlock if head == "sg" else PreNormBlock
    blocks = [block(width, attention_heads, ratio * width) for _ in range(int(parts["depth"]))]
    return Model(tokenizer, Classifier(pool, blocks, width, tokens, num_classes, head == "cls", sine))


class Model(nn.Module):
    def __init__(self, tokenizer: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.tokenizer, self.classifier = tokenizer, classifier

    def forward(self, images: Tensor) -> Tensor:
        """Logits of each branch (B, K, C)."""
        return self.classifier(self.tokenizer(images))


class Tokenizer(nn.Module):
    """Patches if there are no layers of convolution, ReLU and pooling."""

    def __init__(self, kernel: int, layers: int, width: int) -> None:
        super().__init__()
        if layers:
            planes = [3] + [64] * (layers - 1) + [width]
            stride, padding = max(1, kernel // 2 - 1), max(1, kernel // 2)
            self.conv_layers = nn.Sequential(
                *(
                    nn.Sequential(
                        nn.Conv2d(planes[i], planes[i + 1], kernel, stride, padding, bias=False),
                        nn.ReLU(),
                        nn.MaxPool2d(3, 2, 1),
                    )
                    for i in range(layers)
                )
            )
        else:
            self.conv_layers = nn.Sequential(nn.Sequential(nn.Conv2d(3, width, kernel, kernel)))

    def forward(self, images: Tensor) -> Tensor:
        return self.conv_layers(images).flatten(2).transpose(1, 2)


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = (y.view(b, n, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, 2))
        weights = (q @ k.transpose(2, 3) / math.sqrt(d // self.heads)).softmax(3)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class TwoLayers(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(F.gelu(self.linear1(x)))


class PreNormBlock(nn.Module):
    """SeqAttention's: both branches read a normalised copy of the stream."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = SelfAttention(width, heads), TwoLayers(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NoAttentionBlock(PreNormBlock):
    """SeqAttention's in its sg models: the self-attention is built, and returns its input."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm1(x)
        return x + self.mlp(self.norm2(x))


class StreamNormBlock(nn.Module):
    """The CCT authors': after the attention the stream itself is normalised."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.pre_norm, self.norm1 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn = SelfAttention(width, heads)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(self.pre_norm(x)))
        return x + self.linear2(F.gelu(self.linear1(x)))


class Classifier(nn.Module):
    """Positions, blocks, norm and the head; the place of the head's modules is that of its class."""

    def __init__(
        self,
        head: nn.Module,
        blocks: list[nn.Module],
        width: int,
        tokens: int,
        num_classes: int,
        class_token: bool,
        sine: bool,
    ) -> None:
        super().__init__()
        if class_token:
            self.class_emb = nn.Parameter(torch.zeros(1, 1, width))
        table = sine_table(tokens + class_token, width) if sine else torch.zeros(1, tokens + class_token, width)
        self.positional_emb = nn.Parameter(table, requires_grad=not sine)
        self.blocks, self.norm = nn.ModuleList(blocks), nn.LayerNorm(width)
        self.fc = nn.Linear(width, num_classes)  # unused where the head has classifiers of its own
        self.place = head.PLACE
        if self.place:
            setattr(self, self.place, head)
        else:  # its modules lie in the classifier itself
            self.pool = head.pool
            for name, module in head.named_children():
                setattr(self, name, module)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "class_emb"):
            x = torch.cat([self.class_emb.expand(len(x), -1, -1), x], 1)
        x = x + self.positional_emb
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        if self.place:
            return torch.stack(getattr(self, self.place)(x), 1)
        return self.fc(self.pool(x)).unsqueeze(1)


def sine_table(count: int, width: int) -> Tensor:
    """In float32, as the authors compute it."""
    angle = torch.tensor([[p / 10000 ** (2 * (i // 2) / width) for i in range(width)] for p in range(count)])
    angle[:, 0::2], angle[:, 1::2] = angle[:, 0::2].sin(), angle[:, 1::2].cos()
    return angle.unsqueeze(0)


class ClassToken(nn.Module):
    PLACE = ""

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()

    def pool(self, x: Tensor) -> Tensor:
        return x[:, 0]


class SequencePool(nn.Module):
    PLACE = ""

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()
        self.attention_pool = nn.Linear(width, 1)

    def pool(self, x: Tensor) -> Tensor:
        return (self.attention_pool(x).softmax(1) * x).sum(1)


class SqueezeExcitation(nn.Module):
    PLACE = ""

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()
        self.se_like_pool = nn.Module()
        self.se_like_pool.se = nn.Sequential(
            nn.Linear(tokens, tokens // 16), nn.ReLU(), nn.Linear(tokens // 16, tokens), nn.Sigmoid()
        )

    def pool(self, x: Tensor) -> Tensor:
        return (self.se_like_pool.se(x.mean(2)).unsqueeze(2) * x).mean(1)


class ClassAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 4
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gamma_1, self.gamma_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.q, self.attn.k, self.attn.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.attn.proj = nn.Linear(inner, width)
        self.mlp.fc1 = nn.Conv2d(width, 4 * width, 1, groups=2)
        self.mlp.fc2 = nn.Conv2d(4 * width, width, 1, groups=2)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        u = self.norm1(torch.cat([query.unsqueeze(1), x], 1))
        q, k, v = (
            y.unflatten(2, (8, -1)).transpose(1, 2) for y in (self.attn.q(u[:, :1]), self.attn.k(u), self.attn.v(u))
        )
        mixed = (q @ k.transpose(2, 3) / math.sqrt(q.shape[3])).softmax(3) @ v
        query = query + self.gamma_1 * self.attn.proj(mixed.transpose(1, 2).flatten(1))
        hidden = F.gelu(self.mlp.fc1(self.norm2(query)[:, :, None, None]))
        shuffled = hidden.view(len(x), -1, 2).transpose(1, 2).reshape_as(hidden)
        return query + self.gamma_2 * self.mlp.fc2(shuffled).flatten(1)


class AttentionHeads(nn.Module):
    PLACE = "no_gram_attn_head"

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(tokens, 128), nn.AdaptiveAvgPool1d(1))
        self.attention = nn.ModuleList(ClassAttention(width) for _ in range(heads))
        self.final_fc = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        query = self.fc(x.transpose(1, 2)).squeeze(2)
        return [fc(attention(x, query)) for attention, fc in zip(self.attention, self.final_fc, strict=True)]


class SequenceAttentionHeads(nn.Module):
    PLACE = "seq_attn_head"

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()
        self.fc_in = nn.ModuleList(nn.Linear(width, 1) for _ in range(heads))
        self.gram_attention = nn.ModuleList(ClassAttention(width) for _ in range(heads))
        self.final_fc = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        branches = zip(self.fc_in, self.gram_attention, self.final_fc, strict=True)
        return [fc(attention(x, (score(x).softmax(1) * x).sum(1))) for score, attention, fc in branches]


class GramHeads(nn.Module):
    PLACE = "simgram"

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__()
        entries = gram_dim * (gram_dim + 1) // 2
        self.gram_contraction = nn.ModuleList(
            nn.Sequential(nn.Identity(), nn.Conv2d(width, gram_dim, 1, groups=8), nn.BatchNorm2d(gram_dim))
            for _ in range(heads)
        )
        self.gram_embedding = nn.ModuleList(
            nn.Sequential(nn.Conv2d(entries, width, 1, groups=8), nn.BatchNorm2d(width)) for _ in range(heads)
        )
        self.fc = nn.ModuleList(nn.Linear(width, num_classes) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [fc(self.query(x, k)) for k, fc in enumerate(self.fc)]

    def query(self, x: Tensor, k: int) -> Tensor:
        f = self.gram_contraction[k](x.transpose(1, 2).unsqueeze(3)).squeeze(3)
        gram = f @ f.transpose(1, 2) / f.shape[2]
        rows, columns = zip(*((i, j) for i in range(f.shape[1]) for j in range(i, f.shape[1])), strict=True)
        triangle = F.normalize(gram[:, list(rows), list(columns)])
        return self.gram_embedding[k](triangle[:, :, None, None]).flatten(1)


class GramianAttentionHeads(GramHeads):
    PLACE = "gramian_attn_head"

    def __init__(self, width: int, tokens: int, num_classes: int, heads: int, gram_dim: int) -> None:
        super().__init__(width, tokens, num_classes, heads, gram_dim)
        self.gram_attention = nn.ModuleList(ClassAttention(width) for _ in range(heads))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [fc(self.gram_attention[k](x, self.query(x, k))) for k, fc in enumerate(self.fc)]


HEADS: dict[str, type[nn.Module]] = {
    "cls": ClassToken,
    "seqpool": SequencePool,
    "se": SqueezeExcitation,
    "at": AttentionHeads,
    "sg": GramHeads,
    "ga": GramianAttentionHeads,
    "seqattn": SequenceAttentionHeads,
}


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every trained parameter and running statistic away from its first value, so that each one matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise * (0.2 if parameter.ndim == 1 else 0.05))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model.eval()
