"""A small typed client of the HTTP door: submit, wait, read pictures and tables. Refusals come back as `Refused`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal

import httpx

Document = dict[str, Any]


class Refused(ValueError):
    """The service refused: HTTP status, stable code, sentence, and the refusals one by one (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[Document, ...] = ()) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.errors = status, code, detail, errors


class Client:
    """Speaks to a running `dopaint serve`. `transport` lets tests speak to the app without a network."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8711/",
        *,
        timeout_s: float = 90.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout_s, transport=transport, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the model is loaded."""
        try:
            return self._http.get("/v1/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the model is loaded. Raises `Refused` with the service's own reason after `timeout_s`."""
        until = time.monotonic() + timeout_s
        reason = "no answer"
        while time.monotonic() < until:
            try:
                answer = self._http.get("/v1/health/ready")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                return
            reason = str(answer.json()["reason"])
            if "still loading" not in reason:
                break
            time.sleep(0.2)
        raise Refused(503, "not_ready", reason)

    def submit(
        self,
        smiles: str | Sequence[str],
        *,
        draws: int = 16,
        seed: int = 1,
        allow_simulated: bool = False,
        contexts: Sequence[str] = (),
        abstain: bool = False,
        wait_s: float = 0.0,
    ) -> str:
        """Queue a prediction; returns its id. Raises `Refused`."""
        body = {
            "smiles": smiles if isinstance(smiles, str) else list(smiles),
            "draws": draws,
            "seed": seed,
            "allow_simulated": allow_simulated,
            "contexts": list(contexts),
            "abstain": abstain,
        }
        return str(_document(self._http.post("/v1/predictions", json=body, params={"wait": wait_s}))["id"])

    def get(self, key: str, *, wait_s: float = 0.0) -> Document:
        """The status of a prediction, and its answer once it is done."""
        return _document(self._http.get(f"/v1/predictions/{key}", params={"wait": wait_s}))

    def predict(
        self, smiles: str | Sequence[str], *, draws: int = 16, seed: int = 1, allow_simulated: bool = False
    ) -> Document:
        """Submit and wait for the answer."""
        key = self.submit(smiles, draws=draws, seed=seed, allow_simulated=allow_simulated)
        while (answer := self.get(key, wait_s=10.0))["status"] in ("queued", "running"):
            pass
        return answer

    def picture(
        self,
        key: str,
        molecule: int,
        draw: int,
        *,
        row: Literal["compound", "control"] = "compound",
        channel: str = "composite",
        format: Literal["png", "ome-tiff"] = "png",
    ) -> bytes:
        """One picture as PNG, or the OME-TIFF with all channels."""
        params = {"row": row, "channel": channel, "format": format}
        return _content(
            self._http.get(f"/v1/predictions/{key}/molecules/{molecule}/pictures/{draw}", params=params)
        ).content

    def effects(self, key: str, molecule: int) -> Document:
        """The effects of a molecule by columns."""
        return _document(self._http.get(f"/v1/predictions/{key}/molecules/{molecule}/effects"))

    def version(self) -> Document:
        """Versions and hashes of what answers."""
        return _document(self._http.get("/v1/version"))


def _content(response: httpx.Response) -> httpx.Response:
    if response.status_code >= 400:
        try:
            problem = response.json()
        except ValueError:
            problem = {}
        detail = str(problem.get("detail", response.text[:200]))
        raise Refused(response.status_code, str(problem.get("code", "http")), detail, tuple(problem.get("errors", ())))
    return response


def _document(response: httpx.Response) -> Document:
    document: Document = _content(response).json()
    return document
