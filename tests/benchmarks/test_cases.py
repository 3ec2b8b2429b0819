import pytest

from benchmarks import cases
from benchmarks.cases import CASES, UnknownNameError, choose


def test_patterns_choose_in_the_order_of_the_list():
    assert choose(["policy", "forward/imagenet_*"], CASES, "case") == [
        "forward/imagenet_fourier",
        "forward/imagenet_learned",
        "forward/imagenet_conv",
        "forward/imagenet_fourier@8",
        "forward/imagenet_learned@8",
        "forward/imagenet_conv@8",
        "policy",
    ]


def test_a_plain_name_is_batch_1_alone():
    (name,) = choose(["forward/language"], CASES, "case")
    assert CASES[name].batch == 1
    assert CASES[f"{name}@8"].batch == 8


def test_no_pattern_chooses_all():
    assert choose([], CASES, "case") == list(CASES)


def test_an_unknown_name_says_what_is_close_and_what_there_is():
    with pytest.raises(UnknownNameError, match=r"no case 'forward/imagnet_fourier'; did you mean 'forward/imagenet_"):
        choose(["forward/imagnet_fourier"], CASES, "case")


@pytest.mark.parametrize("name", CASES)
def test_cases_survive_the_pipe(name):
    assert cases.from_json(cases.to_json(CASES[name])) == CASES[name]
