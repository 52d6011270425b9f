"""Which sub-network to pick."""
