"""Does a head's spectrum predict how it attends?"""

from analyses.head_geometry.analysis import analyse as analyse
from analyses.head_geometry.analysis import measure as measure
