"""Pages and pictures of studies and encodes."""

from vpxrc.reports.dependency import write_inspection
from vpxrc.reports.figures import write_figures, write_pictures
from vpxrc.reports.pages import write_comparison, write_html

__all__ = [
    "write_comparison",
    "write_figures",
    "write_html",
    "write_inspection",
    "write_pictures",
]
