"""Job types that do real work on real input, and an application that uses them.

Start everything with ``JOBTAPE_JOBS=examples.jobs jobtape up`` from the folder that holds ``examples``.
"""
