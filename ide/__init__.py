"""A small IDE for the terminal: a client of the service that runs the six tools in one folder.

Its user approves the calls that change something.
"""
