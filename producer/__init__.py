"""The HTTP side: submit jobs, read what became of them, say whether everything is well.

``service.Producer`` does it all without HTTP; ``api.build_api`` puts the REST API on it. A job's way through here:
``routes_submit`` (the request) → ``reading`` (its body) → ``submission`` (is it one?) → ``orders`` (does it fit a job
type?) → ``service`` (one event, one confirmed publish).
"""
