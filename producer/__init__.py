"""The API: submits jobs, reads and streams their state, and reports the health of the installation.

A submission passes ``http.routes.jobs.submit`` (the request), ``schemas.submission`` (the fields and their limits),
``service.submission.order_check`` (does it fit a job type?) and ``service.submission.submitter`` (one event, one
confirmed publish). ``producer.Producer`` holds everything that an API process needs; ``http.api.build_api`` puts the
REST API on it.
"""
