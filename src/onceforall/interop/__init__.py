"""Exchange with NNablaNAS: its configuration files and its weights."""
