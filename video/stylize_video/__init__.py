"""Clips, as a plugin of stylize. In preparation: it registers nothing yet."""
