"""Questions to the gate and to the audit, at the command line."""
