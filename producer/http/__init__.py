"""The REST API: routes, request parsing, errors, OpenAPI and AsyncAPI. It calls ``service`` and ``live`` and has no
rules of its own.
"""
