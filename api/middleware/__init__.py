"""The checks before the routes, as plain ASGI: they read nothing before the key, and let streams pass unchanged."""
