"""ViT-Lite, CVT and CCT without their heads (arXiv 2104.05704): the backbones of the family `compact`."""

from headsweep.models.compact.transformer import CompactTransformer as CompactTransformer
