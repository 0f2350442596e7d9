"""What attributions and importance are computed from, made when a pipeline is published."""
