"""The HTTP side: submit jobs, read what became of them, say whether everything is well.

A submission passes ``http.routes.submit`` (the request), ``http.request_body`` (its body), ``service.submission`` (is
it one?), ``service.order_check`` (does it fit a job type?), ``service.submitter`` (one event, one confirmed publish).
``producer.Producer`` holds everything that an API process needs; ``http.api.build_api`` puts the REST API on it.
"""
