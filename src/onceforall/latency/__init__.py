"""Latency of a real device: every part of a search space timed, and the sums compared with whole sub-networks."""
