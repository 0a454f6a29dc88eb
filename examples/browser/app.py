"""A page that shows jobs as they run, served beside the API that it reads from.

    JOBTAPE_JOBS=examples.jobs uvicorn examples.browser.app:app --port 8001

Then open http://127.0.0.1:8001/. Start workers and projector with ``jobtape up`` in the same environment. A page of
your own needs only ``events.mjs``, which has no dependencies.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

import jobtape

app = FastAPI(title="Jobs, live", lifespan=jobtape.lifespan)
app.mount("/jobtape", jobtape.create_app())
# Last, because it answers all other paths.
app.mount("/", StaticFiles(directory=Path(__file__).parent, html=True))
