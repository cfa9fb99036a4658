from laconic.train.worth import break_even, worth_lines


def test_break_even_is_where_output_and_checkpoint_meet():
    assert break_even(1000, 2.0, 2.0) is None
    size = break_even(1000, 2.0, 1.5)
    assert size * 1.5 / 8 + 1000 == size * 2.0 / 8
    worth = {"new": {"bytes": 9, "start": 2.0, "adapted": 1.5, "both": 1.4, "none": 1.8}, "old": None}
    worth |= {"break_even": {"start": 16000, "none": None, "best": 26667}, "corpus_bytes": 20_000}
    worth["pruned"] = None
    lines = "\n".join(worth_lines(worth, 1000, "default", "mine"))
    assert "16,000 bytes" in lines
    assert "against experts alone: never" in lines
    assert "20,000 bytes of text: too little to pay" in lines
    assert "until 26,667 bytes" in lines
    for until, words in ((5000, "smaller until 5,000 bytes"), (None, "however long")):
        worth["pruned"] = {"start_bytes": 2000, "start_macs_per_byte": 5e5, "until": until}
        lines = "\n".join(worth_lines(worth, 1000, "default", "mine"))
        assert "from 2,000 bytes, 0.500 M" in lines
        assert words in lines
