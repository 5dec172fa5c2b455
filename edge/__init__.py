"""What HTTP asks of the service around its routes: the guard, bodies, server-sent events, the OpenAPI page."""
