"""The dashboard: the page at ``/`` and the files that it loads. It calls the REST API like any other client."""
