"""Model services as their users meet them: one module a family, each a server that enforces its rules."""
