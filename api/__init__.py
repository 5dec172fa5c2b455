"""What HTTP asks of the service around its routes: keys, the guard, bodies, server-sent events, the OpenAPI page."""
