"""Runs the examples of docs/STOREFRONT.md as they are printed, each through a proxy that calls it too slow, keeps two answers
to itself and then turns it away twice, and sees that each made exactly one booking.

Usage: examples.py URL, with an operator's key as BOXOFFICE_TOKEN.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from flaky import Flaky

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "STOREFRONT.md"
INTERPRETERS = {"bash": "bash", "python": sys.executable, "javascript": "node"}
SUFFIXES = {"bash": ".sh", "python": ".py", "javascript": ".mjs"}


def ask(method: str, url: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {os.environ['BOXOFFICE_TOKEN']}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)


def published(url: str, event: str) -> dict:
    """The event on sale, for whose shard an API that has just started may have to wait."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return ask("POST", f"{url}/v1/events/{event}/publish")
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(float(error.headers["Retry-After"]))


def sell(url: str) -> dict:
    """An event on sale."""
    ticket_type = {"name": "Stalls", "capacity": 10, "price": {"amount": 2500, "currency": "EUR"}}
    draft = {"name": "Examples", "starts_at": "2099-06-01T20:00:00Z", "ticket_types": [ticket_type]}
    event = ask("POST", f"{url}/v1/events", draft)
    return published(url, event["id"])


def run(language: str, code: str, event: dict, url: str) -> str:
    """What the example printed: the booking's id."""
    names = {"BOXOFFICE_URL": url, "EVENT_ID": event["id"], "TICKET_TYPE_ID": event["ticket_types"][0]["id"]}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / f"example{SUFFIXES[language]}"
        file.write_text(code)
        command = [INTERPRETERS[language], str(file)]
        done = subprocess.run(
            command, cwd=folder, env=os.environ | names, capture_output=True, text=True, timeout=60, check=False
        )
    if done.returncode != 0:
        sys.exit(f"the example in {language} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def main() -> None:
    url = sys.argv[1]
    examples = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    examples = [(language, code) for language, code in examples if "Idempotency-Key" in code]
    if {language for language, _ in examples} != set(INTERPRETERS):
        sys.exit(f"{PAGE} should have an example in each of {', '.join(INTERPRETERS)}")
    event = sell(url)
    for language, code in examples:
        flaky = Flaky(url)
        booking = run(language, code, event, flaky.url)
        attempts = list(flaky.seen.values())
        if attempts != [6]:
            sys.exit(f"the example in {language} should have sent one key six times, not {flaky.seen}")
        if ask("GET", f"{url}/v1/events/{event['id']}/bookings/{booking}")["status"] != "confirmed":
            sys.exit(f"the example in {language} printed {booking}, which is not confirmed")
    sold = ask("GET", f"{url}/v1/events/{event['id']}/availability")["ticket_types"][0]["sold"]
    if sold != len(examples):
        sys.exit(f"{len(examples)} examples should have sold a ticket each, not {sold} in all")
    print(f"{len(examples)} examples: each lost two answers, was turned away three times, and made one booking")


if __name__ == "__main__":
    main()
