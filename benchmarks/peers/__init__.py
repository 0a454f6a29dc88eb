"""Programs that run in the peers' own environment: their job, their worker's settings, and a client for each.

Nothing here imports Jobtape, except ``jobtape_client``, which runs in the project's environment.
"""
