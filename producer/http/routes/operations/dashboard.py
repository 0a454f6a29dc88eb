"""``GET /`` and the files of the dashboard. They contain no data and need no key: the page asks for it."""

from typing import Final

from fastapi import APIRouter, Request, Response

from jobtape.producer.dashboard.assets import Asset, read_assets
from jobtape.producer.http.problems import Problem

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text can become markup, whatever the scripts do.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
CHECK_AGAIN: Final = "no-cache"
FOR_EVER: Final = "public, max-age=31536000, immutable"


def build_router() -> APIRouter:
    """Return the routes of the dashboard. Reads its files now."""
    router = APIRouter(include_in_schema=False)
    assets = read_assets()

    @router.get("/")
    async def page(request: Request) -> Response:
        return _response(request, assets.page, CHECK_AGAIN)

    @router.get("/dashboard/{version}/{path:path}")
    async def file(version: str, path: str, request: Request) -> Response:
        if (found := assets.files.get(path)) is None:
            raise Problem("not-found", f"the dashboard has no file {path}: load the page again")
        # During an update, the page may come from one process and a file from another.
        return _response(request, found, FOR_EVER if version == assets.version else CHECK_AGAIN)

    return router


def _response(request: Request, asset: Asset, caching: str) -> Response:
    headers = {**HEADERS, "Cache-Control": caching, "ETag": asset.etag}
    if asset.etag in [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    content = asset.content
    if "gzip" in request.headers.get("accept-encoding", "").lower():
        content, headers["Content-Encoding"] = asset.compressed, "gzip"
    return Response(content, headers=headers, media_type=asset.media_type)
