"""Support for the tests: the service under test, scripted models and clients, processes."""
