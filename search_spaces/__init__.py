"""What a candidate is: layouts and the spaces they are drawn from. Standard library and YAML
only.
"""

from search_spaces.errors import LayoutError, SpaceError, UserError
from search_spaces.layout import Layout, Stage
from search_spaces.loading import load_space
from search_spaces.space import SearchSpace

__all__ = ["Layout", "LayoutError", "SearchSpace", "SpaceError", "Stage", "UserError", "load_space"]
