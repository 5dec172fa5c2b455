"""The HTTP interface: keys, middleware, routes, bodies, server-sent events and the OpenAPI page."""
