"""Weights files: our own form, and a register of the forms of other projects."""
