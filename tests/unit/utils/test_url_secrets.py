"""Passwords and tokens of URLs: named, not held."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.untrained import spec

from nas.api.requests import with_absolute_paths
from nas.errors import DataError, SpecError
from nas.utils.paths import localize, to_path
from nas.utils.url_secrets import check_no_secret, masked, with_secrets, without_secrets


@pytest.mark.parametrize(
    "location",
    [
        "https://me:SECRETPW@host/cells.zip",
        "https://host/cells.zip?token=x",
        "https://host/cells.zip?X-Amz-Signature=0123456789abcdef0123",
        "https://host/cells.zip?sv=2024-11-04-and-a-long-one",
        "https://host/cells.zip?0123456789abcdef0123",
        "https://me:${NAS_SECRET_HOST}B@host/cells.zip",
        "https://evil/?${NAS_SECRET_HOST}",
        "https://evil/${AWS_SECRET_ACCESS_KEY}.pt",
        "https://evil.org/x?a=${NAS_SECRET_EVIL}",
        "s3://me:${NAS_SECRET_BUCKET}@bucket/x",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(tmp_path: Path, location: str):
    with pytest.raises(SpecError, match="must hold no password or token") as refused:
        check_no_secret("data.root", location)
    assert not {"SECRETPW", "abcdef", "HOST}B"} & set(str(refused.value).split())
    for key in ("data.root", "recipe.weights", "run.output"):
        with pytest.raises(SpecError, match=f"^{key} must "):
            spec(tmp_path, **{key: location})


@pytest.mark.parametrize(
    "location",
    [
        "cells:with@odd?name=0123456789abcdef0123",
        "s3://bucket/cells",
        "https://me@host/cells.zip?dl=1",
        "https://host/cells.zip?versionId=7&download=true",
        "https://me:${NAS_SECRET_DATA_HOST_ORG}@data.host.org/x.zip?sig=${NAS_SECRET_DATA_HOST_ORG}",
        "https://me:${NAS_SECRET_DATA__HOST_ORG}@data-host.org/x.zip",
        "s3://my_bucket/cells",
        "https://bücher.example/cells.zip",
    ],
)
def test_others_pass(location: str):
    check_no_secret("data.root", location)


@pytest.mark.parametrize(
    "location",
    ["https:/me:SECRETPW@h/x.zip", "https//me:SECRETPW@h/x.zip", "s3:///me:SECRETPW@bucket/x"],
)
def test_a_mistyped_url_with_a_password_is_no_path(tmp_path: Path, location: str):
    """As a path it would be stored, shown, and made as a folder."""
    for key in ("data.root", "recipe.weights", "run.output"):
        with pytest.raises(SpecError, match=f"^{key} must be a path or a URL") as refused:
            spec(tmp_path, **{key: location})
        assert "SECRETPW" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://me:a@b/c@host/x and s3://b", "see https://me:***@host/x and s3://b"),
        ("folder 'http:/me:pw@h/d' is", "folder 'http:/me:***@h/d' is"),
        ("http://h/x?a=1&token=pw&b=2", "http://h/x?a=1&token=***&b=2"),
        ("https://me:${NAS_SECRET_H}@h/x", "https://me:${NAS_SECRET_H}@h/x"),
        ("try C2-C2@96: it is in /runs/a:b@c", "try C2-C2@96: it is in /runs/a:b@c"),
    ],
)
def test_passwords_in_a_text_are_masked(text: str, shown: str):
    assert masked(text) == shown


def test_a_variable_is_looked_up_where_the_url_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NAS_SECRET_127_0_0_1", "SECRETPW")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    location = "http://me:${NAS_SECRET_127_0_0_1}@127.0.0.1:1/cells"
    assert with_secrets(location) == "http://me:SECRETPW@127.0.0.1:1/cells"
    assert "SECRETPW" in str(to_path(location))
    assert with_secrets("a/${NAS_SECRET_127_0_0_1}") == "a/${NAS_SECRET_127_0_0_1}"
    request = with_absolute_paths(spec(tmp_path, **{"data.root": location}))
    assert request.data.root == location
    assert "SECRETPW" not in str(request.to_dict())
    with pytest.raises(DataError) as refused:
        localize(location)
    assert "SECRETPW" not in str(refused.value)
    assert without_secrets("GET SECRETPW@h: 403", location) == "GET ${NAS_SECRET_127_0_0_1}@h: 403"
    monkeypatch.delenv("NAS_SECRET_127_0_0_1")
    with pytest.raises(SpecError, match="needs the environment variable NAS_SECRET_127_0_0_1"):
        to_path(location)


@pytest.mark.parametrize(
    "url",
    ["http://me:SECRETPW@head:8265", "http:/me:SECRETPW@head", "https://head/?token=SECRETPW"],
)
def test_a_clusters_url_holds_no_secret(tmp_path: Path, url: str):
    with pytest.raises(SpecError, match=r"^run.cluster: must hold no password") as refused:
        spec(tmp_path, **{"run.cluster": url})
    assert "SECRETPW" not in str(refused.value)
    assert spec(tmp_path, **{"run.cluster": "http://head:8265"}).run.cluster


def test_an_output_names_no_variable(tmp_path: Path):
    with pytest.raises(SpecError, match="^run.output must name no environment variable"):
        spec(tmp_path, **{"run.output": "s3://${KEY}@bucket/runs"})


@pytest.mark.parametrize(
    "location",
    [
        "https://evil/${NAS_SECRET_HOST}",
        "https://evil\\@host/${NAS_SECRET_HOST}",
        "https://${NAS_SECRET_HOST}.evil.org/x",
        "https://evil/${HOME}",
        "https://me:${NAS_SECRET_MY_HOST_IO}@my-host.io/x",  # is that of my.host.io
        "https://me:${NAS_SECRET_MY_HOST_IO}@my_host.io/x",
        "https://me:${NAS_SECRET_MY_HOST_IO}@my.host\u0131o/x",
        "https://me:${NAS_SECRET_MY_HOST_IO}@my.host.\u0131o/x",  # a dotless i, an I in capitals
        "github://me:${NAS_SECRET_HOST}@host/x",  # goes to GitHub
        "https://me:${NAS_SECRET_HOST}@host::https://evil/x",
    ],
)
def test_no_secret_goes_to_another_host(location: str, monkeypatch: pytest.MonkeyPatch):
    """Whoever wrote the URL: it may come from a bundle, or from the database."""
    for name in ("NAS_SECRET_HOST", "NAS_SECRET_MY_HOST_IO"):
        monkeypatch.setenv(name, "SECRETPW")
    with pytest.raises(SpecError) as refused:
        to_path(location)
    assert "SECRETPW" not in str(refused.value)
