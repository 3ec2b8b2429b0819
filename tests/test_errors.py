import sys

import pytest

import perceiver
from perceiver.errors import ConfigError, InputError, MissingExtraError, naming, require


def test_a_missing_package_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"'soundfile'.*pip install 'perceiver\[audio\]'"):
        require("soundfile", "audio")


def test_a_present_package_is_returned():
    assert require("json", "none").dumps([]) == "[]"


def test_a_place_is_put_in_front_of_input_errors_only():
    with pytest.raises(InputError, match=r"^inputs\['image'\]: too big$"), naming("inputs['image']"):
        raise InputError("too big")
    with pytest.raises(ConfigError, match=r"^as it was$"), naming("inputs['image']"):
        raise ConfigError("as it was")


def test_errors_are_the_python_kinds_that_callers_already_catch():
    assert issubclass(InputError, ValueError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(MissingExtraError, ImportError)


def test_every_public_name_loads_and_no_other():
    for name in dir(perceiver):
        assert getattr(perceiver, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Imagee'"):
        _ = perceiver.Imagee
