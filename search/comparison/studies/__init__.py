"""Studies as files: methods, seeds and budgets, and the yardsticks they are compared with."""
