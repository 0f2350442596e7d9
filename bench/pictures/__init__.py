"""The pictures in the README, drawn from measurements."""
