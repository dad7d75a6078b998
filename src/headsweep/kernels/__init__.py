"""Kernels that Triton compiles. Modules here import triton, and are imported where a step needs them."""
