"""What opens the admin pages: passwords that are hard to guess, sessions that end."""

from pathlib import Path

import pytest

from fedrec.errors import ConfigError
from fedrec_server.keys.credentials import ADMIN_TOKEN, Credentials, make_tokens, set_password


@pytest.mark.parametrize("password", ["", "short", "x" * 1001])
def test_a_password_that_is_easy_to_guess_is_refused(tmp_path: Path, password: str) -> None:
    with pytest.raises(ConfigError, match="12 to 1000"):
        set_password(tmp_path, password)
    assert not list(tmp_path.iterdir())


def test_sessions_end_and_are_bounded(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    token = (tmp_path / ADMIN_TOKEN).read_text()
    short = Credentials(tmp_path, session_s=-1.0)
    ended = short.log_in(token)
    assert ended is not None
    assert short.session(ended.key) is None
    credentials = Credentials(tmp_path)
    opened = [credentials.log_in(token) for _ in range(120)]
    assert len(credentials._sessions) == 100
    assert credentials.session(opened[-1].key if opened[-1] else "") is not None
    assert credentials.session(opened[0].key if opened[0] else "") is None
    assert credentials.log_in("") is None
