"""Gates: what may stand between a delivery and its run."""
