"""How a found model leaves: as files that hold data only."""
