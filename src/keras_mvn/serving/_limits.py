"""A limit to the size of request bodies, whatever their headers say."""

from __future__ import annotations

import json
from typing import Any, final

__all__ = ["SizeLimit"]


@final
class SizeLimit:
    """ASGI middleware that answers 413 to bodies of more than some bytes.

    Args:
        app: the application.
        most: bytes, at most.

    """

    def __init__(self, app: Any, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, unless its body is too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._most:
            await self._refuse(send)
            return
        read, refused = 0, False

        async def limited() -> Any:
            """Return the next part of the body, or its end if there was too much."""
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read <= self._most:
                return message
            return {"type": "http.request", "body": b"", "more_body": False}

        async def answered(message: Any) -> None:
            """Send what the application answers, unless it has not seen the whole body."""
            nonlocal refused
            if read <= self._most:
                await send(message)
            elif not refused:
                refused = True
                await self._refuse(send)

        await self._app(scope, limited, answered)

    async def _refuse(self, send: Any) -> None:
        detail = f"The body has more than {self._most} bytes; send fewer rows at a time."
        body = json.dumps({"detail": detail}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
