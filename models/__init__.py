"""Trained models as tensors: what they need, how they are built, read and verified."""
