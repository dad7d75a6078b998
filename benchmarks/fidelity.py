"""Compare the models with the published ones: parameters, FLOPs and logits of every published name.

    python benchmarks/fidelity.py [--markdown FILE] [--upstream DIR] [--official DIR]

Every parameter is moved away from its initial value, the state dict goes through `load_state_dict`, and the logits of
every head are compared on random images, float32, evaluation mode. The published side is the independent implementation
of tests/models/checkpoints or, with checkouts of the authors' repositories (github JeongHwaSik/Powerful-SeqAttn-for-CCT
and SHI-Labs/Compact-Transformers, the former needs einops), the authors' code.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import timm.models.registry
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "models" / "checkpoints"))
from authors_models import authors_model, shake

from headsweep.models import count_cost
from headsweep.models.registry import ENTRIES

SEQATTENTION = ["cct_7_3x1_32", "se1_cct_7_3x1_32"]
SEQATTENTION += [f"{head}{k}_cct_7_3x1_32" for head in ("at", "sg", "ga", "seqattn") for k in (1, 2, 4, 8)]
OFFICIAL = [name for name in ENTRIES if name[:4] in ("cct_", "cvt_", "vit_")]

# Counts of the published models at these classes (docs/heads.md), without the classifier that they never call.
SEQATTENTION_CLASSES = 100
PUBLISHED = {
    ("SeqAttention", "cct_7_3x1_32"): 3_783_269,
    ("SeqAttention", "at1_cct_7_3x1_32"): 4_146_660,
    ("SeqAttention", "at4_cct_7_3x1_32"): 5_216_016,
    ("SeqAttention", "sg1_cct_7_3x1_32"): 3_852_580,
    ("SeqAttention", "sg4_cct_7_3x1_32"): 4_138_384,
    ("SeqAttention", "ga1_cct_7_3x1_32"): 4_183_332,
    ("SeqAttention", "ga2_cct_7_3x1_32"): 4_609_352,
    ("SeqAttention", "ga4_cct_7_3x1_32"): 5_461_392,
    ("SeqAttention", "ga8_cct_7_3x1_32"): 7_165_472,
    ("SeqAttention", "seqattn1_cct_7_3x1_32"): 4_114_021,
    ("SeqAttention", "seqattn2_cct_7_3x1_32"): 4_470_730,
    ("SeqAttention", "seqattn4_cct_7_3x1_32"): 5_184_148,
    ("SeqAttention", "seqattn8_cct_7_3x1_32"): 6_610_984,
    ("CCT", "cct_2_3x2_32"): 283_723,
    ("CCT", "cct_4_3x2_32"): 482_123,
    ("CCT", "cct_6_3x1_32"): 3_233_803,
    ("CCT", "cct_7_3x1_32"): 3_760_139,
    ("CCT", "cct_7_3x2_32"): 3_853_259,
    ("CCT", "cct_14_7x2_224"): 22_367_273,
    ("CCT", "vit_7_4_32"): 3_716_874,
    ("CCT", "cvt_7_4_32"): 3_716_619,
}
Builder = Callable[..., nn.Module]


@dataclass(frozen=True)
class Row:
    """One published name."""

    code: str
    name: str
    classes: int
    stated: int | None  # parameters, if a source states them
    published: int  # parameters
    headsweep: int
    flops: int
    differences: list[float]  # of the logits, by head
    logits: float  # the largest one


HEADINGS = (
    "code",
    "name",
    "C",
    "parameters stated",
    "published",
    "headsweep",
    "MFLOP",
    "largest logit",
    "largest difference per head",
)


def main(words: Sequence[str] | None = None) -> None:
    args = arguments(words)
    logging.getLogger("headsweep").setLevel(logging.ERROR)  # what a load changes is expected here
    upstream = args.upstream and upstream_builders(args.upstream)
    official = args.official and official_builders(args.official)
    lines = [HEADINGS, ("---",) * len(HEADINGS)]
    for row in rows(upstream, official):
        lines.append(cells(row))
        print(" ".join(lines[-1]), flush=True)
    if args.markdown:
        args.markdown.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines))


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--upstream", type=Path, help="checkout of the SeqAttention code")
    parser.add_argument("--official", type=Path, help="checkout of the CCT authors' code")
    return parser.parse_args(words)


def rows(upstream: dict[str, Builder] | None, official: dict[str, Builder] | None) -> Iterator[Row]:
    for name in SEQATTENTION:
        yield measure("SeqAttention", name, "pre_norm", SEQATTENTION_CLASSES, upstream)
    for name in OFFICIAL:
        if official and name not in official:
            continue  # cct_14_7x2_*_sine: a combination without a published name
        yield measure("CCT", name, "stream_norm", ENTRIES[name].num_classes, official)


@torch.no_grad()
def measure(code: str, name: str, block: str, classes: int, builders: dict[str, Builder] | None) -> Row:
    torch.manual_seed(0)
    published = shake(build_published(name, block, classes, builders))
    positions = "learnable" if published.classifier.positional_emb.requires_grad else "sine"
    model = timm.create_model(name, num_classes=classes, block=block, positions=positions).eval()
    model.load_state_dict(published.state_dict())
    size = ENTRIES[name].image_size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected, found = by_head(published(images.clone())), model(images, per_head=True)
    return Row(
        code,
        name,
        classes,
        PUBLISHED.get((code, name)),
        count(published) - unused(published),
        count(model),
        count_cost(model, size, 3).flops,
        (found - expected).abs().amax((0, 2)).tolist(),
        expected.abs().max().item(),
    )


def build_published(name: str, block: str, classes: int, builders: dict[str, Builder] | None) -> nn.Module:
    """Build the implementation of the tests or the authors' own, with the number of heads in the name."""
    if not builders:
        return authors_model(name, official=block == "stream_norm", num_classes=classes)
    heads = ENTRIES[name].heads
    # Their constructors read `branches`; their registered names set `branch`, which nothing reads.
    more = {"branches": heads} if heads and name in SEQATTENTION and not name.startswith("se1") else {}
    return builders[name](num_classes=classes, **more)


def by_head(logits: Tensor | list[Tensor]) -> Tensor:
    """(B, K, C) from what the authors' models return: a list over heads, (B, C) or (B, K, C)."""
    stacked = torch.stack(logits, 1) if isinstance(logits, list) else logits
    return stacked if stacked.ndim == 3 else stacked.unsqueeze(1)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def unused(published: nn.Module) -> int:
    """Weights of the classifier that a model with classifiers in its heads never calls."""
    own = any(hasattr(published.classifier, name) for name in OWN_CLASSIFIERS)
    return count(published.classifier.fc) if own else 0


OWN_CLASSIFIERS = ("no_gram_attn_head", "simgram", "gramian_attn_head", "seq_attn_head")


def upstream_builders(folder: Path) -> dict[str, Builder]:
    """The authors' builders by the names of headsweep, with a repair without which one file cannot be compared."""
    builders = collect(folder, "models", ("cct", "ga_cct", "at_cct", "sg_cct", "seqattn_cct", "se_cct"))
    squeeze: Any = importlib.import_module("models.se_cct")
    squeeze._sem_cct = squeeze._se_cct  # the file calls the former, which it does not define
    print("SeqAttention's code, with se_cct's NameError repaired")
    builders["se1_cct_7_3x1_32"] = builders["se_cct_7_3x1_32"]
    for heads in (2, 4, 8):
        builders[f"seqattn{heads}_cct_7_3x1_32"] = builders["seqattn1_cct_7_3x1_32"]
    return builders


def official_builders(folder: Path) -> dict[str, Builder]:
    print("the CCT authors' code")
    return collect(folder, "src", ("cct", "cvt", "vit"))


def collect(folder: Path, package: str, modules: tuple[str, ...]) -> dict[str, Builder]:
    """The functions that the authors' files would register with timm."""
    found: dict[str, Builder] = {}

    def keep(builder: Builder) -> Builder:
        found[builder.__name__] = builder
        return builder

    registering: Any = timm.models.registry
    before, registering.register_model = registering.register_model, keep
    sys.path.insert(0, str(folder))
    for module in modules:
        importlib.import_module(f"{package}.{module}")
    registering.register_model = before
    return found


def cells(row: Row) -> tuple[str, ...]:
    return (
        row.code,
        f"`{row.name}`",
        str(row.classes),
        f"{row.stated:,}" if row.stated else "",
        f"{row.published:,}",
        f"{row.headsweep:,}",
        f"{row.flops / 1e6:,.1f}",
        f"{row.logits:.2f}",
        ", ".join(f"{difference:.1e}" for difference in row.differences),
    )


if __name__ == "__main__":
    main()
