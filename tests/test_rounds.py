"""What the benchmarks share."""

import json

import rounds


def test_arms_take_turns():
    called = []

    def arm(name, rates):
        def measure():
            called.append(name)
            return next(rates)

        return measure

    arms = {"ours": arm("ours", iter([10.0, 40.0, 15.0])), "theirs": arm("theirs", iter([5.0, 10.0, 5.0]))}
    rates = rounds.in_turn(arms, 3)
    assert called == ["ours", "theirs"] * 3
    found = rounds.beside(rates, "theirs")
    assert found["ours"] == {
        "rate": {"median": 15.0, "min": 10.0, "max": 40.0, "n": 3},
        # Each to the other arm's rate in the same round.
        "ratio": {"median": 3.0, "min": 2.0, "max": 4.0, "n": 3},
    }
    assert found["theirs"]["ratio"]["median"] == 1.0


def test_figures_have_three_digits():
    assert rounds.spread([1234.5]) == {"median": 1230.0, "min": 1230.0, "max": 1230.0, "n": 1}


def test_a_result_says_where_it_comes_from_and_not_where_its_files_lie(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["benchmarks/decoders.py", "/home/somebody/photos", "--out", "out.json"])
    found = rounds.machine(["pillow"])
    assert found["command"] == ["benchmarks/decoders.py", "photos", "--out", "out.json"]
    assert found["versions"]["pillow"]
    assert found["device"]
    rounds.write(tmp_path / "out.json", found)
    assert json.loads((tmp_path / "out.json").read_text()) == found
