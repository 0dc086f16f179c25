"""A small typed client of the HTTP door: submit, follow, read pictures and tables. Refusals come back as `Refused`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

Document = dict[str, Any]


class Refused(ValueError):
    """The service refused: HTTP status, stable code, sentence, and the refusals one by one (RFC 9457)."""

    def __init__(self, status: int, code: str, detail: str, errors: tuple[Document, ...] = ()) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail, self.errors = status, code, detail, errors


@dataclass(frozen=True)
class Happened:
    """One event of a prediction: "progress", "picture", "molecule" or "end"; `number` to go on from, None: none."""

    kind: str
    data: Document
    number: int | None = None


class Client:
    """Speaks to a running `dopaint serve`; `key` where it asks for one. `transport` lets tests speak to the app without
    a network."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8711/",
        *,
        key: str | None = None,
        timeout_s: float = 90.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(
            base_url=url, timeout=timeout_s, transport=transport, trust_env=False, headers=headers
        )

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
        half_width: float | None = None,
        idempotency_key: str | None = None,
        wait_s: float = 0.0,
    ) -> str:
        """Queue a prediction; returns its id. `half_width`: draw until the intervals are that narrow (control MADs),
        `draws` times at most. The same `idempotency_key` again gives the first id. Raises `Refused`."""
        body = {
            "smiles": smiles if isinstance(smiles, str) else list(smiles),
            "draws": draws,
            "seed": seed,
            "allow_simulated": allow_simulated,
            "contexts": list(contexts),
            "abstain": abstain,
            "precision": None if half_width is None else {"half_width": half_width},
        }
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        answer = self._http.post("/v1/predictions", json=body, params={"wait": wait_s}, headers=headers)
        return str(_document(answer)["id"])

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

    def all(self, *, status: str | None = None, page: int = 50) -> Iterator[Document]:
        """Your predictions, newest first."""
        params: dict[str, Any] = {"limit": page} | ({} if status is None else {"status": status})
        while True:
            answer = _document(self._http.get("/v1/predictions", params=params))
            yield from answer["items"]
            if answer["next"] is None:
                return
            params["after"] = answer["next"]

    def cancel(self, key: str) -> Document:
        """Stop a prediction; what is finished of it stays."""
        return _document(self._http.post(f"/v1/predictions/{key}/cancel"))

    def delete(self, key: str) -> None:
        """Stop a prediction and remove it with its results."""
        _content(self._http.delete(f"/v1/predictions/{key}"))

    def events(self, key: str, *, after: int = 0) -> Iterator[Happened]:
        """What happens to a prediction, as it happens, until its end; `after`: the number of the last one known."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._http.stream("GET", f"/v1/predictions/{key}/events", headers=headers) as response:
            if response.status_code >= 400:
                response.read()
            _content(response)
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(":")
                if name:
                    fields[name] = value.removeprefix(" ")
                elif "data" in fields:
                    number = int(fields["id"]) if "id" in fields else None
                    yield Happened(fields.get("event", "message"), json.loads(fields["data"]), number)
                    fields = {}
                else:
                    fields = {}

    def link(self, key: str, resource: str = "files", seconds: int = 3600) -> Document:
        """An expiring link for a viewer that cannot send a key; `url`, `prefix`, `expires`."""
        return _document(
            self._http.post(f"/v1/predictions/{key}/links", json={"resource": resource, "seconds": seconds})
        )

    def download(self, key: str, out: str | Path) -> Path:
        """The whole result folder as a zip file."""
        out = Path(out)
        with self._http.stream("GET", f"/v1/predictions/{key}/files.zip") as response:
            if response.status_code >= 400:
                response.read()
            _content(response)
            with out.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)
        return out

    def profile_pictures(
        self, file: str | Path, *, channels: Sequence[str] = (), allow_simulated: bool = False, **options: Any
    ) -> Document:
        """Send pictures of your own (a TIFF, or a zip with compound/ and control/) and wait for their scores.

        `options`: pixel_size_um, bits, engine, smiles.
        """
        file = Path(file)
        params = {**options, "allow_simulated": allow_simulated}
        if channels:
            params["channels"] = ",".join(channels)
        media = "application/zip" if file.suffix.lower() == ".zip" else "image/tiff"
        with file.open("rb") as stream:
            answer = _document(
                self._http.post("/v1/profiles", content=stream, params=params, headers={"Content-Type": media})
            )
        while answer["status"] in ("queued", "running"):
            answer = _document(self._http.get(f"/v1/profiles/{answer['id']}", params={"wait": 10}))
        return answer

    def molecule(self, smiles: str) -> Document:
        """A molecule standardised, drawn, and placed beside what the model knows."""
        return _document(self._http.post("/v1/molecules", json={"smiles": smiles}))

    def picture(
        self,
        key: str,
        molecule: int,
        draw: int,
        *,
        row: Literal["compound", "control", "difference"] = "compound",
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
