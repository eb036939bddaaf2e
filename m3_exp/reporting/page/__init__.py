"""The report page: one self-contained HTML file that needs no network, no server and no installation to read.

`data` is what goes in, `assemble.build` gives the file's text, `curves`, `cells`, `tables` are its parts, `pack` keeps
it small. page.html, page.css and page.js are what a browser gets; plotly.js draws the curves.
"""

from m3_exp.reporting.page.assemble import build
from m3_exp.reporting.page.cells import ITEMS_DROPPED
from m3_exp.reporting.page.curves import shown
from m3_exp.reporting.page.data import CellData, Item, PageData

__all__ = ["ITEMS_DROPPED", "CellData", "Item", "PageData", "build", "shown"]
