"""Token and money usage: measured, added up, limited."""
