"""Intent and facts to desired kernel state. Pure."""
