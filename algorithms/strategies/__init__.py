"""Evolution strategies as mathematics: ask what to try, weigh the returns, tell the sums. No process, no environment.

``strategy.py`` has the protocol, each method a file. ``minimize.py`` runs any of them on a plain function. What they
share: pairs of opposite signs, float32 centres, sums that can be made anywhere. They maximise.
"""
