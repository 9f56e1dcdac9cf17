"""A real browser's pages of several origins, of which one may play."""

from __future__ import annotations

from pathlib import Path

from browser import Browser, PageServer
from capture import capturing

#: Asks in all ways in which pages can ask, and reports what became of it.
PAGE = """
<script>
  const [{id, url}] = JSON.parse(decodeURIComponent(location.hash.slice(1)));
  const head = options => fetch(url, {method: "HEAD", ...options}).then(r => r.status);
  const ways = {
    plain: () => head({}),
    cookies: () => head({credentials: "include"}),
    authorization: () =>
      head({credentials: "include", headers: {Authorization: "Bearer x"}}),
    webSocket: () => new Promise((resolve, reject) => {
      const socket = new WebSocket(url.replace("http", "ws"));
      socket.onopen = () => { resolve("open"); socket.close(); };
      socket.onerror = () => reject();
    }),
  };
  (async () => {
    const answers = {};
    for (const [name, ask] of Object.entries(ways))
      answers[name] = await ask().catch(() => "refused");
    fetch("report", {
      method: "POST", body: JSON.stringify({id, event: "asked", answers}),
    });
  })();
</script>
"""


def test_onlyPagesOfTheOriginsPlay(tmp_path: Path) -> None:
    pages = {name: PageServer(PAGE) for name in ("ours", "foreign")}
    arguments = ["--http", "tcp:0:interface=127.0.0.1", "--http-origin"]
    with capturing(tmp_path, *arguments, pages["ours"].origin) as capture:
        port = capture.server.expect(r"Listening on [0-9.]+:(\d+) \(HTTP")[1]
        answers = {}
        for name, server in pages.items():
            urls = {name: f"http://127.0.0.1:{port}/live/none.flv"}
            folder = tmp_path / name
            folder.mkdir()
            with Browser(urls, folder, server) as browser:
                answers[name] = browser.reported("asked", [name])[name]["answers"]
        origin = pages["foreign"].origin
        capture.server.expect(f"is refused: it comes from a page of {origin}, which")
    assert answers == {
        "ours": {
            "plain": 404,
            "cookies": 404,
            "authorization": 404,
            "webSocket": "open",
        },
        "foreign": dict.fromkeys(answers["ours"], "refused"),
    }
