"""What to do: the difference between desired and observed, as an ordered plan. Pure."""
