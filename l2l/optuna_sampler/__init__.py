"""The searchers of l2l in any Optuna study."""
