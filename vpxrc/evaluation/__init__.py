"""BD-rates, and studies that compare policies on clips at several bitrates."""

from vpxrc.evaluation.bd_rate import BdRate, Mean, mean_ci95, more_bits
from vpxrc.evaluation.comparison import Comparison, compare, read_study
from vpxrc.evaluation.inspection import Inspection, inspect
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.evaluation.study import evaluate
from vpxrc.evaluation.tables import table
from vpxrc.quality import METRICS, measure, summarize

__all__ = [
    "METRICS",
    "BdRate",
    "Clip",
    "Comparison",
    "Evaluation",
    "Inspection",
    "Mean",
    "compare",
    "evaluate",
    "inspect",
    "mean_ci95",
    "measure",
    "more_bits",
    "read_study",
    "summarize",
    "table",
]
