"""Questions to the gate, to the audit and to the routing, at the command line."""
