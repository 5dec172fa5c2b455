"""The command line: the gate's verdicts, the audit, the routing and the picture of the graph."""
