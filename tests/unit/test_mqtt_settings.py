from __future__ import annotations

import pytest
from pydantic import ValidationError

from agent.mqtt_settings import MqttSettings, parse_url


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mqtt://10.0.0.2", "mqtt://10.0.0.2:1883"),
        ("mqtts://broker.example", "mqtts://broker.example:8883"),
        ("mqtts://broker.example:443/", "mqtts://broker.example:443"),
        ("ws://h", "ws://h:80/mqtt"),
        ("wss://h/a/b?x=1", "wss://h:443/a/b?x=1"),
        ("mqtt://[::1]:1", "mqtt://[::1]:1"),
    ],
)
def test_a_url_has_the_default_port_and_path_of_its_scheme(text: str, shown: str) -> None:
    assert str(parse_url(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "broker",
            "http://h",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h:70000",
            "mqtt://h:x",
            "mqtt://h/p",
            "mqtt://h#f",
        ),
        *("mqtt://h h", "ws://h/\r\nX-Evil:1", "mqtt://[::1"),
    ],
)
def test_what_is_no_url_of_a_broker_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        MqttSettings(urls=(text,))


def test_a_url_with_credentials_is_refused_and_never_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        MqttSettings(urls=("mqtt://bob:hunter2@h",))
    assert "hunter2" not in str(caught.value)
    (error,) = caught.value.errors(include_input=False)
    assert error["type"] == "secret_in_url", "by which the configuration knows not to show the value"
    assert "password_file" in error["msg"]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"urls": []}, "at least one broker"),
        ({"username": "u", "password_file": "/p", "password_env": "P"}, "exclude"),
        ({"password_file": "/p"}, "needs mqtt.username"),
        ({"key_file": "/k"}, "needs cert_file"),
        ({"retry_min": 10, "retry_max": 1}, "less than"),
        ({"base": "a/#"}, "topic"),
        ({"base": "a//b"}, "topic"),
        ({"base": "$SYS"}, "topic"),
        ({"batch": 0}, "greater"),
        ({"password": "hunter2"}, "Extra inputs"),
    ],
)
def test_what_cannot_work_is_said(settings: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word) as caught:
        MqttSettings.model_validate(settings)
    assert "hunter2" not in str(caught.value)


def test_the_version_may_be_written_as_a_number() -> None:
    assert MqttSettings.model_validate({"version": 5}).version == "5"
