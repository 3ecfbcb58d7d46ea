"""A local HTTP server that speaks Binance's public API as far as ccxt asks for candles, and fails on request."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlparse

import ccxt

from cmat_lib.data.sources.exchange import open_exchange

MINUTES = 60_000


def kline(opened: int, bar: int) -> list:
    """A row as Binance sends it; its values follow from its time alone."""
    price = 100 + opened // bar % 997
    text = [f"{value:.2f}" for value in (price, price + 2, price - 1, price + 1, 10 + price / 7)]
    return [opened, *text, opened + bar - 1, "1.0", 5, "0.5", "0.5", "0"]


@dataclass
class Binance:
    """State of the server.

    ``fail``: number of the klines request (from 1) -> what goes wrong: an HTTP status, ``reset``, ``cut``, ``garbage``,
    ``empty`` (HTTP 200 without a row).
    """

    now: int
    listed: int
    bar: int = 15 * MINUTES
    symbols: tuple[tuple[str, str], ...] = (("BTC", "USDT"), ("ETH", "USDT"))
    absent: range = range(0)
    fail: dict[int, int | str] = field(default_factory=dict)
    everything: int | None = None  # HTTP status of every answer
    url: str = ""
    starts: list[int] = field(default_factory=list)  # startTime of every klines request

    def klines(self, start: int, limit: int) -> list[list]:
        first = -(-max(start, self.listed) // self.bar) * self.bar
        opens = (t for t in range(first, self.now + 1, self.bar) if t not in self.absent)  # with the unfinished one
        return [kline(t, self.bar) for t, _ in zip(opens, range(limit), strict=False)]

    def exchange(self) -> ccxt.Exchange:
        """ccxt's own Binance, with its documented `urls` pointed here and no rate limit."""
        exchange = open_exchange("binance")
        exchange.enableRateLimit = False
        for name in ("public", "fapiPublic", "dapiPublic"):
            exchange.urls["api"][name] = f"{self.url}/{name}"
        return exchange


def market(base: str, quote: str) -> dict:
    lists = {"orderTypes": [], "filters": [], "permissions": ["SPOT"]}
    return {"symbol": base + quote, "status": "TRADING", "baseAsset": base, "quoteAsset": quote, **lists}


@contextmanager
def serving(state: Binance):
    """The server in a thread; yields `state` with its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlparse(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            answer, failure = self.answer(url.path, query), None
            if url.path.endswith("/klines"):
                state.starts.append(int(query["startTime"]))
                failure = state.fail.get(len(state.starts))
            self.send(state.everything or failure, json.dumps(answer).encode())

        def answer(self, path, query):
            if path.endswith("/time"):
                return {"serverTime": state.now}
            if path.endswith("/klines"):
                return state.klines(int(query["startTime"]), int(query["limit"]))
            return {"symbols": [market(*pair) for pair in state.symbols] if path.startswith("/public") else []}

        def send(self, failure, body):
            if failure == "reset":
                self.connection.close()
                return
            self.send_response(failure if isinstance(failure, int) else 200)
            self.send_header("Content-Type", "application/json")
            if failure == 429:
                self.send_header("Retry-After", "7")
            if isinstance(failure, int):
                body = b'{"code": 0, "msg": "Service unavailable from a restricted location"}'
            if failure == "empty":
                body = b"[]"
            if failure == "garbage":
                body = body[: len(body) // 2]
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if failure == "cut" else body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
