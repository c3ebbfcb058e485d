"""Everything that a browser is given works without a network: nothing comes from anywhere else."""

import re

# A namespace or a licence's address is read by nobody.
_LOADED = re.compile(
    r"""(?:src|href|url|import|fetch|action)\s*[=(:]?\s*["']?\s*((?:https?:)?//[^"'\s)>]+)""", re.IGNORECASE
)


def test_the_documentation_works_offline(service):
    """The page of the API loads only what the service itself has, and that is there."""
    page = service.get("/docs").text
    assert not _LOADED.findall(page)
    parts = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert parts and all(part.startswith("/") for part in parts)
    assert [service.get(part).status_code for part in parts] == [200] * len(parts)


def test_the_page_works_offline(service):
    """So does the page for people."""
    page = service.get("/")
    assert page.status_code == 200 and not _LOADED.findall(page.text)
    for part in re.findall(r"""(?:src|href)=["']([^"'#]+)""", page.text):
        answer = service.get(part if part.startswith("/") else f"/{part}")
        assert answer.status_code == 200 and not _LOADED.findall(answer.text), part


def test_no_second_documentation(service):
    """There is no other page that would load from a CDN, and the document names no server."""
    assert service.get("/redoc").status_code == 404
    assert "servers" not in service.get("/openapi.json").json()
