"""A page that shows jobs as they go on, beside the API that it listens to.

    JOBTAPE_JOBS=examples.jobs uvicorn examples.browser.app:app --port 8001

and in a browser http://127.0.0.1:8001/. Workers and projector run beside it: ``jobtape up`` with the same environment.
``events.mjs`` is what one's own page needs; it depends on nothing.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import jobtape

app = FastAPI(title="Jobs, live", lifespan=jobtape.lifespan)
app.mount("/jobtape", jobtape.create_app())
# Last: it takes every path that is left.
app.mount("/", StaticFiles(directory=Path(__file__).parent, html=True))
