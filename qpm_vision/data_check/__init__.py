"""Questioning data before training on them: what repeats, contradicts, is missing or gives classes away."""

from qpm_vision.data_check.check import CHECK, Check, check_data, quick_check, read_check
from qpm_vision.data_check.finding import Finding, Seen

__all__ = ["CHECK", "Check", "Finding", "Seen", "check_data", "quick_check", "read_check"]
