"""NNablaNAS: its configurations, its names of arrays, its genotypes."""
