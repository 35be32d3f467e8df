"""Pages in a headless Chromium, which the fixture `browser` starts."""

import contextlib


@contextlib.contextmanager
def opened(
    browser,
    address: str,
    scheme: str = "light",
    allowed: tuple[str, ...] = ("file:", "data:", "blob:"),
    **options,
):
    """A page that is loaded. Errors in its console, and requests beyond `allowed`, fail the test."""
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": 1000, "height": 900}, **options
    )
    page, problems = context.new_page(), []
    page.on(
        "console",
        lambda message: (
            problems.append(f"{page.url}: {message.text}") if message.type == "error" else None
        ),
    )
    page.on("pageerror", lambda error: problems.append(f"{page.url}: {error}"))
    page.on(
        "request",
        lambda request: None if request.url.startswith(allowed) else problems.append(request.url),
    )
    try:
        page.goto(address)
        yield page
        assert problems == []
    finally:
        context.close()
