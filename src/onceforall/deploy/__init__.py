"""A sub-network that leaves the library: a folder with weights and what is needed to use them."""
