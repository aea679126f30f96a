"""Export of found models as files that hold data only."""
