"""What can be built: archs, search spaces, plans, the catalogue. Pure Python, never imports torch."""

from onceforall.space.arch import Arch, Block, Value
from onceforall.space.catalog import CATALOG, search_space
from onceforall.space.lowering import lower, variants
from onceforall.space.older import read_space
from onceforall.space.plan import BlockPlan, Layer, Plan, make_divisible
from onceforall.space.rows import BlockRow, Gate, Head, StageSpace, Stem
from onceforall.space.search_space import SearchSpace
from onceforall.space.table import Gene

__all__ = ["CATALOG", "Arch", "Block", "BlockPlan", "BlockRow", "Gate", "Gene", "Head", "Layer", "Plan", "SearchSpace",
           "StageSpace", "Stem", "Value", "lower", "make_divisible", "read_space", "search_space", "variants"]
