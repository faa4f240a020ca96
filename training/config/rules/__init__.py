"""Rules about whole configurations: defaults by method, what a run reads, what may change when it is resumed."""
