"""The configuration: from the environment, checked as a whole."""

import time

import pytest
from pydantic import ValidationError

from auth import CredentialInvalid
from crdt_sync.keys import configured_verifier
from crdt_sync.settings import PREFIX, InvalidSettings, Settings
from tests.support.tokens import SECRET, hs256, shown, without


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_the_defaults_are_those_of_the_documents() -> None:
    settings = Settings.read()

    assert settings.host == "127.0.0.1"
    assert settings.journal_interval_s == 0.2
    assert settings.checkpoint_interval_s == 5.0
    assert settings.awareness_interval_s == 0.05
    assert settings.awareness_client_bytes_max == 16 << 10
    assert settings.awareness_room_bytes_max == 1 << 20


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_PORT", "4321")
    monkeypatch.setenv("CRDT_SYNC_ROOM_IDLE_S", "1.5")

    settings = Settings.read()

    assert (settings.port, settings.room_idle_s) == (4321, 1.5)


def test_options_go_before_the_environment_unless_they_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_PORT", "4321")
    monkeypatch.setenv("CRDT_SYNC_HOST", "::1")

    settings = Settings.read(port=1, host=None)

    assert (settings.port, settings.host) == (1, "::1")


def test_every_problem_is_reported_together_and_by_the_name_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_PORT", "eighty")
    monkeypatch.setenv("CRDT_SYNC_LOG_LEVEL", "LOUD")
    monkeypatch.setenv("CRDT_SYNC_KEEP_ALIVE_INTERVAL_S", "30")

    with pytest.raises(InvalidSettings) as problem:
        Settings.read()

    lines = str(problem.value).splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "CRDT_SYNC_PORT",
        "CRDT_SYNC_LOG_LEVEL",
        "CRDT_SYNC_KEEP_ALIVE_INTERVAL_S",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"port": -1},
        {"port": 65536},
        {"journal_interval_s": -0.1},
        {"journal_interval_s": float("nan")},
        {"checkpoint_interval_s": 0},
        {"room_idle_s": -1},
        {"open_timeout_s": 0},
        {"drain_deadline_s": 0},
        {"slow_reader_timeout_s": 0},
        {"message_bytes_max": 0},
        {"outbox_bytes_max": 0},
        {"waiting_bytes_max": -5},
        {"unstored_bytes_max": 0},
        {"prot": 1},
    ],
)
def test_what_can_not_work_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings):
        Settings.read(**options)


def test_a_message_that_may_be_sent_may_also_be_stored() -> None:
    # Otherwise every edit of that size would be refused with "try again later", for ever.
    with pytest.raises(InvalidSettings):
        Settings.read(message_bytes_max=16 << 20, unstored_bytes_max=1 << 20)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings.read().port = 1


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_variable_that_is_no_setting_is_refused_with_the_one_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_DATABASE_ULR", "memory://")
    monkeypatch.setenv("CRDT_SYNC_PORT", "x")

    with pytest.raises(InvalidSettings) as problem:
        Settings.read()

    first, second = str(problem.value).splitlines()
    assert first == "CRDT_SYNC_DATABASE_ULR: there is no such setting; did you mean CRDT_SYNC_DATABASE_URL?"
    assert second.startswith("CRDT_SYNC_PORT='x'")


def test_token_that_commands_show_to_a_server_is_no_unknown_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_TOKEN", "abc")

    assert Settings.read() == Settings()


def test_names_in_a_list_have_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("api", " api ", "api,web", "api , web", '["api", "web"]'):
        monkeypatch.setenv("CRDT_SYNC_JWT_AUDIENCE", text)
        assert Settings.read().jwt_audience == (("api", "web") if "web" in text else ("api",))

    assert Settings.read(jwt_audience=["a", "b"]).jwt_audience == ("a", "b")
    assert Settings.read(jwt_issuer="a,b").jwt_issuer == ("a", "b")


@pytest.mark.parametrize("text", ["", " ", ",", "api,,web", "[]", '["api", ""]', '["api"', "[7]"])
def test_a_list_that_is_set_but_has_no_names_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRDT_SYNC_JWT_AUDIENCE", text)

    with pytest.raises(InvalidSettings, match="CRDT_SYNC_JWT_AUDIENCE"):
        Settings.read()


def test_keys_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWT_SECRET", "JWT_PUBLIC_KEY", "JWT_JWKS"):
        monkeypatch.setenv(PREFIX + name, "s3cret")

    settings = Settings.read()

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings)


def test_keys_that_can_not_work_are_invalid_settings() -> None:
    with pytest.raises(InvalidSettings) as problem:
        configured_verifier(Settings.read(jwt_secret="short", jwt_jwks="ftp://nowhere"))

    assert [line.split()[0] for line in str(problem.value).splitlines()] == [
        "CRDT_SYNC_JWT_SECRET",
        "CRDT_SYNC_JWT_JWKS",
    ]


async def test_a_verifier_is_made_from_the_settings() -> None:
    assert configured_verifier(Settings.read()) is None
    verifier = configured_verifier(
        Settings.read(jwt_secret=SECRET, jwt_audience=["api"], jwt_issuer="id", jwt_leeway_s=0, jwt_lifetime_max_s=60)
    )
    assert verifier is not None
    now = time.time()
    good = without(aud="api", iss="id", iat=now, exp=now + 30)

    assert (await verifier(shown(hs256(good)))).expires_at == now + 30
    for change in ({"aud": "web"}, {"iss": "x"}, {"exp": now + 90}, {"exp": now}):
        with pytest.raises(CredentialInvalid):
            await verifier(shown(hs256(good | change)))
